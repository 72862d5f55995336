//! The API under an even load of mixed requests. The sender is open: each request has its moment, whatever became of those
//! before it, and its time is counted from that moment (G. Tene, "How NOT to Measure Latency": no coordinated omission).

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use reqwest::{Method, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tieline_api::{
    app::bootstrap,
    events::Hints,
    http::StreamLimits,
    service::{ServeOptions, serve},
};
use tieline_openapi::config::EngineConfig;
use tokio_util::sync::CancellationToken;

use crate::{
    Settings,
    report::Row,
    seed,
    world::{BY_QUOTA, Wire, World},
};

/// The service, until its standard input ends. Its first line is its address, its second a token.
pub(crate) async fn service(settings: &Settings, dir: &Path, database: &str) -> anyhow::Result<()> {
    let world = World::new(dir, settings.before + made(settings), BY_QUOTA, |fake| fake)?;
    let hints = Hints::new();
    let store = world.open(database, &hints).await?;
    let config = EngineConfig { poll_ms: 500, calls_per_second: 10_000, ..EngineConfig::default() };
    let topology = world.topology(&config)?;
    let token = dir.join("tieline.token");
    bootstrap::first_token(store.as_ref(), world.clock.as_ref(), world.random.as_ref(), &token).await?;
    let engine = world.engine(Arc::clone(&store), Arc::clone(&topology), &Wire::new(Duration::ZERO)).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let stop = CancellationToken::new();
    let options = ServeOptions {
        store: Arc::clone(&store) as _,
        topology: Arc::clone(&topology),
        vault: world.vault.clone(),
        clock: Arc::clone(&world.clock),
        random: Arc::clone(&world.random),
        hints,
        streams: StreamLimits::default(),
        engine: Some(engine),
        coordinator: None,
    };
    let serving = tokio::spawn(serve(options, listener, stop.clone()));
    let ids = seed::accept(&world, &store, &topology, 0..settings.before, &mut BTreeMap::new()).await?;
    seed::all_up(&store, &ids, Duration::from_secs(300)).await?;
    println!("{url}");
    println!("{}", std::fs::read_to_string(&token)?.trim());
    let ended = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    ended.await??;
    stop.cancel();
    serving.await??;
    store.close().await;
    Ok(())
}

/// Links that the load makes, all in all.
fn made(settings: &Settings) -> usize {
    usize::try_from(settings.rate * settings.seconds / MIX).unwrap_or(usize::MAX).max(1)
}

/// Requests after which the mix begins anew: one of them is a create.
const MIX: u64 = 50;

/// Kinds of request, for telling which one is slow.
const KINDS: [&str; 5] = ["read", "dry run", "create", "change", "delete"];

/// What has come back so far.
struct Seen {
    micros: Histogram<u64>,
    of_kind: [Histogram<u64>; KINDS.len()],
    errors: u64,
    first_error: Option<String>,
    /// Links that were made under the load and may be changed and deleted.
    made: Vec<(String, String)>,
}

struct Load {
    http: reqwest::Client,
    url: String,
    token: secrecy::SecretString,
    /// Links that stay.
    links: Vec<String>,
    seen: Mutex<Seen>,
    world: World,
}

/// Loads a service and counts.
pub(crate) async fn run(
    settings: &Settings,
    dir: &Path,
    url: &str,
    token: &str,
    store: &str,
) -> anyhow::Result<Vec<Row>> {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
    let token = secrecy::SecretString::from(token);
    let list = http.get(format!("{url}/v1/connections?pageSize=200")).bearer_auth(token.expose_secret());
    let list: Value = list.send().await?.error_for_status()?.json().await?;
    let ids = list["connections"].as_array().context("a list")?.iter();
    let links: Vec<_> = ids.filter_map(|c| Some(c["id"].as_str()?.to_owned())).collect();
    if links.len() != settings.before {
        bail!("{} links are there, not {}", links.len(), settings.before);
    }
    let empty: Histogram<u64> = Histogram::new(3)?;
    let of_kind = std::array::from_fn(|_| empty.clone());
    let seen = Seen { micros: empty, of_kind, errors: 0, first_error: None, made: Vec::new() };
    let load = Arc::new(Load {
        http,
        url: url.to_owned(),
        token,
        links,
        seen: Mutex::new(seen),
        world: World::new(dir, settings.before + made(settings), BY_QUOTA, |fake| fake)?,
    });
    let count = settings.rate * settings.seconds;
    let gap = Duration::from_secs(1) / u32::try_from(settings.rate)?;
    let begin = Instant::now() + Duration::from_millis(100);
    let mut under_way = tokio::task::JoinSet::new();
    for n in 0..count {
        let moment = begin + gap * u32::try_from(n)?;
        tokio::time::sleep_until(moment.into()).await;
        let load = Arc::clone(&load);
        under_way.spawn(async move { load.one(n, moment).await });
        while under_way.try_join_next().is_some() {}
    }
    under_way.join_all().await;
    let seen = load.seen.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = &seen.first_error {
        eprintln!("{store}: the first of {} errors: {error}", seen.errors);
    }
    let at = |quantile: f64| seen.micros.value_at_quantile(quantile) as f64 / 1_000.0;
    eprintln!(
        "{store}: {} requests, p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, longest {:.2} ms",
        seen.micros.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    for (kind, micros) in KINDS.iter().zip(&seen.of_kind) {
        let at = |quantile: f64| micros.value_at_quantile(quantile) as f64 / 1_000.0;
        eprintln!("  {kind}: {} requests, p50 {:.2} ms, p99 {:.2} ms", micros.len(), at(0.5), at(0.99));
    }
    Ok(vec![
        Row::once(&format!("api_p99_{store}"), "ms", at(0.99)),
        Row::once(&format!("api_errors_{store}"), "errors", seen.errors as f64),
    ])
}

impl Load {
    /// One request of the mix: 90 % reads, 4 % dry runs, and 2 % each of creates, changes and deletions.
    async fn one(&self, n: u64, moment: Instant) {
        let link = &self.links[self.world.random.below(self.links.len() as u64) as usize];
        let (kind, answered) = match n % MIX {
            0 => (2, self.create(n).await),
            17 => (3, self.change().await),
            33 => (4, self.delete().await),
            8 | 41 => (1, self.dry_run(n).await),
            step => {
                let path = match step % 5 {
                    0 | 1 => format!("/v1/connections/{link}"),
                    2 => "/v1/connections?pageSize=20".to_owned(),
                    3 => format!("/v1/operations?connectionId={link}&pageSize=5"),
                    _ => "/v1/events?since=0&pageSize=20".to_owned(),
                };
                (0, self.ask(Method::GET, &path, None, &[], StatusCode::OK).await.map(drop))
            }
        };
        let took = u64::try_from(moment.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let recorded = seen.micros.record(took.max(1)).and_then(|()| seen.of_kind[kind].record(took.max(1)));
        if let Err(error) = answered.and_then(|()| Ok(recorded?)) {
            seen.errors += 1;
            seen.first_error.get_or_insert_with(|| format!("{error:#}"));
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
        expected: StatusCode,
    ) -> anyhow::Result<(String, String)> {
        let url = format!("{}{path}", self.url);
        let mut request = self.http.request(method.clone(), url).bearer_auth(self.token.expose_secret());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let (status, etag) = (answer.status(), answer.headers().get("etag").cloned());
        let text = answer.text().await?;
        if status != expected {
            bail!("{method} {path}: {status} {text}");
        }
        let etag = etag.map(|etag| etag.to_str().unwrap_or_default().to_owned()).unwrap_or_default();
        // What is not used is not read: the load shares the machine with what it loads.
        Ok((text, etag))
    }

    /// Links of the load come after those that are there, and no two share what they announce.
    fn intent(&self, n: u64) -> anyhow::Result<Value> {
        let number = self.links.len() + usize::try_from(n)?;
        Ok(serde_json::to_value(self.world.intent(&format!("load-{n}"), number)?)?)
    }

    async fn create(&self, n: u64) -> anyhow::Result<()> {
        let key = format!("load-{n}");
        let headers = [("idempotency-key", key.as_str())];
        let body = self.intent(n)?;
        let (made, etag) =
            self.ask(Method::POST, "/v1/connections", Some(&body), &headers, StatusCode::ACCEPTED).await?;
        let made: Value = serde_json::from_str(&made)?;
        let id = made["id"].as_str().context("an id")?.to_owned();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).made.push((id, etag));
        Ok(())
    }

    async fn dry_run(&self, n: u64) -> anyhow::Result<()> {
        let body = self.intent(n)?;
        self.ask(Method::POST, "/v1/connections?dryRun=true", Some(&body), &[], StatusCode::OK).await.map(drop)
    }

    /// Changes the oldest link that the load has made; a read where there is none yet, or it is under change.
    async fn change(&self) -> anyhow::Result<()> {
        let oldest = || {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            (!seen.made.is_empty()).then(|| seen.made.remove(0))
        };
        let Some((id, etag)) = oldest() else {
            return self.ask(Method::GET, "/v1/accounts", None, &[], StatusCode::OK).await.map(drop);
        };
        let headers = [("if-match", etag.as_str()), ("content-type", "application/merge-patch+json")];
        let body = json!({ "description": "changed under load" });
        let path = format!("/v1/connections/{id}");
        let (_, changed) = self.ask(Method::PATCH, &path, Some(&body), &headers, StatusCode::ACCEPTED).await?;
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).made.insert(0, (id, changed));
        Ok(())
    }

    async fn delete(&self) -> anyhow::Result<()> {
        let oldest = || {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            (!seen.made.is_empty()).then(|| seen.made.remove(0))
        };
        let Some((id, etag)) = oldest() else {
            return self.ask(Method::GET, "/v1/issues", None, &[], StatusCode::OK).await.map(drop);
        };
        let path = format!("/v1/connections/{id}");
        self.ask(Method::DELETE, &path, None, &[("if-match", &etag)], StatusCode::ACCEPTED).await.map(drop)
    }
}
