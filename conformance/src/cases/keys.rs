//! Activation keys: what the customer carries from one provider to the other.

use serde_json::json;
use tieline_openapi::coordinator::{
    ActivationKey, ActivationKeyV1, ConfirmActivationKeyResponse, GetActivationKeyParametersResponse,
    OperationId as Op, Sensitive,
};

use crate::{
    session::{Place, Session},
    suite::{Case, Stop, case, must},
};

pub(super) const CASES: &[Case] = &[
    case!(
        "keys/good",
        "A key that was never used is confirmed, and confirming uses nothing up.",
        "ConfirmActivationKey",
        good
    ),
    case!(
        "keys/other-bandwidth",
        "A key whose bandwidth was changed on its way is not valid.",
        "ConfirmActivationKey",
        other_bandwidth
    ),
    case!(
        "keys/other-uuid",
        "A key whose connection the target does not know is not valid.",
        "ConfirmActivationKey",
        other_uuid
    ),
    case!("keys/no-key", "What is no activation key is not valid.", "ConfirmActivationKey", no_key),
    case!("keys/used", "A key is used once.", "ConfirmActivationKey; activation keys", used),
    case!("keys/deleted", "With its connection a key becomes invalid.", "DeleteConnection; activation keys", deleted),
    case!(
        "keys/parameters",
        "An environment tells which key versions it takes, and for version 2 the public key.",
        "GetActivationKeyParameters",
        parameters
    ),
];

async fn valid(s: &Session, place: &Place, encoded: &Sensitive) -> Result<bool, Stop> {
    let body = json!({ "encodedKey": encoded.expose() });
    let answer = s.call(Op::ConfirmActivationKey, &place.environment.0, &[], &body).await?;
    // A peer may say it either way.
    if (400..500).contains(&answer.status) {
        return Ok(false);
    }
    let said: ConfirmActivationKeyResponse = answer.read()?;
    Ok(said.key_valid.unwrap_or(false))
}

async fn good(s: &Session) -> Result<(), Stop> {
    let place = s.place()?;
    let key = s.key(place, place.bandwidth()?).await?;
    for time in ["the first", "the second"] {
        must(valid(s, place, &key.encoded).await?, || format!("a fresh key is not valid at {time} time of asking"))?;
    }
    Ok(())
}

async fn altered(s: &Session, what: &str, alter: impl FnOnce(&mut ActivationKeyV1)) -> Result<(), Stop> {
    let place = s.place()?;
    let mut key = s.key(place, place.bandwidth()?).await?.read;
    alter(&mut key);
    let is_valid = valid(s, place, &ActivationKey::V1(key).encode()).await?;
    must(!is_valid, || format!("a key with {what} is called valid"))
}

async fn other_bandwidth(s: &Session) -> Result<(), Stop> {
    altered(s, "another bandwidth", |key| key.connection_size_mbps += 1).await
}

async fn other_uuid(s: &Session) -> Result<(), Stop> {
    let uuid = s.uuid().to_string();
    altered(s, "another UUID", |key| key.shared_connection_uuid = uuid).await
}

async fn no_key(s: &Session) -> Result<(), Stop> {
    let is_valid = valid(s, s.place()?, &Sensitive::new("bm8ga2V5")).await?;
    must(!is_valid, || "a text that is no key is called valid".to_owned())
}

async fn used(s: &Session) -> Result<(), Stop> {
    let made = s.connection().await?;
    let is_valid = valid(s, s.place()?, &made.key.encoded).await?;
    must(!is_valid, || "a key is called valid after a connection was made from it".to_owned())?;
    let other = s.place()?.interconnect.0.connection(s.uuid().into());
    let mut body = made.body.clone();
    body["name"] = json!(other.to_string());
    s.create(&other, &body, None).await?.refused("of another connection from a used key")
}

async fn deleted(s: &Session) -> Result<(), Stop> {
    let made = s.connection().await?;
    s.get(Op::DeleteConnection, &made.path).await?.read::<serde_json::Value>()?;
    let is_valid = valid(s, s.place()?, &made.key.encoded).await?;
    must(!is_valid, || "a key is called valid after its connection was deleted".to_owned())
}

async fn parameters(s: &Session) -> Result<(), Stop> {
    let path = &s.place()?.environment.0;
    let shown: GetActivationKeyParametersResponse = s.get(Op::GetActivationKeyParameters, path).await?.read()?;
    must(!shown.supported_versions.is_empty(), || format!("{path} takes no version of the key"))?;
    if !shown.supported_versions.contains(&2) {
        return Ok(());
    }
    let encryption = shown.encryption.unwrap_or_default();
    let (key, algorithm, format) = (encryption.public_key, encryption.algorithm, encryption.key_format);
    let pem = key.as_deref().is_some_and(|key| key.starts_with("-----BEGIN PUBLIC KEY-----"));
    must(pem, || "the public key is not in PEM".to_owned())?;
    must(algorithm.as_deref() == Some("RSA-OAEP-256"), || format!("the algorithm is {algorithm:?}, not RSA-OAEP-256"))?;
    must(format.as_deref() == Some("PKCS8"), || format!("the key's format is {format:?}, not PKCS8"))
}
