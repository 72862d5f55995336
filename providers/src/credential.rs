//! Where a client's credential comes from: `credentialRef` of `tieline.toml`, and why a client could not be built.

use secrecy::SecretString;
use std::path::PathBuf;
use tieline_openapi::config::AccountConfig;

/// Why no client could be built for an account.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The reference has none of the known forms.
    #[error("account {account}: credentialRef `{reference}` is none of env:NAME, file:PATH, default, anonymous")]
    Reference {
        /// The account's id in `tieline.toml`.
        account: String,
        /// The reference, which is not the credential.
        reference: String,
    },
    /// `anonymous` would reach the cloud itself.
    #[error(
        "account {account}: credentialRef `anonymous` needs an `endpoint`: the cloud's own API takes no call without a \
         credential"
    )]
    AnonymousWithoutEndpoint {
        /// The account's id in `tieline.toml`.
        account: String,
    },
    /// The environment variable is not set, empty, or not Unicode.
    #[error("account {account}: the environment variable {name} holds no credential; set it to {expected}")]
    Environment {
        /// The account's id in `tieline.toml`.
        account: String,
        /// The variable.
        name: String,
        /// The form that is expected.
        expected: &'static str,
    },
    /// The file could not be read.
    #[error("account {account}: cannot read the credential file {}", path.display())]
    File {
        /// The account's id in `tieline.toml`.
        account: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The credential has not the form that the cloud needs.
    #[error("account {account}: what {reference} holds is not {expected}")]
    Malformed {
        /// The account's id in `tieline.toml`.
        account: String,
        /// The reference, which is not the credential.
        reference: String,
        /// The form that is expected.
        expected: &'static str,
    },
    /// The endpoint is no URL with a host.
    #[error("account {account}: endpoint `{endpoint}` is not a URL such as https://host:port")]
    Endpoint {
        /// The account's id in `tieline.toml`.
        account: String,
        /// The endpoint.
        endpoint: String,
    },
    /// The cloud's SDK refused to build a client.
    #[error("account {account}: the {provider} client could not be built")]
    Client {
        /// The account's id in `tieline.toml`.
        account: String,
        /// The provider's short name.
        provider: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// `credentialRef`, parsed. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialRef {
    /// An environment variable.
    Env(String),
    /// A file.
    File(PathBuf),
    /// The SDK's own chain.
    Default,
    /// None: a simulator needs none.
    Anonymous,
}

impl CredentialRef {
    /// The reference of an account.
    ///
    /// # Errors
    /// [`ConnectError::Reference`], and [`ConnectError::AnonymousWithoutEndpoint`].
    pub fn of(account: &AccountConfig) -> Result<Self, ConnectError> {
        let malformed =
            || ConnectError::Reference { account: account.id.to_string(), reference: account.credential_ref.clone() };
        match account.credential_ref.as_str() {
            "default" => Ok(Self::Default),
            "anonymous" if account.endpoint.is_some() => Ok(Self::Anonymous),
            "anonymous" => Err(ConnectError::AnonymousWithoutEndpoint { account: account.id.to_string() }),
            text => match text.split_once(':') {
                Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
                Some(("file", path)) if !path.is_empty() => Ok(Self::File(PathBuf::from(path))),
                _ => Err(malformed()),
            },
        }
    }

    /// What the variable or file holds, without the white space around it; `None` for the forms that hold nothing.
    /// `expected` stands in errors.
    ///
    /// # Errors
    /// [`ConnectError::Environment`] and [`ConnectError::File`].
    pub fn read(&self, account: &AccountConfig, expected: &'static str) -> Result<Option<SecretString>, ConnectError> {
        let account = account.id.to_string();
        let text = match self {
            Self::Env(name) => match std::env::var(name) {
                Ok(text) if !text.trim().is_empty() => text,
                _ => return Err(ConnectError::Environment { account, name: name.clone(), expected }),
            },
            Self::File(path) => std::fs::read_to_string(path).map_err(|source| ConnectError::File {
                account,
                path: path.clone(),
                source,
            })?,
            Self::Default | Self::Anonymous => return Ok(None),
        };
        Ok(Some(SecretString::from(text.trim())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(reference: &str, endpoint: Option<&str>) -> AccountConfig {
        AccountConfig {
            id: "acct".parse().unwrap(),
            provider: "aws".parse().unwrap(),
            external_id: "123456789012".to_owned(),
            credential_ref: reference.to_owned(),
            region: "us-east-1".to_owned(),
            endpoint: endpoint.map(str::to_owned),
        }
    }

    #[test]
    fn every_form_is_told_apart_and_anything_else_is_refused() {
        let local = Some("http://127.0.0.1:1");
        assert_eq!(CredentialRef::of(&account("env:X", None)).unwrap(), CredentialRef::Env("X".to_owned()));
        assert_eq!(CredentialRef::of(&account("file:/a:b", None)).unwrap(), CredentialRef::File("/a:b".into()));
        assert_eq!(CredentialRef::of(&account("default", None)).unwrap(), CredentialRef::Default);
        assert_eq!(CredentialRef::of(&account("anonymous", local)).unwrap(), CredentialRef::Anonymous);
        assert!(matches!(
            CredentialRef::of(&account("anonymous", None)),
            Err(ConnectError::AnonymousWithoutEndpoint { .. })
        ));
        for wrong in ["", "env:", "file:", "AKIA:secret", "vault:x"] {
            assert!(
                matches!(CredentialRef::of(&account(wrong, local)), Err(ConnectError::Reference { .. })),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_file_is_read_without_its_line_end_and_a_missing_one_is_named() {
        let path = std::env::temp_dir().join(format!("tieline-credential-{}", std::process::id()));
        std::fs::write(&path, "a:b\n").unwrap();
        let reference = CredentialRef::File(path.clone());
        let text = reference.read(&account("x", None), "a pair").unwrap().unwrap();
        assert_eq!(secrecy::ExposeSecret::expose_secret(&text), "a:b");
        std::fs::remove_file(&path).unwrap();
        let error = reference.read(&account("x", None), "a pair").unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}
