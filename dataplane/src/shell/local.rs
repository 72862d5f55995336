//! The gateway's local control: a Unix socket in its state folder, which works with the API dead. One JSON line asks, one
//! answers.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tieline_openapi::{ids::ConnectionId, v1::TunnelBackend};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
};

use super::status::Status;
use crate::proto::path::Hold;

const SOCKET: &str = "control.sock";
/// Bytes of a question, and of an answer.
const MAX_QUESTION: u64 = 64 << 10;
const MAX_ANSWER: u64 = 16 << 20;
/// Longest that either side waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question or an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "camelCase", deny_unknown_fields)]
pub enum Request {
    /// How it stands.
    Status,
    /// Pins or freezes a connection, over restarts; an empty hold ends that.
    #[serde(rename_all = "camelCase")]
    Hold {
        /// Which.
        connection_id: ConnectionId,
        /// The order.
        hold: Hold,
    },
    /// Has this WireGuard carry, over restarts; no packet is lost.
    Backend {
        /// Which.
        backend: TunnelBackend,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "camelCase")]
pub enum Answer {
    /// How it stands.
    Status(Status),
    /// Done.
    Done,
    /// Not done.
    #[serde(rename_all = "camelCase")]
    Refused {
        /// Why.
        message: String,
    },
}

/// Why there is no local control.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The socket cannot be made.
    #[error("cannot listen on {path}; its folder must be writable and its path below 108 bytes")]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody answers.
    #[error("no gateway answers at {path}; is it running, and is this its state folder?")]
    Connect {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It answered nonsense.
    #[error("the gateway's answer cannot be read; is it another version?")]
    Answer(#[source] io::Error),
}

/// Asks the gateway whose state folder this is.
///
/// # Errors
/// When none answers within five seconds.
pub async fn ask(state_dir: &Path, request: &Request) -> Result<Answer, LocalError> {
    let path = state_dir.join(SOCKET);
    let connect = |source| LocalError::Connect { path: path.clone(), source };
    let asked = tokio::time::timeout(PATIENCE, async {
        let mut stream = UnixStream::connect(&path).await.map_err(connect)?;
        let mut question = serde_json::to_vec(request).map_err(|error| connect(error.into()))?;
        question.push(b'\n');
        stream.write_all(&question).await.map_err(connect)?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer).await.map_err(LocalError::Answer)?;
        serde_json::from_slice(&answer).map_err(|error| LocalError::Answer(error.into()))
    });
    asked.await.unwrap_or_else(|_| Err(connect(io::ErrorKind::TimedOut.into())))
}

/// Listens in the state folder, which this process has locked: a socket that is there is a dead gateway's.
///
/// # Errors
/// When the socket cannot be made.
pub fn listen(state_dir: &Path) -> Result<UnixListener, LocalError> {
    let path = state_dir.join(SOCKET);
    let listen = |source| LocalError::Listen { path: path.clone(), source };
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(listen(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(listen)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(listen)?;
    Ok(listener)
}

/// A question, to be answered.
#[derive(Debug)]
pub struct Question {
    /// What is asked.
    pub request: Request,
    to: OwnedWriteHalf,
}

impl Question {
    /// Answers it; nothing follows from a questioner who has gone.
    pub async fn answer(self, answer: &Answer) {
        if let Err(error) = write(self.to, answer).await {
            tracing::debug!(%error, "a local question went unanswered");
        }
    }
}

/// The next question that can be understood.
pub async fn question(listener: &UnixListener) -> Question {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match tokio::time::timeout(PATIENCE, read(stream)).await {
                Ok(Ok(Some(question))) => return question,
                Ok(Ok(None)) | Err(_) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a local question could not be read"),
            },
            Err(error) => {
                tracing::warn!(%error, "local control cannot accept");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn read(stream: UnixStream) -> io::Result<Option<Question>> {
    let (read, to) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(MAX_QUESTION)).read_line(&mut line).await?;
    match serde_json::from_str(&line) {
        Ok(request) => Ok(Some(Question { request, to })),
        Err(error) => {
            write(to, &Answer::Refused { message: format!("not a request: {error}") }).await?;
            Ok(None)
        }
    }
}

async fn write(mut to: OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    let answer = serde_json::to_vec(answer)?;
    tokio::time::timeout(PATIENCE, to.write_all(&answer)).await??;
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use tieline_openapi::v1::PathKind;

    use super::*;

    #[tokio::test]
    async fn asks_and_answers() {
        let folder = tempfile::tempdir().unwrap();
        let listener = listen(folder.path()).unwrap();
        let wanted = Request::Hold {
            connection_id: ConnectionId(uuid::Uuid::from_u128(5)),
            hold: Hold { pin: Some(PathKind::Tunnel), frozen: false },
        };
        let (asked, answer) = tokio::join!(
            async {
                let question = question(&listener).await;
                let request = question.request.clone();
                question.answer(&Answer::Done).await;
                request
            },
            ask(folder.path(), &wanted),
        );
        assert_eq!((asked, answer.unwrap()), (wanted, Answer::Done));
        // A socket that a dead gateway left is taken over.
        drop(listener);
        drop(listen(folder.path()).unwrap());
        assert!(matches!(ask(folder.path(), &Request::Status).await, Err(LocalError::Connect { .. })));
    }
}
