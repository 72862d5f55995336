//! We demand a proof of whoever changes a connection.

use tieline_openapi::{
    config::{AccountTokenRules, DemandedProof, StsRules},
    coordinator::{OperationId, ResourceId},
};
use uuid::Uuid;

use super::{
    Bound, Given, ProofError, TokenError, execute,
    sts::{Presigned, Purpose, nonce},
};
use crate::{
    coordinator::{
        Call, Coordination, CoordinationError, Peer,
        identity::{Tokens, http_client},
    },
    plan::coordinate::{Ask, Book, Place, Source, wire},
};

const STS_FORM: &str = "aws-sts URL NONCE";
const OIDC_FORM: &str = "oidc TOKEN";

/// A demand, with what it takes to check a proof.
pub(in crate::coordinator) enum Demand {
    Sts { rules: StsRules, http: reqwest::Client },
    Oidc { tokens: Box<Tokens>, claim: String },
}

impl Demand {
    pub(in crate::coordinator) fn new(demanded: &DemandedProof) -> Result<Self, CoordinationError> {
        Ok(match demanded {
            DemandedProof::AwsSts(rules) => {
                let loopback = rules.hosts.iter().all(|host| host.starts_with("127.") || host.starts_with("localhost"));
                Self::Sts { http: http_client(rules.ca_file.as_deref(), loopback)?, rules: rules.clone() }
            }
            DemandedProof::Oidc(AccountTokenRules { token, account_claim }) => {
                Self::Oidc { tokens: Box::new(Tokens::new(token)?), claim: account_claim.clone() }
            }
        })
    }
}

/// The one value, as words.
fn words<const N: usize>(given: &Given, scheme: &str, form: &'static str) -> Result<[String; N], ProofError> {
    let [value] = given.0.as_slice() else {
        return Err(if given.0.is_empty() { ProofError::Missing } else { ProofError::Form(form) });
    };
    let text = std::str::from_utf8(value).map_err(|_| ProofError::Form(form))?;
    let rest = text.strip_prefix(scheme).and_then(|rest| rest.strip_prefix(' ')).ok_or(ProofError::Form(form))?;
    let words: Vec<String> = rest.split(' ').map(str::to_owned).collect();
    words.try_into().map_err(|_| ProofError::Form(form))
}

/// What a question changes, and the UUID of the connection, where there is one.
fn changed<'a>(book: &Book, ask: &'a Ask) -> Option<(OperationId, &'a Place, Option<Uuid>)> {
    let at = |place: &Place| book.rows.get(place).map(|row| row.uuid);
    match ask {
        Ask::Create { place, source, .. } => {
            let uuid = match source {
                // A key that is not known here has no UUID, and makes no connection.
                Source::Key(uuid) => Some(*uuid).filter(|uuid| !uuid.is_nil()),
                Source::Connection(from) => at(from),
            };
            Some((OperationId::CreateConnection, place, uuid))
        }
        Ask::Resize { place, .. } => Some((OperationId::UpdateConnection, place, at(place))),
        Ask::Delete { place, .. } => Some((OperationId::DeleteConnection, place, at(place))),
        Ask::Confirm { .. }
        | Ask::Look { .. }
        | Ask::Guidance { .. }
        | Ask::CreateFeature { .. }
        | Ask::DeleteFeature { .. }
        | Ask::Notify { .. } => None,
    }
}

impl Coordination {
    /// Checks the proof of a call, where the peer has to give one. What is about no connection that is there needs none: the
    /// protocol refuses it, or answers as it did.
    ///
    /// # Errors
    /// [`CoordinationError::Proof`]; the store's.
    pub(in crate::coordinator) async fn proved(
        &self,
        call: &Call,
        read: impl Fn(&Book) -> Option<Ask>,
    ) -> Result<(), CoordinationError> {
        let Some(demand) = &call.peer.security.demand else { return Ok(()) };
        let (_, book) = self.load(&call.peer, call.request_id).await?;
        let Some(ask) = read(&book) else { return Ok(()) };
        let Some((operation, place, Some(uuid))) = changed(&book, &ask) else { return Ok(()) };
        let name = wire::connection_path(&call.peer.id, place).to_string();
        let bound = Bound { receiver: self.us(), caller: &call.peer.id, operation, name: &name };
        let checked = self.check_proof(demand, &call.peer, &call.proof, &bound, uuid).await;
        if let Err(error) = &checked
            && !error.is_for_now()
        {
            let mut audit = call.audit.clone();
            audit.action.push_str(":proofRefused");
            self.parts.books.note(audit).await?;
        }
        Ok(checked?)
    }

    async fn check_proof(
        &self,
        demand: &Demand,
        peer: &Peer,
        given: &Given,
        bound: &Bound<'_>,
        uuid: Uuid,
    ) -> Result<(), ProofError> {
        let account = match demand {
            Demand::Sts { rules, http } => {
                let [url, nonce] = words(given, "aws-sts", STS_FORM)?;
                let url = data_encoding::BASE64URL_NOPAD.decode(url.as_bytes()).ok();
                let url = url.and_then(|url| String::from_utf8(url).ok()).ok_or(ProofError::Form(STS_FORM))?;
                let nonce = self::nonce(&nonce).map_err(ProofError::Presigned)?;
                let asked = Presigned::parse(&url, &rules.hosts).map_err(ProofError::Presigned)?;
                asked.in_time(self.parts.clock.now(), rules.max_age_seconds).map_err(ProofError::Presigned)?;
                self.first_use(&peer.id, asked.id(), asked.forgotten_at()).await?;
                execute::account(http, &asked, &Purpose(bound.text(nonce))).await?
            }
            Demand::Oidc { tokens, claim } => {
                let [token] = words(given, "oidc", OIDC_FORM)?;
                let shown = tokens.check(&token, &*self.parts.clock).await.map_err(ProofError::Token)?;
                let id = tokens.id(&shown).map_err(ProofError::Token)?;
                self.first_use(&peer.id, id, shown.forgotten_at(tokens)).await?;
                let missing = || ProofError::Token(TokenError::Claim(claim.clone()));
                shown.text(claim).ok_or_else(missing)?.to_owned()
            }
        };
        // Where nobody said whose it is, the first proof does: for whom a connection was made changes never after.
        let of = self.parts.books.account(&peer.id, uuid, &account).await?;
        if of == account { Ok(()) } else { Err(ProofError::OtherAccount) }
    }

    async fn first_use(&self, peer: &ResourceId, id: [u8; 32], until: jiff::Timestamp) -> Result<(), ProofError> {
        if self.parts.books.use_once(peer, id, until).await? { Ok(()) } else { Err(ProofError::Replayed) }
    }
}
