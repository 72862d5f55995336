//! Random schedules: two replicas of the real engine, crashes at every step boundary, pauses between lease check and
//! socket and before every transaction, lost, late and doubled requests, lagging answers, wrong credentials, changes and
//! deletes at any time, clocks stepped by an hour, strangers on the same ports, clouds that give other values than they are
//! asked for. A seed is a schedule: `TIELINE_FAULT_SEED=n` replays one, `TIELINE_FAULT_SEEDS=n` runs that many on SQLite and
//! one for ten of them on Postgres, `TIELINE_FAULT_SEEDS=m..n` a part of them.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use tieline_api::store::{OpenOptions, SqlStore, StoreTime};

use super::{errors::ErrorsOnly, schedule::Schedule, sim::Database};
use crate::postgres::databases;

/// Which database the schedules run on.
enum On {
    Sqlite,
    Postgres { template: String },
}

impl On {
    async fn fresh(&self) -> Database {
        match self {
            Self::Sqlite => Database::Memory,
            Self::Postgres { template } => {
                let server = databases().expect("it was there a moment ago");
                let (name, url) = server.fresh(Some(template));
                Database::Postgres { server, name, url }
            }
        }
    }
}

/// Runs one schedule; the most live resources that any instance had at a time.
fn run_seed(seed: u64, on: &On) -> Result<usize, String> {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let errors = ErrorsOnly::default();
            let _guard = tracing::subscriber::set_default(errors.clone());
            let mut schedule = Schedule::new(seed, on.fresh().await).await;
            let run = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(schedule.run())).await;
            if run.is_err() || std::env::var("TIELINE_FAULT_TRACE").is_ok() {
                schedule.sim.print_trace();
            }
            let most = schedule.most;
            schedule.end().await;
            if let Err(panic) = run {
                std::panic::resume_unwind(panic);
            }
            assert_eq!(errors.seen(), Vec::<String>::new(), "an ERROR line is a defect");
            most
        })
    }));
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
    })
}

/// What replays one schedule, with its trace.
const REPLAY: &str = "TIELINE_FAULT_SEED";

fn replay(seed: u64, name: &str) -> String {
    let on = name.to_lowercase();
    format!(
        "{REPLAY}={seed} cargo nextest run -p tieline-api -E 'test(no_schedule_loses_or_doubles_a_resource_on_{on})'"
    )
}

/// Which schedules to run. `share`: one for so many that are asked for.
fn seeds(by_default: u64, share: u64) -> Vec<u64> {
    let text = |name: &str| std::env::var(name).ok();
    let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("{text} is no number of schedules"));
    if let Some(seed) = text(REPLAY) {
        return vec![number(&seed)];
    }
    let Some(asked) = text("TIELINE_FAULT_SEEDS") else { return (0..by_default).collect() };
    let (from, to) =
        asked.split_once("..").map_or_else(|| (0, number(&asked)), |(from, to)| (number(from), number(to)));
    (from.div_ceil(share)..to.div_ceil(share)).collect()
}

fn run_all(name: &str, by_default: u64, share: u64, on: &On) {
    let seeds = seeds(by_default, share);
    let next = AtomicU64::new(0);
    let failed = Mutex::new(Vec::new());
    let twins = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(usize::try_from(next.fetch_add(1, Ordering::SeqCst)).unwrap()) {
                    match run_seed(*seed, on) {
                        Ok(most) if most > 1 => {
                            twins.fetch_add(1, Ordering::SeqCst);
                        }
                        Ok(_) => {}
                        Err(why) => failed.lock().unwrap().push((*seed, why)),
                    }
                }
            });
        }
    });
    println!("{} schedules on {name}, {} with a twin at some time", seeds.len(), twins.load(Ordering::SeqCst));
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    let text: Vec<_> =
        failed.iter().map(|(seed, why)| format!("seed {seed}: {why}\n    {}", replay(*seed, name))).collect();
    assert!(failed.is_empty(), "{} of {} schedules failed:\n{}", failed.len(), seeds.len(), text.join("\n"));
}

#[test]
fn no_schedule_loses_or_doubles_a_resource_on_sqlite() {
    run_all("SQLite", 1_000, 1, &On::Sqlite);
}

#[test]
fn no_schedule_loses_or_doubles_a_resource_on_postgres() {
    let Some(server) = databases() else { return };
    // Copying a database is faster than making its schema anew.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let template = runtime.block_on(async {
        let (name, url) = server.fresh(None);
        let options = OpenOptions { time: StoreTime::Row, ..OpenOptions::default() };
        SqlStore::open(&url, options).await.unwrap().close().await;
        name
    });
    run_all("Postgres", 100, 10, &On::Postgres { template });
}
