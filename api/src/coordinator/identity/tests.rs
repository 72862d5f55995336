//! Tokens: what is taken, what is not, and how often an issuer is asked for its keys.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::{Value, json};
use tieline_openapi::{
    config::{TokenAlgorithm, TokenKeys, TokenRules, TokenSigner},
    v1::Timestamp,
};

use super::*;
use crate::engine::clock::ChaChaRandom;

const NOW: i64 = 1_800_000_000;

/// A clock that stands where it was put.
pub(in crate::coordinator) struct Stepped(AtomicI64);

impl Stepped {
    pub(in crate::coordinator) fn at(second: i64) -> Self {
        Self(AtomicI64::new(second))
    }
}

#[async_trait]
impl Clock for Stepped {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(Ordering::Relaxed)).unwrap()
    }
    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed).unsigned_abs())
    }
    async fn sleep(&self, _: Duration) {}
}

/// An issuer with a key, whose public half stands in a file.
struct Issuer {
    key: KeyPair,
    folder: tempfile::TempDir,
}

fn jwk(key: &KeyPair, kid: &str) -> Value {
    let point = key.der_bytes();
    let (x, y) = (&point[1..33], &point[33..65]);
    json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid,
            "x": BASE64URL_NOPAD.encode(x), "y": BASE64URL_NOPAD.encode(y) })
}

impl Issuer {
    fn new() -> Self {
        let issuer = Self { key: KeyPair::generate().unwrap(), folder: tempfile::tempdir().unwrap() };
        issuer.publish(&json!([jwk(&issuer.key, "one")]));
        issuer
    }

    fn publish(&self, keys: &Value) {
        std::fs::write(self.path(), json!({ "keys": keys }).to_string()).unwrap();
    }

    fn path(&self) -> String {
        self.folder.path().join("keys.json").display().to_string()
    }

    fn rules(&self) -> TokenRules {
        TokenRules {
            issuer: "https://issuer.example".to_owned(),
            audience: "north".to_owned(),
            claims: BTreeMap::from([("sub".to_owned(), "south".to_owned())]),
            keys: TokenKeys::File(self.path()),
            algorithms: BTreeSet::from([TokenAlgorithm::ES256, TokenAlgorithm::RS256]),
            leeway_seconds: 30,
            once: true,
        }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        sign(&self.key, header, claims)
    }
}

/// Signs by ES256 whatever the header says.
fn sign(key: &KeyPair, header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let message = format!("{}.{}", part(header), part(claims));
    let key = EncodingKey::from_ec_der(key.serialized_der());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::ES256).unwrap();
    format!("{message}.{signature}")
}

fn header() -> Value {
    json!({ "alg": "ES256", "typ": "JWT", "kid": "one" })
}

fn claims() -> Value {
    json!({ "iss": "https://issuer.example", "aud": "north", "sub": "south", "exp": NOW + 60, "iat": NOW, "jti": "1" })
}

fn with(mut value: Value, name: &str, to: impl Into<Value>) -> Value {
    let to = to.into();
    if to.is_null() {
        value.as_object_mut().unwrap().remove(name);
    } else {
        value[name] = to;
    }
    value
}

/// The error as its text begins, or what was taken.
async fn verdict(tokens: &Tokens, token: &str) -> String {
    match tokens.check(token, &Stepped::at(NOW)).await {
        Ok(shown) => tokens.once(&shown).map_or_else(|error| error.to_string(), |_| "taken".to_owned()),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_token_is_taken_or_the_rule_that_it_breaks_is_named() {
    let issuer = Issuer::new();
    let tokens = Tokens::new(&issuer.rules()).unwrap();
    let es = |claims: Value| issuer.sign(&header(), &claims);
    let headed = |name: &str, to: Value| issuer.sign(&with(header(), name, to), &claims());
    let ended = "the token has ended";
    let early = "the token is not valid yet";
    let algorithm = "the token is signed by an algorithm";
    let form = "this is no JSON Web Token";
    let claim = |name: &str| format!("the token's `{name}` is missing, or not");
    let plain = |header: Value| {
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        format!("{}.{}.", part(&header), part(&claims()))
    };
    // Who knows the public key, and everybody does, could sign with it as a secret.
    let confused = |algorithm| {
        let mut head = Header::new(algorithm);
        head.kid = Some("one".to_owned());
        let public = EncodingKey::from_secret(issuer.key.der_bytes());
        jsonwebtoken::encode(&head, &claims(), &public).unwrap()
    };
    let other = KeyPair::generate().unwrap();
    let table = [
        (es(claims()), "taken".to_owned()),
        (es(with(claims(), "aud", json!(["east", "north"]))), "taken".to_owned()),
        (es(with(claims(), "exp", NOW as f64 + 60.5)), "taken".to_owned()),
        (headed("typ", "at+jwt".into()), "taken".to_owned()),
        // Within the leeway.
        (es(with(claims(), "exp", NOW - 29)), "taken".to_owned()),
        (es(with(claims(), "iat", NOW + 30)), "taken".to_owned()),
        (es(with(claims(), "exp", NOW - 30)), ended.to_owned()),
        (es(with(claims(), "exp", Value::Null)), claim("exp")),
        (es(with(claims(), "exp", "soon")), claim("exp")),
        (es(with(claims(), "exp", NOW + 24 * 3_600 + 1)), "the token ends more than".to_owned()),
        (es(with(claims(), "nbf", NOW + 31)), early.to_owned()),
        (es(with(claims(), "iat", NOW + 31)), early.to_owned()),
        (es(with(claims(), "nbf", "x")), claim("nbf")),
        (es(with(claims(), "aud", "east")), claim("aud")),
        (es(with(claims(), "aud", Value::Null)), claim("aud")),
        (es(with(claims(), "aud", json!([]))), claim("aud")),
        (es(with(claims(), "iss", "https://issuer.example/")), claim("iss")),
        (es(with(claims(), "iss", json!(["https://issuer.example"]))), claim("iss")),
        (es(with(claims(), "sub", "east")), claim("sub")),
        (es(with(claims(), "sub", Value::Null)), claim("sub")),
        (es(with(claims(), "jti", Value::Null)), claim("jti")),
        (plain(json!({ "alg": "none", "kid": "one" })), algorithm.to_owned()),
        (plain(json!({ "alg": "None" })), algorithm.to_owned()),
        (plain(header()), "the token's signature".to_owned()),
        (confused(Algorithm::HS256), algorithm.to_owned()),
        (confused(Algorithm::HS512), algorithm.to_owned()),
        (headed("alg", "HS256".into()), algorithm.to_owned()),
        // One that would be taken, and is not what the key is for.
        (headed("alg", "RS256".into()), "the token names a key".to_owned()),
        (headed("alg", "PS256".into()), algorithm.to_owned()),
        (headed("kid", "two".into()), "the token names a key".to_owned()),
        (headed("crit", json!(["exp"])), form.to_owned()),
        (headed("typ", "secevent+jwt".into()), form.to_owned()),
        (headed("jwk", jwk(&other, "one")), "taken".to_owned()),
        (sign(&other, &with(header(), "jwk", jwk(&other, "one")), &claims()), "the token's signature".to_owned()),
        (sign(&other, &header(), &claims()), "the token's signature".to_owned()),
        (es(claims()).replace('.', " "), form.to_owned()),
        (String::new(), form.to_owned()),
        ("a.b.c".to_owned(), form.to_owned()),
        (es(with(claims(), "more", "x".repeat(9_000))), form.to_owned()),
    ];
    for (at, (token, expected)) in table.iter().enumerate() {
        let said = verdict(&tokens, token).await;
        assert!(said.starts_with(expected.as_str()), "{at}: {said}, not {expected}");
        assert!(token.is_empty() || !said.contains(token.as_str()), "{at}: a token in a message");
    }
    // Without a `kid` every key is tried.
    assert_eq!(verdict(&tokens, &issuer.sign(&with(header(), "kid", Value::Null), &claims())).await, "taken");
}

#[tokio::test]
async fn keys_are_read_again_where_one_is_not_known_and_not_all_the_time() {
    let issuer = Issuer::new();
    let tokens = Tokens::new(&issuer.rules()).unwrap();
    let said = |second: i64, kid: &str, key: &KeyPair| {
        let claims = with(with(claims(), "exp", second + 60), "iat", second);
        let token = sign(key, &with(header(), "kid", kid), &claims);
        let (tokens, clock) = (&tokens, Stepped::at(second));
        async move { tokens.check(&token, &clock).await.map_err(|error| error.to_string()).err().unwrap_or_default() }
    };
    assert_eq!(said(NOW, "one", &issuer.key).await, "");
    let next = KeyPair::generate().unwrap();
    issuer.publish(&json!([jwk(&next, "two")]));
    assert!(said(NOW + 9, "two", &next).await.contains("does not have"), "looked at a moment ago");
    assert_eq!(said(NOW + 10, "two", &next).await, "");
    assert!(said(NOW + 21, "one", &issuer.key).await.contains("does not have"), "it was taken out");
    // The file is gone: what is known is taken for a day.
    std::fs::remove_file(issuer.path()).unwrap();
    assert_eq!(said(NOW + 700, "two", &next).await, "");
    assert!(said(NOW + 711, "three", &next).await.contains("cannot read"));
    assert!(said(NOW + 712, "three", &next).await.contains("a moment ago"));
    assert!(said(NOW + 25 * 3_600, "two", &next).await.contains("cannot read"));
    // What is no key set, and what is too much of one.
    for (at, text) in ["{}", "[]", "{\"keys\": 1}", "x"].into_iter().enumerate() {
        std::fs::write(issuer.path(), text).unwrap();
        let second = NOW + 30 * 3_600 + 11 * i64::try_from(at).unwrap();
        assert!(said(second, "two", &next).await.contains("holds no JSON Web Key Set"), "{text}");
    }
    issuer.publish(&Value::from(vec![jwk(&next, "two"); 65]));
    assert!(said(NOW + 40 * 3_600, "two", &next).await.contains("at most 64 keys"));
    // Secrets and keys for encryption verify nothing; a kind that is not known is left out.
    let encrypting = with(jwk(&next, "two"), "use", "enc");
    let secret = json!({ "kty": "oct", "k": "AAAA", "kid": "two" });
    issuer.publish(&json!([encrypting, secret, { "kty": "AKP", "kid": "two" }]));
    assert!(said(NOW + 50 * 3_600, "two", &next).await.contains("does not have"));
}

#[tokio::test]
async fn what_we_sign_is_taken_once_by_whoever_has_our_public_key() {
    let issuer = Issuer::new();
    let key_file = issuer.folder.path().join("key.pem").display().to_string();
    std::fs::write(&key_file, issuer.key.serialize_pem()).unwrap();
    let config = TokenSigner {
        key_file: key_file.clone(),
        key_id: "one".to_owned(),
        issuer: "https://issuer.example".to_owned(),
        audience: "north".to_owned(),
        subject: Some("south".to_owned()),
    };
    let signer = Signer::new(&config).unwrap();
    let (clock, random) = (Stepped::at(NOW), ChaChaRandom::from_seed(1));
    let tokens = Tokens::new(&issuer.rules()).unwrap();
    let mut ids = BTreeSet::new();
    for _ in 0..2 {
        let token = signer.token(None, &clock, &random).unwrap();
        let shown = tokens.check(&token, &clock).await.unwrap();
        ids.insert(tokens.once(&shown).unwrap().unwrap());
        assert_eq!(format!("{shown:?}"), format!("Shown {{ exp: {}, .. }}", NOW + 120));
    }
    assert_eq!(ids.len(), 2, "each has a jti of its own");
    let other = signer.token(Some("east"), &clock, &random).unwrap();
    assert!(tokens.check(&other, &clock).await.unwrap_err().to_string().contains("`sub`"));
    std::fs::write(&key_file, "no key").unwrap();
    assert!(Signer::new(&config).is_err());
}

#[test]
fn one_bearer_token_stands_in_the_header() {
    let read = |values: &[&[u8]]| bearer(values).map(str::to_owned).map_err(|error| error.to_string());
    for good in ["Bearer abc", "bearer abc", "BEARER  abc "] {
        assert_eq!(read(&[good.as_bytes()]).unwrap(), "abc");
    }
    for (values, said) in [
        (vec![], "is needed"),
        (vec!["Basic abc"], "is needed"),
        (vec!["Bearer"], "sent once"),
        (vec!["Bearer "], "sent once"),
        (vec!["Bearer a b"], "sent once"),
        (vec!["Bearer a", "Bearer b"], "sent once"),
    ] {
        let values: Vec<&[u8]> = values.iter().map(|text| text.as_bytes()).collect();
        assert!(read(&values).unwrap_err().contains(said), "{values:?}");
    }
}

#[tokio::test]
async fn a_credential_is_read_and_told_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key").display().to_string();
    let reference = format!("file:{path}");
    std::fs::write(&path, "AKIDEXAMPLE:verysecret:token\n").unwrap();
    let read = AwsCredential::read(&reference).await.unwrap();
    assert_eq!(read.get().session_token(), Some("token"));
    assert!(!format!("{read:?}").contains("verysecret"));
    for wrong in ["", "AKIDEXAMPLE", "AKIDEXAMPLE:", ":verysecret", "AKIDEXAMPLE:verysecret:", "A:very\nsecret"] {
        std::fs::write(&path, wrong).unwrap();
        let error = AwsCredential::read(&reference).await.unwrap_err().to_string();
        assert!(error.contains(&reference) && !error.contains("secret:") && !error.contains("verysecret"), "{error}");
    }
    std::fs::write(&path, "x".repeat(20_000)).unwrap();
    assert!(AwsCredential::read(&reference).await.is_err());
    assert!(
        AwsCredential::read("env:TIELINE_NO_SUCH_VARIABLE").await.unwrap_err().to_string().contains("holds nothing")
    );
}
