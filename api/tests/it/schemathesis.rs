//! A committed document against a running service, by schemathesis: requests that the document allows, and requests that it
//! forbids.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::process::Command;

/// One run.
pub(crate) struct Run<'r> {
    /// The document, in `openapi/`.
    pub(crate) document: &'r str,
    /// Where the service is.
    pub(crate) url: &'r str,
    /// What is checked of every answer.
    pub(crate) checks: &'r str,
    /// Its own configuration.
    pub(crate) settings: String,
    /// Where it may write.
    pub(crate) folder: &'r Path,
    /// More arguments.
    pub(crate) more: Vec<String>,
}

/// A Python with the packages of the tests, or why there is none.
pub(crate) async fn python() -> Result<PathBuf, String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = here.join("../scripts/python-with.sh");
    let output = Command::new(script).arg(here.join("tests/python/requirements.txt")).output().await;
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().into());
    }
    Err(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned())
}

/// A Python with the tool; without one the test that asks is skipped, and says why.
pub(crate) async fn tool() -> Option<PathBuf> {
    let python = python().await;
    python.inspect_err(|reason| println!("SKIPPED: schemathesis cannot be had here: {reason}")).ok()
}

impl Run<'_> {
    /// Runs it; what it said. `TIELINE_EXAMPLES` says how many examples an operation gets.
    pub(crate) async fn passes(self, python: &Path) -> String {
        let config = self.folder.join("schemathesis.toml");
        std::fs::write(&config, &self.settings).unwrap();
        let mut command = Command::new(python);
        command
            .args(["-m", "schemathesis.cli", "--config-file"])
            .arg(config)
            .arg("run")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi").join(self.document))
            .args(["--url", self.url, "--checks", self.checks])
            .args(["--phases", "examples,coverage,fuzzing", "--continue-on-failure"])
            .args(["--max-examples", &std::env::var("TIELINE_EXAMPLES").unwrap_or_else(|_| "12".to_owned())])
            .args(["--generation-deterministic", "--no-shrink", "--generation-with-security-parameters", "false"])
            .args(["--request-timeout", "20", "--output-truncate", "false", "--no-color"])
            .args(self.more)
            .env("NO_PROXY", "127.0.0.1")
            .env("no_proxy", "127.0.0.1")
            .current_dir(self.folder)
            .kill_on_drop(true);
        let output = tokio::time::timeout(Duration::from_secs(240), command.output()).await.expect("in time").unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{out}\n{err}");
        out.into_owned()
    }
}
