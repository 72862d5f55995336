//! How the target is called.

use serde_json::json;
use tieline_openapi::coordinator::{ActivationKey, OperationId as Op, ProviderPath};

use crate::{
    session::{Credential, Session},
    suite::{Case, Stop, case, must},
};

pub(super) const CASES: &[Case] = &[
    case!(
        "transport/old-tls",
        "Nobody is served over TLS 1.2, or over nothing.",
        "Security policy: TLS 1.3 or better between providers",
        old_tls
    ),
    case!(
        "transport/no-certificate",
        "Who presents no certificate is not served.",
        "Security policy: authentication on every endpoint",
        no_certificate
    ),
    case!(
        "transport/method",
        "A method that the path does not have is refused with 405 or 404.",
        "RFC 9110 section 15.5.6",
        method
    ),
    case!(
        "transport/content-type",
        "A body that says that it is something else than JSON is refused with 415 or 400.",
        "RFC 9110 section 15.5.16",
        content_type
    ),
];

fn tls(s: &Session) -> Result<(), Stop> {
    must(s.is_encrypted(), || {
        "the target is called without TLS: whoever is on the way reads and changes everything".to_owned()
    })
}

async fn unserved(s: &Session, credential: Credential, old: bool, why: &str) -> Result<(), Stop> {
    let version = if old { reqwest::tls::Version::TLS_1_2 } else { reqwest::tls::Version::TLS_1_3 };
    let wire =
        s.wire_with(
            credential,
            |http| if old { http.tls_version_max(version) } else { http.tls_version_min(version) },
        )?;
    let path = ProviderPath { provider: s.provider().provider.clone() };
    let answer = wire.call(Op::ListEnvironments, &path, &[], None).await;
    s.note(&wire);
    match answer {
        // The handshake failed, as it should.
        Err(Stop::NoAnswer(_)) => Ok(()),
        Err(stop) => Err(stop),
        Ok(answer) => must(matches!(answer.status, 401 | 403), || format!("{why}, with {}", answer.status)),
    }
}

async fn old_tls(s: &Session) -> Result<(), Stop> {
    tls(s)?;
    unserved(s, Credential::Peer, true, "a request over TLS 1.2 was answered").await
}

async fn no_certificate(s: &Session) -> Result<(), Stop> {
    tls(s)?;
    unserved(s, Credential::Nobody, false, "a request without a client certificate was answered").await
}

async fn method(s: &Session) -> Result<(), Stop> {
    let path = Op::ListConnections.path(&s.place()?.interconnect.0);
    let answer = s.raw_with("PUT", &path, "application/json", b"{}".to_vec()).await?;
    answer.refused_with(&[405, 404], "which has no method PUT")
}

async fn content_type(s: &Session) -> Result<(), Stop> {
    let place = s.place()?;
    let path = Op::ConfirmActivationKey.path(&place.environment.0);
    // Well formed, and of nobody: as JSON it is answered.
    let key = s.contents(place.bandwidth()?, &s.settings().account)?.to_v1(&place.environment.0.to_string());
    let body = json!({ "encodedKey": ActivationKey::V1(key).encode().expose() }).to_string().into_bytes();
    let answer = s.raw_with("POST", &path, "text/plain", body).await?;
    answer.refused_with(&[415, 400], "with a body of text/plain")
}
