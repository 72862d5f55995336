//! What no request may do to a server.

use serde_json::json;
use tieline_openapi::coordinator::{EnvironmentPath, OperationId as Op};

use crate::{
    session::Session,
    suite::{Case, Stop, case},
};

pub(super) const CASES: &[Case] = &[
    case!("bounds/no-json", "A body that is no JSON is refused with 400.", "RFC 9110 section 15.5.1", no_json),
    case!("bounds/wrong-type", "A field of the wrong type is refused with 400.", "ConfirmActivationKey", wrong_type),
    case!(
        "bounds/large-body",
        "A body far larger than any request is refused with 413 or 400.",
        "RFC 9110 section 15.5.14",
        large_body
    ),
    case!(
        "bounds/unknown-field",
        "A field that the receiver does not know does not break a request: revisions differ.",
        "The published and the later revision",
        unknown_field
    ),
];

fn confirm(s: &Session) -> Result<(EnvironmentPath, String), Stop> {
    let path = s.place()?.environment.0.clone();
    let address = Op::ConfirmActivationKey.path(&path);
    Ok((path, address))
}

async fn no_json(s: &Session) -> Result<(), Stop> {
    let (_, address) = confirm(s)?;
    let body = Some(b"{\"encodedKey\": ".to_vec());
    s.raw(Op::ConfirmActivationKey, &address, body).await?.refused_with(&[400], "with half a document")
}

async fn wrong_type(s: &Session) -> Result<(), Stop> {
    let (path, _) = confirm(s)?;
    let body = json!({ "encodedKey": 7 });
    s.call(Op::ConfirmActivationKey, &path, &[], &body).await?.refused_with(&[400, 422], "with a number for encodedKey")
}

async fn large_body(s: &Session) -> Result<(), Stop> {
    let (_, address) = confirm(s)?;
    let body = json!({ "encodedKey": "A".repeat(8 * 1024 * 1024) }).to_string().into_bytes();
    match s.raw(Op::ConfirmActivationKey, &address, Some(body)).await {
        Ok(answer) => answer.refused_with(&[400, 413], "with a body of 8 MiB"),
        // A server may stop reading and close.
        Err(Stop::NoAnswer(_)) => Ok(()),
        Err(stop @ (Stop::Violation(_) | Stop::Skipped(_))) => Err(stop),
    }
}

async fn unknown_field(s: &Session) -> Result<(), Stop> {
    let place = s.place()?;
    let key = s.key(place, place.bandwidth()?).await?;
    let body = json!({ "encodedKey": key.encoded.expose(), "aFieldOfTheNextRevision": { "nested": true } });
    let answer = s.call(Op::ConfirmActivationKey, &place.environment.0, &[], &body).await?;
    answer.read::<tieline_openapi::coordinator::ConfirmActivationKeyResponse>().map(drop)
}
