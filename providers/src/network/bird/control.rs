//! The control protocol of BIRD, as its own client speaks it: a line a command, numbered lines as answer.
//!
//! `0001-text` is a line with more to come, ` text` continues the code before, `0000 text` ends the answer. Codes below
//! 1000 are actions done, 1xxx and 2xxx are tables, 8xxx are errors of a command and 9xxx of its syntax (BIRD's
//! `doc/reply_codes`).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Longest answer that is read, in bytes: some 100 000 routes.
const MAX_ANSWER: u64 = 32 << 20;
/// How long the daemon may take for one answer.
const ANSWER: Duration = Duration::from_secs(15);

/// Why the daemon did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nothing listens on its socket.
    #[error("bird does not answer on its control socket")]
    Silent(#[source] io::Error),
    /// It took too long.
    #[error("bird did not answer {command:?} within {} s", ANSWER.as_secs())]
    Slow {
        /// The command.
        command: String,
    },
    /// Its connection failed, or spoke another protocol.
    #[error("the control connection failed at {command:?}")]
    Connection {
        /// The command.
        command: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It refused a command.
    #[error("bird refused {command:?}: {code} {text}")]
    Refused {
        /// The command.
        command: String,
        /// The four-digit code: 8xxx while running, 9xxx while parsing.
        code: u16,
        /// Its words.
        text: String,
    },
}

/// One answer: its lines, each with its code and without it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The lines in order. The last one is what ended the answer.
    pub lines: Vec<(u16, String)>,
}

impl Reply {
    /// The lines' text.
    pub fn text(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|(_, text)| text.as_str())
    }
}

/// A connection to a daemon.
#[derive(Debug)]
pub struct Control {
    stream: BufReader<UnixStream>,
}

impl Control {
    /// Connects and reads the greeting.
    ///
    /// # Errors
    /// [`ControlError::Silent`] where nothing listens, [`ControlError::Connection`] where it is not BIRD,
    /// [`ControlError::Slow`].
    pub async fn connect(path: &Path) -> Result<Self, ControlError> {
        // Reached through a descriptor of its folder: the path itself may be longer than `sockaddr_un` takes (108 bytes).
        let folder: OwnedFd =
            std::fs::File::open(path.parent().unwrap_or(Path::new("/"))).map_err(ControlError::Silent)?.into();
        let name = path.file_name().unwrap_or_default();
        let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        let opened = async {
            let stream = UnixStream::connect(short).await.map_err(ControlError::Silent)?;
            let mut control = Self { stream: BufReader::new(stream) };
            control.read("connect").await?;
            Ok(control)
        };
        within("connect", opened).await
    }

    /// Sends a command and reads the whole answer.
    ///
    /// # Errors
    /// [`ControlError::Refused`] with the daemon's words, [`ControlError::Connection`] where the connection fails,
    /// [`ControlError::Slow`].
    pub async fn ask(&mut self, command: &str) -> Result<Reply, ControlError> {
        let fail = |source| ControlError::Connection { command: command.to_owned(), source };
        let answered = async {
            self.stream.write_all(format!("{command}\n").as_bytes()).await.map_err(fail)?;
            self.read(command).await
        };
        within(command, answered).await
    }

    async fn read(&mut self, command: &str) -> Result<Reply, ControlError> {
        let fail = |source| ControlError::Connection { command: command.to_owned(), source };
        let mut answer = Answer::default();
        let mut stream = (&mut self.stream).take(MAX_ANSWER);
        let mut line = Vec::new();
        loop {
            line.clear();
            if stream.read_until(b'\n', &mut line).await.map_err(fail)? == 0 {
                return Err(fail(io::ErrorKind::UnexpectedEof.into()));
            }
            match answer.line(&String::from_utf8_lossy(&line)) {
                Line::More => {}
                Line::Alien => return Err(fail(io::ErrorKind::InvalidData.into())),
                Line::Last => break,
            }
        }
        let lines = answer.lines;
        match lines.last() {
            Some((code @ 8000.., text)) => {
                Err(ControlError::Refused { command: command.to_owned(), code: *code, text: text.clone() })
            }
            _ => Ok(Reply { lines }),
        }
    }
}

async fn within<T>(command: &str, answer: impl Future<Output = Result<T, ControlError>>) -> Result<T, ControlError> {
    let late = || ControlError::Slow { command: command.to_owned() };
    tokio::time::timeout(ANSWER, answer).await.unwrap_or_else(|_| Err(late()))
}

/// What a line means for the answer that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    More,
    Last,
    Alien,
}

#[derive(Debug, Default)]
struct Answer {
    lines: Vec<(u16, String)>,
}

impl Answer {
    fn line(&mut self, line: &str) -> Line {
        let line = line.trim_end_matches(['\n', '\r']);
        if let Some(text) = line.strip_prefix(' ') {
            let Some((code, _)) = self.lines.last() else { return Line::Alien };
            let code = *code;
            self.lines.push((code, text.to_owned()));
            return Line::More;
        }
        // `+` heads what the daemon says between answers, as the log that `echo` asks for.
        if line.starts_with('+') {
            return Line::More;
        }
        let (Some(digits), Some(separator)) = (line.get(..4), line.get(4..5).or((line.len() == 4).then_some(" ")))
        else {
            return Line::Alien;
        };
        let last = match separator {
            " " => true,
            "-" => false,
            _ => return Line::Alien,
        };
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Line::Alien;
        }
        let Ok(code) = digits.parse() else { return Line::Alien };
        self.lines.push((code, line.get(5..).unwrap_or_default().to_owned()));
        if last { Line::Last } else { Line::More }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_is_read_to_its_last_line() {
        let mut answer = Answer::default();
        assert_eq!(answer.line("2002-Name       Proto\n"), Line::More);
        assert_eq!(answer.line("1002-peer1      BGP\n"), Line::More);
        assert_eq!(answer.line("   BGP state:  Active\n"), Line::More);
        assert_eq!(answer.line("0000 \n"), Line::Last);
        let codes: Vec<_> = answer.lines.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes, [2002, 1002, 1002, 0]);
        assert_eq!(answer.lines[2].1, "  BGP state:  Active");
    }

    #[test]
    fn another_protocol_is_told_apart() {
        for line in ["HTTP/1.1 400 Bad Request", " continues nothing", "12", "00é1 x", "0001?x", ""] {
            assert_eq!(Answer::default().line(line), Line::Alien, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_a_panic(lines in prop::collection::vec(".{0,12}", 0..6)) {
            let mut answer = Answer::default();
            for line in lines {
                let _ = answer.line(&line);
            }
        }
    }
}
