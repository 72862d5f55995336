//! We prove to a peer for which account we change a connection: the account is the project that it belongs to here.

use std::{collections::BTreeMap, time::Duration};

use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SignatureLocation, SigningError, SigningSettings},
    sign::v4::{self, signing_params::BuildError},
};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};
use tieline_openapi::{
    client::coordinator::Coordinator,
    config::{GivenProof, StsProof},
    coordinator::OperationId,
};

use super::{Bound, HEADER, sts::PURPOSE_HEADER};
use crate::{
    coordinator::{
        Coordination, CoordinationError, Peer,
        identity::{AwsCredential, CredentialError, SignError, Signer, bounded_file, signed, signing_time},
    },
    plan::coordinate::{Ask, wire},
    store::StoreError,
};

/// How long a presigned request is good for: one call, and clocks that differ.
const LIFE: Duration = Duration::from_secs(120);
/// A token is some thousand bytes.
const LONGEST: usize = 8 * 1024;

/// Why no proof could be given.
#[derive(Debug, thiserror::Error)]
pub(in crate::coordinator) enum GiveError {
    /// Nothing is configured for the project.
    #[error("no proof is configured for project `{0}`: add it to [coordinator.peers.proof.give]")]
    Project(String),
    /// Whose the connection is, is not known any more.
    #[error("the connection belongs to nobody, so for nobody can be proved anything")]
    Nobody,
    /// A credential cannot be read.
    #[error(transparent)]
    Credential(CredentialError),
    /// A token cannot be read.
    #[error("cannot read the token in {path}")]
    Token {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A token cannot be signed.
    #[error(transparent)]
    Sign(SignError),
    /// The request cannot be signed.
    #[error("the proof cannot be signed")]
    Aws(#[from] SigningError),
    /// The request cannot be signed.
    #[error("the proof cannot be signed")]
    AwsParameters(#[from] BuildError),
    /// It holds what no header can hold.
    #[error("the proof holds what no header can hold")]
    Header(#[from] InvalidHeaderValue),
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The book's.
    #[error("the peer's book cannot be read")]
    Book(#[source] Box<CoordinationError>),
}

/// A proof, with what it takes to make it.
pub(in crate::coordinator) enum Give {
    Sts(StsProof),
    Files(BTreeMap<String, String>),
    Signed(Signer),
}

impl Give {
    pub(in crate::coordinator) fn new(given: &GivenProof) -> Result<Self, CoordinationError> {
        Ok(match given {
            GivenProof::AwsSts(proof) => Self::Sts(proof.clone()),
            GivenProof::OidcFiles(files) => Self::Files(files.clone()),
            GivenProof::OidcSigned(signer) => Self::Signed(Signer::new(signer)?),
        })
    }
}

impl Coordination {
    /// The client for a question: with a proof, where the question needs one and the peer is given any.
    pub(in crate::coordinator) async fn client_for(&self, peer: &Peer, ask: &Ask) -> Result<Coordinator, GiveError> {
        let (operation, place) = match ask {
            Ask::Create { place, .. } => (OperationId::CreateConnection, place),
            Ask::Resize { place, .. } => (OperationId::UpdateConnection, place),
            Ask::Delete { place, .. } => (OperationId::DeleteConnection, place),
            Ask::Confirm { .. }
            | Ask::Look { .. }
            | Ask::Guidance { .. }
            | Ask::CreateFeature { .. }
            | Ask::DeleteFeature { .. }
            | Ask::Notify { .. } => return Ok(peer.client.clone()),
        };
        let Some(give) = &peer.security.give else { return Ok(peer.client.clone()) };
        let book = self.load(peer, None).await.map_err(|error| GiveError::Book(Box::new(error)))?.1;
        let uuid = book.rows.get(place).map(|row| row.uuid).ok_or(GiveError::Nobody)?;
        let project = self.parts.books.project_of(&peer.id, uuid).await?.ok_or(GiveError::Nobody)?;
        let name = wire::connection_path(self.us(), place).to_string();
        let bound = Bound { receiver: &peer.id, caller: self.us(), operation, name: &name };
        let proof = self.proof(give, project.as_str(), &bound).await?;
        let mut value = HeaderValue::from_str(&proof)?;
        value.set_sensitive(true);
        Ok(peer.client.with_headers(HeaderMap::from_iter([(HeaderName::from_static(HEADER), value)])))
    }

    async fn proof(&self, give: &Give, project: &str, bound: &Bound<'_>) -> Result<String, GiveError> {
        let missing = || GiveError::Project(project.to_owned());
        match give {
            Give::Sts(proof) => {
                let reference = proof.credentials.get(project).ok_or_else(missing)?;
                let credential = AwsCredential::read(reference).await?;
                let nonce = self.parts.random.uuid_v7(self.parts.clock.now()).simple().to_string();
                let url = presigned(proof, &credential, &bound.text(&nonce), signing_time(&*self.parts.clock))?;
                Ok(format!("aws-sts {} {nonce}", data_encoding::BASE64URL_NOPAD.encode(url.as_bytes())))
            }
            Give::Files(files) => {
                let path = files.get(project).ok_or_else(missing)?;
                let wrong = |source| GiveError::Token { path: path.clone(), source };
                let bytes = bounded_file(path, LONGEST).await.map_err(wrong)?;
                let text =
                    String::from_utf8(bytes).map_err(|error| wrong(std::io::Error::other(error.utf8_error())))?;
                Ok(format!("oidc {}", text.trim()))
            }
            Give::Signed(signer) => {
                let token = signer.token(Some(project), &*self.parts.clock, &*self.parts.random)?;
                Ok(format!("oidc {token}"))
            }
        }
    }
}

/// The address of a presigned GetCallerIdentity that signs its purpose.
pub(super) fn presigned(
    proof: &StsProof,
    credential: &AwsCredential,
    purpose: &str,
    at: std::time::SystemTime,
) -> Result<String, GiveError> {
    let identity = credential.get().clone().into();
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(LIFE);
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(&proof.region)
        .name("sts")
        .time(at)
        .settings(settings)
        .build()?
        .into();
    let url = format!("https://{}/?Action=GetCallerIdentity&Version=2011-06-15", proof.host);
    let headers = std::iter::once((PURPOSE_HEADER, purpose));
    let request = SignableRequest::new("GET", url.as_str(), headers, SignableBody::Bytes(&[]))?;
    let (_, parameters) = signed(request, &params)?.into_parts();
    let start = url.find('?').map_or(url.len(), |at| at + 1);
    let mut query = form_urlencoded::Serializer::for_suffix(url, start);
    for (name, value) in parameters {
        query.append_pair(name, &value);
    }
    Ok(query.finish())
}
