//! A program of the operator's: one request on its standard input, one answer on its standard output, both JSON. The
//! protocol is told in `docs/routers.md`.

use std::{process::Stdio, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tieline_openapi::{config::CommandConfig, ids::RouterId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::DeviceError;

/// The version of the protocol.
const VERSION: u8 = 1;
/// Longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 4 << 20;
/// How much of a program's own words is kept, in characters.
const MAX_WORDS: usize = 300;

/// A program that speaks for one router.
#[derive(Debug)]
pub struct Program {
    router: RouterId,
    run: Vec<String>,
    timeout_ms: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a, T> {
    tieline: u8,
    router: &'a RouterId,
    #[serde(flatten)]
    request: T,
}

#[derive(Deserialize)]
struct Refusal {
    error: Option<String>,
}

impl Program {
    /// The program of a router.
    #[must_use]
    pub fn new(router: RouterId, config: &CommandConfig) -> Self {
        Self { router, run: config.run.clone(), timeout_ms: config.timeout_ms }
    }

    fn name(&self) -> String {
        self.run.first().cloned().unwrap_or_default()
    }

    pub(super) fn refused(&self, message: String) -> DeviceError {
        DeviceError::Refused { program: self.name(), message }
    }

    /// Runs it for one request and reads its answer. `secret` is struck from its words, should it repeat it.
    ///
    /// # Errors
    /// [`DeviceError`] where it cannot be run, takes too long, fails, refuses, or answers something else.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        request: &(impl Serialize + Sync),
        secret: Option<&str>,
    ) -> Result<T, DeviceError> {
        let whole = Envelope { tieline: VERSION, router: &self.router, request };
        let malformed = |source| DeviceError::Malformed { program: self.name(), source };
        let mut text = serde_json::to_vec(&whole).map_err(malformed)?;
        text.push(b'\n');
        let slow = |_| DeviceError::Slow { program: self.name(), ms: self.timeout_ms };
        let answered = tokio::time::timeout(Duration::from_millis(self.timeout_ms), self.run(&text));
        let (status, answer) = answered.await.map_err(slow)??;
        // Its words first: they tell more than its exit status.
        if let Ok(Refusal { error: Some(words) }) = serde_json::from_slice(&answer) {
            return Err(DeviceError::Refused { program: self.name(), message: plain(&words, secret) });
        }
        if !status.success() {
            return Err(DeviceError::Ended { program: self.name(), status });
        }
        serde_json::from_slice(&answer).map_err(malformed)
    }

    async fn run(&self, text: &[u8]) -> Result<(std::process::ExitStatus, Vec<u8>), DeviceError> {
        let program = self.name();
        let mut command = tokio::process::Command::new(&program);
        command.args(self.run.iter().skip(1));
        // It gets nothing of ours but what it needs to find other programs: our environment holds secrets.
        command
            .env_clear()
            .envs(std::env::vars_os().filter(|(key, _)| key == "PATH" || key == "HOME" || key == "LANG"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|source| DeviceError::Start { program: program.clone(), source })?;
        let failed = |source| DeviceError::Pipe { program: program.clone(), source };
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                // One that answers without reading has closed its end.
                match stdin.write_all(text).await {
                    Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error),
                    _ => {}
                }
            }
            Ok(())
        };
        let read = async {
            let mut answer = Vec::new();
            if let Some(stdout) = stdout {
                stdout.take(MAX_ANSWER + 1).read_to_end(&mut answer).await?;
            }
            Ok(answer)
        };
        let ((), answer) = tokio::try_join!(write, read).map_err(failed)?;
        if answer.len() as u64 > MAX_ANSWER {
            return Err(DeviceError::TooLong { program, most: MAX_ANSWER });
        }
        let status = child.wait().await.map_err(failed)?;
        Ok((status, answer))
    }
}

/// Words fit for a log: one line, cut short, without the secret.
fn plain(words: &str, secret: Option<&str>) -> String {
    let words = match secret {
        Some(secret) if !secret.is_empty() => words.replace(secret, "[password]"),
        _ => words.to_owned(),
    };
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_WORDS).collect()
}
