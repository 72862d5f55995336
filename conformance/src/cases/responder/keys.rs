//! Activation keys: what the customer carries from one provider to the other.

use serde_json::json;
use tieline_openapi::coordinator::{
    ActivationKey, ActivationKeyEncryptedPayload, ActivationKeyV1, ConfirmActivationKeyResponse,
    GetActivationKeyParametersResponse, KeyContents, OperationId as Op, Sensitive, decode_key,
};

use crate::{
    peer::{Pair, Peer},
    session::{Place, Session},
    suite::{Case, Stop, case, must, violation},
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
    case!(
        alone
        "keys/encrypted",
        "Where the peer takes keys of version 2, the key that the customer gets is encrypted to the peer's public key.",
        "ActivationKeyV2; GetActivationKeyParameters",
        encrypted
    ),
    case!(
        alone
        "keys/rotated",
        "When the peer has a new public key, the next key is encrypted to that.",
        "GetActivationKeyParameters: weekly rotation",
        rotated
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

/// Takes keys of version 2 under a pair, as long as it lives.
struct Taking<'p>(&'p Peer);

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.0.stage().takes_keys(None);
    }
}

/// A key that a customer gets while the suite has this pair, and what it says.
async fn issued_to(s: &Session, pair: &Pair) -> Result<(ActivationKeyEncryptedPayload, i32), Stop> {
    let (peer, place) = (s.peer()?, s.place()?);
    let (taking, size) = (Taking(peer), place.bandwidth()?);
    peer.stage().takes_keys(Some(pair.parameters()?));
    let text = s.key_text(place, size).await?;
    drop(taking);
    let key = match decode_key(&text) {
        Ok(ActivationKey::V2(key)) => key,
        Ok(ActivationKey::V1(_) | ActivationKey::Other { .. }) => {
            return Err(violation("the peer takes keys of version 2, and the customer was given one in clear"));
        }
        Err(why) => return Err(violation(format!("what the customer was given is no activation key: {why}"))),
    };
    let open = pair.open(&key);
    let open = open.ok_or_else(|| violation("the key is not encrypted to the public key that the peer has now"))?;
    Ok((open, size))
}

async fn encrypted(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    let (said, size) = issued_to(s, &Pair::make().await?).await?;
    must(said.connection_size_mbps == size, || {
        format!("the customer ordered {size} Mbit/s, and the key says {}", said.connection_size_mbps)
    })?;
    KeyContents::of_payload(&said).map(drop).map_err(|why| violation(format!("the key's contents: {why}")))
}

async fn rotated(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    for _ in 0..2 {
        issued_to(s, &Pair::make().await?).await?;
    }
    Ok(())
}
