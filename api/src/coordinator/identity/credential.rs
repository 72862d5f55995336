//! Secrets that our calls are made with, by reference: `env:NAME` or `file:PATH`. They are read when they are needed, so that
//! whoever keeps a file fresh need not restart anything.

use std::{fmt, io};

use aws_credential_types::Credentials;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::AsyncReadExt as _;

/// A credential is some hundred bytes, with a session token some thousand.
const LONGEST: usize = 16 * 1024;

/// Why a credential cannot be used. The texts hold nothing of it.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The environment variable is not set, empty, or not Unicode.
    #[error("the environment variable {name} holds nothing: set it to {expected}")]
    Environment {
        /// The variable.
        name: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// The file cannot be read.
    #[error("cannot read {path}: it should hold {expected}")]
    File {
        /// The file.
        path: String,
        /// What it should hold.
        expected: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is there is something else.
    #[error("what {reference} holds is not {expected}")]
    Form {
        /// Where it is.
        reference: String,
        /// What it should hold.
        expected: &'static str,
    },
}

/// A file of so many bytes at most.
pub(in crate::coordinator) async fn bounded_file(path: &str, longest: usize) -> io::Result<Vec<u8>> {
    let file = tokio::fs::File::open(path).await?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(longest).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).await?;
    if bytes.len() > longest {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {longest} bytes")));
    }
    Ok(bytes)
}

/// What a reference leads to, without the white space around it.
pub(super) async fn secret(reference: &str, expected: &'static str) -> Result<SecretString, CredentialError> {
    let form = || CredentialError::Form { reference: reference.to_owned(), expected };
    let text = match reference.split_once(':') {
        Some(("env", name)) => std::env::var(name)
            .ok()
            .filter(|text| !text.trim().is_empty())
            .ok_or_else(|| CredentialError::Environment { name: name.to_owned(), expected })?,
        Some(("file", path)) => {
            let wrong = |source| CredentialError::File { path: path.to_owned(), expected, source };
            let bytes = bounded_file(path, LONGEST).await.map_err(wrong)?;
            String::from_utf8(bytes).map_err(|_| form())?
        }
        Some(_) | None => return Err(form()),
    };
    let text = SecretString::from(text.trim());
    if text.expose_secret().is_empty() || text.expose_secret().chars().any(char::is_control) {
        Err(form())
    } else {
        Ok(text)
    }
}

/// An access key of AWS.
pub(in crate::coordinator) struct AwsCredential(Credentials);

impl fmt::Debug for AwsCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AwsCredential(..)")
    }
}

impl AwsCredential {
    /// Reads one.
    pub(in crate::coordinator) async fn read(reference: &str) -> Result<Self, CredentialError> {
        let expected = "ACCESS_KEY_ID:SECRET_ACCESS_KEY, with :SESSION_TOKEN where there is one";
        let text = secret(reference, expected).await?;
        let mut parts = text.expose_secret().splitn(3, ':').map(str::to_owned);
        let form = || CredentialError::Form { reference: reference.to_owned(), expected };
        let mut part = || parts.next().filter(|part| !part.is_empty());
        let (id, key) = part().zip(part()).ok_or_else(form)?;
        let session = parts.next();
        if session.as_ref().is_some_and(String::is_empty) {
            return Err(form());
        }
        Ok(Self(Credentials::new(id, key, session, None, "tieline.toml")))
    }

    /// For signing.
    pub(in crate::coordinator) fn get(&self) -> &Credentials {
        &self.0
    }
}
