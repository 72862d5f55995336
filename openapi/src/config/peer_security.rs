//! How a peer proves who it is beside or in place of its certificate, how we prove it to a peer, and what proves that a call
//! is made for the account whose connection it changes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// What a JSON Web Token (RFC 7519) must be to be taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenRules {
    /// Its `iss`, to the letter.
    pub issuer: String,
    /// One of its `aud`: what the issuer knows us by.
    pub audience: String,
    /// Claims that it has with exactly these values, `sub` for one.
    #[serde(default)]
    pub claims: BTreeMap<String, String>,
    /// The issuer's public keys.
    pub keys: TokenKeys,
    /// The algorithms that are taken. There are asymmetric ones only: nobody but the issuer can sign.
    #[serde(default = "usual_algorithms")]
    pub algorithms: BTreeSet<TokenAlgorithm>,
    /// How far the issuer's clock may be from ours, in seconds.
    #[serde(default = "half_a_minute")]
    pub leeway_seconds: u32,
    /// Whether a token is taken once only: it then has a `jti`.
    #[serde(default)]
    pub once: bool,
}

/// Where public keys are, as a JSON Web Key Set (RFC 7517).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum TokenKeys {
    /// In a file.
    File(String),
    /// At an address of the issuer.
    Url(KeysAddress),
}

/// Where an issuer publishes its keys (`jwks_uri` of OpenID Connect Discovery).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeysAddress {
    /// The address.
    pub url: String,
    /// Trust anchors in PEM, in place of the machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
}

/// How a token is signed (RFC 7518 section 3.1, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the RFCs'")]
pub enum TokenAlgorithm {
    ES256,
    ES384,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    EdDSA,
}

fn usual_algorithms() -> BTreeSet<TokenAlgorithm> {
    BTreeSet::from([TokenAlgorithm::ES256, TokenAlgorithm::RS256])
}
const fn half_a_minute() -> u32 {
    30
}

/// What our calls to a peer carry beside our certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum PeerCredential {
    /// A bearer token (RFC 6750).
    Bearer(TokenSource),
    /// A signature of AWS (Signature Version 4).
    SigV4(SigV4Config),
}

/// Where a token comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum TokenSource {
    /// A file that somebody keeps fresh. It is read for every call.
    File(String),
    /// A token endpoint, by client credentials (RFC 6749 section 4.4).
    ClientCredentials(ClientCredentialsConfig),
    /// Ourselves.
    Signed(TokenSigner),
}

/// A client of a token endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientCredentialsConfig {
    /// The token endpoint.
    pub endpoint: String,
    /// Trust anchors in PEM, in place of the machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// The client's id.
    pub client_id: String,
    /// Where the client's secret is: `env:NAME` or `file:PATH`.
    pub secret_ref: String,
    /// The scope to ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The audience to ask for, where the endpoint wants to be told one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
}

/// Tokens that we sign, by ES256. The peer knows the public key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenSigner {
    /// A private key on P-256 in PEM (PKCS #8).
    pub key_file: String,
    /// The `kid` by which the peer finds the public key.
    pub key_id: String,
    /// The `iss`.
    pub issuer: String,
    /// The `aud`: what the peer wants to be called.
    pub audience: String,
    /// The `sub`; without it the issuer. A proof has the account here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// Whose signature a call has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SigV4Config {
    /// The service's name for signing, `execute-api` for one.
    pub service: String,
    /// The region.
    pub region: String,
    /// `env:NAME` or `file:PATH`, holding `ACCESS_KEY_ID:SECRET_ACCESS_KEY`, with `:SESSION_TOKEN` where there is one.
    pub credential_ref: String,
}

/// Proof that creating, updating and deleting a connection is done for the account that it belongs to: the specification's
/// protection against a confused deputy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProofConfig {
    /// What we demand of the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub demand: Option<DemandedProof>,
    /// What we give it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub give: Option<GivenProof>,
}

/// A proof that is demanded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum DemandedProof {
    /// A presigned GetCallerIdentity of AWS's Security Token Service, which we execute.
    AwsSts(StsRules),
    /// A token of the account.
    Oidc(AccountTokenRules),
}

/// Which presigned requests we execute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StsRules {
    /// The hosts that we ask, as `sts.eu-central-1.amazonaws.com`, with `:PORT` where it is not 443. No other is ever asked.
    pub hosts: Vec<String>,
    /// Trust anchors in PEM, in place of the machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// How old a signature may be, in seconds, whatever it says of itself.
    #[serde(default = "five_minutes")]
    pub max_age_seconds: u32,
}

/// Which tokens prove an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccountTokenRules {
    /// What the token must be. It is taken once only, whatever stands here.
    pub token: TokenRules,
    /// The claim that names the account.
    #[serde(default = "subject")]
    pub account_claim: String,
}

const fn five_minutes() -> u32 {
    300
}
fn subject() -> String {
    "sub".to_owned()
}

/// A proof that we give. The account of a connection is the project that it belongs to here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum GivenProof {
    /// A presigned GetCallerIdentity.
    AwsSts(StsProof),
    /// A token a project, each in a file that somebody keeps fresh: a new one for every call where the peer takes each once.
    OidcFiles(BTreeMap<String, String>),
    /// A token that we sign, with the project as its `sub`.
    OidcSigned(TokenSigner),
}

/// Who signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StsProof {
    /// The host of the Security Token Service, with `:PORT` where it is not 443.
    pub host: String,
    /// Its region.
    pub region: String,
    /// By project: `env:NAME` or `file:PATH`, holding `ACCESS_KEY_ID:SECRET_ACCESS_KEY`, with `:SESSION_TOKEN` where there
    /// is one.
    pub credentials: BTreeMap<String, String>,
}
