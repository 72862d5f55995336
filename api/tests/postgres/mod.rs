//! One real Postgres server for all tests of a run, and a database for each test. Tests run as processes of their own, so
//! the first one starts the server, every one holds a shared lock while it needs it, and the server ends by itself soon
//! after the last one. Whole-system tests and benches include this file too.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

struct Server {
    programs: PathBuf,
    socket: PathBuf,
    // Held until the process ends.
    _users: File,
}

/// The folder of the server's programs, newest version first.
fn programs() -> Option<PathBuf> {
    let told = Command::new("pg_config").arg("--bindir").output().ok();
    let told = told.map(|out| PathBuf::from(String::from_utf8_lossy(&out.stdout).trim()));
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|folders| folders.flatten().map(|f| f.path().join("bin")).collect())
        .unwrap_or_default();
    found.sort();
    found.into_iter().rev().chain(told).find(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
}

fn open(path: &Path) -> File {
    OpenOptions::new().create(true).truncate(false).write(true).open(path).unwrap()
}

/// Takes the start lock of a folder that the server before may be removing right now.
fn lock(base: &Path) -> File {
    loop {
        std::fs::create_dir_all(base).unwrap();
        let path = base.join("lock");
        let Ok(file) = OpenOptions::new().create(true).truncate(false).write(true).open(&path) else { continue };
        file.lock().unwrap();
        // Removed while we waited: what we hold is the lock of a folder that is gone.
        if path.metadata().is_ok_and(|there| there.ino() == file.metadata().unwrap().ino()) {
            return file;
        }
    }
}

#[expect(clippy::zombie_processes, reason = "the server outlives this process, and ends by itself")]
fn start() -> Option<Server> {
    let Some(bin) = programs() else {
        println!("skipped: no Postgres server on this machine (install postgresql to run this test)");
        return None;
    };
    // nextest runs each test in a process of its own and names the run; elsewhere one process runs them all.
    let run = std::env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| std::process::id().to_string());
    let base = std::env::temp_dir().join(format!("tieline-pg-{}", run.get(..18).unwrap_or(&run)));
    let start = lock(&base);
    let ready = base.join("ready");
    if !ready.exists() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/tests/postgres/server.sh");
        // A session of its own, so that neither the end of this test nor an interrupt takes it away from the others.
        let log = open(&base.join("script.log"));
        let mut child = Command::new("setsid")
            .arg(script)
            .arg(&base)
            .arg(&bin)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut rounds = 0;
        while !ready.exists() {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "Postgres did not start ({ended:?}): see {}", base.display());
            assert!(rounds < 600, "Postgres did not start within a minute: see {}", base.display());
            rounds += 1;
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    let users = open(&base.join("users"));
    users.lock_shared().unwrap();
    drop(start);
    Some(Server { programs: bin, socket: base.join("server"), _users: users })
}

/// The server's databases.
pub(crate) struct Databases(&'static Server);

/// The server, or none (and a printed reason) where there is no Postgres.
pub(crate) fn databases() -> Option<Databases> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(start).as_ref().map(Databases)
}

impl Databases {
    fn run(&self, program: &str, args: &[&str]) {
        let mut command = Command::new(self.0.programs.join(program));
        let done = command.args(["--username", "postgres", "--host"]).arg(&self.0.socket).args(args).output().unwrap();
        assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// The name and the URL of a fresh database; one that is given is copied.
    pub(crate) fn fresh(&self, template: Option<&str>) -> (String, String) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        match template {
            None => self.run("createdb", &[&name]),
            Some(template) => self.run("createdb", &["--template", template, &name]),
        }
        let url = format!("postgres://postgres@localhost/{name}?host={}", self.0.socket.display());
        (name, url)
    }

    /// Gives a database back before the server ends.
    #[allow(dead_code, reason = "whoever needs few databases leaves them to the server's end")]
    pub(crate) fn remove(&self, name: &str) {
        self.run("dropdb", &["--force", name]);
    }
}

/// The URL of a fresh database, or none (and a printed reason) where there is no Postgres.
pub(crate) fn database() -> Option<String> {
    Some(databases()?.fresh(None).1)
}
