//! The strict reading of presigned requests.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use proptest::{prelude::*, sample::Index};
use secrecy::ExposeSecret as _;
use tieline_openapi::{
    config::StsProof,
    coordinator::{OperationId, ResourceId},
};

use super::{
    super::identity::AwsCredential,
    Bound, Given,
    give::presigned,
    sts::{Presigned, PresignedError, nonce},
};

const HOST: &str = "sts.eu-central-1.amazonaws.com";
const NOW: i64 = 1_800_000_000;

fn hosts() -> Vec<String> {
    vec![HOST.to_owned(), "127.0.0.1:8443".to_owned()]
}

fn credential(text: &str) -> AwsCredential {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, text).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(AwsCredential::read(&format!("file:{}", path.display()))).unwrap()
}

fn good(session: &str) -> String {
    let session = if session.is_empty() { String::new() } else { format!(":{session}") };
    let credential = credential(&format!("AKIDEXAMPLEEXAMPLE:verysecret{session}"));
    let proof = StsProof { host: HOST.to_owned(), region: "eu-central-1".to_owned(), credentials: BTreeMap::new() };
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW.unsigned_abs());
    presigned(&proof, &credential, &purpose(), at).unwrap()
}

fn purpose() -> String {
    let (north, south): (ResourceId, ResourceId) = ("north".parse().unwrap(), "south".parse().unwrap());
    let name = "providers/south/environments/e/interconnects/i/connections/c";
    let bound = Bound { receiver: &north, caller: &south, operation: OperationId::DeleteConnection, name };
    bound.text("0123456789")
}

fn pairs(url: &str) -> BTreeMap<String, String> {
    let query = url.split_once('?').unwrap().1;
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

fn parse(url: &str) -> Result<Presigned, PresignedError> {
    Presigned::parse(url, &hosts())
}

#[test]
fn what_we_presign_is_read_and_built_anew() {
    assert_eq!(
        purpose(),
        "north south DeleteConnection providers/south/environments/e/interconnects/i/connections/c 0123456789"
    );
    for session in ["", "IQoJb3JpZ2luX2VjE/+abc=="] {
        let url = good(session);
        let read = parse(&url).unwrap();
        assert_eq!(pairs(read.address().expose_secret()), pairs(&url));
        assert_eq!(read.host(), HOST);
        let told = format!("{read:?} {:?}", Given::new(vec![url.clone().into_bytes()]));
        for secret in ["AKID", "IQoJ", &pairs(&url)["X-Amz-Signature"]] {
            assert!(!told.contains(secret), "{told}");
        }
    }
}

#[test]
fn whatever_is_not_exactly_that_request_is_not_executed() {
    let url = good("c2Vzc2lvbg==");
    let address = PresignedError::Address;
    let of = PresignedError::Parameter;
    let table: &[(&str, &str, PresignedError)] = &[
        ("https://", "http://", address.clone()),
        ("https://", "HTTPS://", address.clone()),
        ("https://", "https:/", address.clone()),
        ("https://", "file://", address.clone()),
        ("https://", "https://user@", address.clone()),
        ("https://", "https://user:x@", address.clone()),
        (HOST, "169.254.169.254", PresignedError::Host),
        (HOST, "evil.example", PresignedError::Host),
        (HOST, "sts.eu-central-1.amazonaws.com.evil.example", PresignedError::Host),
        (HOST, "sts.eu-central-1.amazonaws.com.", PresignedError::Host),
        (HOST, "STS.eu-central-1.amazonaws.com", PresignedError::Host),
        (HOST, "sts.eu-central-1.amazonaws.com:8443", PresignedError::Host),
        (HOST, "127.0.0.1", PresignedError::Host),
        (HOST, "", PresignedError::Host),
        (HOST, "evil.example/sts.eu-central-1.amazonaws.com", address.clone()),
        (HOST, "evil.example\\sts.eu-central-1.amazonaws.com", address.clone()),
        ("/?", "?", address.clone()),
        ("/?", "//?", address.clone()),
        ("/?", "/latest/meta-data/?", address.clone()),
        ("/?", "/?#", address.clone()),
        ("X-Amz-Date", "#X-Amz-Date", address.clone()),
        ("Action", " Action", address.clone()),
        ("Action=GetCallerIdentity", "Action=AssumeRole", of("Action")),
        ("Action=GetCallerIdentity", "Action=getCallerIdentity", of("Action")),
        ("Action=GetCallerIdentity", "Action=GetCallerIdentity&Action=AssumeRole", of("Action")),
        ("Action=GetCallerIdentity", "action=GetCallerIdentity", PresignedError::Unknown),
        ("Action=GetCallerIdentity", "%41ction=GetCallerIdentity", PresignedError::Unknown),
        ("Action=GetCallerIdentity", "Action=Get%2", of("Action")),
        ("Action=GetCallerIdentity", "Action=GetCallerIdentity%00", of("Action")),
        ("Action=GetCallerIdentity", "Action=GetCallerIdentity+", of("Action")),
        ("Action=GetCallerIdentity", "Action", PresignedError::Unknown),
        ("Action=GetCallerIdentity&", "", of("Action")),
        ("Version=2011-06-15", "Version=2011-06-16", of("Version")),
        ("Version=2011-06-15", "Version=2011-06-15&RoleArn=x", PresignedError::Unknown),
        ("Version=2011-06-15", "Version=2011-06-15&", PresignedError::Unknown),
        ("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256", of("X-Amz-Algorithm")),
        ("X-Amz-SignedHeaders=host%3Bx-interconnect-purpose", "X-Amz-SignedHeaders=host", of("X-Amz-SignedHeaders")),
        ("host%3Bx-interconnect-purpose", "host%3Bx-evil%3Bx-interconnect-purpose", of("X-Amz-SignedHeaders")),
        ("X-Amz-Expires=120", "X-Amz-Expires=0", of("X-Amz-Expires")),
        ("X-Amz-Expires=120", "X-Amz-Expires=901", of("X-Amz-Expires")),
        ("X-Amz-Expires=120", "X-Amz-Expires=604800", of("X-Amz-Expires")),
        ("X-Amz-Expires=120", "X-Amz-Expires=%2B20", of("X-Amz-Expires")),
        ("X-Amz-Expires=120", "X-Amz-Expires=012", of("X-Amz-Expires")),
        ("X-Amz-Date=2027", "X-Amz-Date=2028", of("X-Amz-Credential")),
        ("X-Amz-Date=20270115", "X-Amz-Date=20270132", of("X-Amz-Date")),
        ("AKIDEXAMPLEEXAMPLE%2F", "AKID%2F", of("X-Amz-Credential")),
        ("%2Fsts%2F", "%2Fiam%2F", of("X-Amz-Credential")),
        ("aws4_request", "aws4_request%2Fx", of("X-Amz-Credential")),
        ("X-Amz-Security-Token=c2V", "X-Amz-Security-Token=%0D%0A", of("X-Amz-Security-Token")),
    ];
    for (from, to, expected) in table {
        let changed = url.replacen(from, to, 1);
        assert_ne!(changed, url, "{from} is not there");
        assert_eq!(parse(&changed).unwrap_err(), *expected, "{from} -> {to}");
    }
    let long = format!("{url}{}", "a".repeat(6_000));
    assert_eq!(parse(&long).unwrap_err(), PresignedError::Address);
    for wrong in ["short", "with space", "with.dot.", &"x".repeat(65)] {
        assert_eq!(nonce(wrong), Err(PresignedError::Nonce));
    }
}

#[test]
fn a_proof_has_its_time() {
    let read = parse(&good("")).unwrap();
    let at = |second: i64, longest| read.in_time(Timestamp::from_second(NOW + second).unwrap(), longest);
    assert_eq!(at(0, 300), Ok(()));
    assert_eq!(at(-60, 300), Ok(()));
    assert_eq!(at(-61, 300), Err(PresignedError::Early));
    assert_eq!(at(119, 300), Ok(()));
    assert_eq!(at(120, 300), Err(PresignedError::Ended), "by its own word");
    assert_eq!(at(59, 60), Ok(()));
    assert_eq!(at(60, 60), Err(PresignedError::Ended), "by ours");
    // It is remembered for at least as long as it is taken.
    assert!(read.forgotten_at().as_second() > NOW + 119);
}

/// What holds of everything that is executed.
fn is_safe(read: &Presigned) {
    let address = read.address();
    let url = reqwest::Url::parse(address.expose_secret()).unwrap();
    let host = url
        .port()
        .map_or_else(|| url.host_str().unwrap().to_owned(), |port| format!("{}:{port}", url.host_str().unwrap()));
    assert!(hosts().contains(&host), "{host}");
    assert_eq!((url.scheme(), url.path(), url.username(), url.fragment()), ("https", "/", "", None));
    let actions: Vec<_> = url.query_pairs().filter(|(name, _)| name.eq_ignore_ascii_case("action")).collect();
    assert!(matches!(actions.as_slice(), [(_, action)] if action == "GetCallerIdentity"), "{actions:?}");
    let names: Vec<String> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
    let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
    assert!((8..=9).contains(&names.len()) && distinct.len() == names.len(), "{names:?}");
    // Whoever reads it again reads the same.
    assert_eq!(parse(address.expose_secret()).unwrap().address().expose_secret(), address.expose_secret());
}

#[derive(Debug, Clone)]
enum Edit {
    Remove(Index, usize),
    Insert(Index, String),
    Replace(Index, char),
    Repeat(Index),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let bits = prop_oneof![
        "[ -~]{1,6}",
        Just("&Action=AssumeRole".to_owned()),
        Just("@127.0.0.1:8443/?".to_owned()),
        Just("%2e%2e%2f".to_owned()),
        Just("%26Action%3DAssumeRole".to_owned()),
        Just("\u{ff0f}".to_owned()),
    ];
    let edit = prop_oneof![
        (any::<Index>(), 1_usize..8).prop_map(|(at, length)| Edit::Remove(at, length)),
        (any::<Index>(), bits).prop_map(|(at, text)| Edit::Insert(at, text)),
        (any::<Index>(), any::<char>()).prop_map(|(at, c)| Edit::Replace(at, c)),
        any::<Index>().prop_map(Edit::Repeat),
    ];
    prop::collection::vec(edit, 0..4)
}

fn edited(url: &str, edits: &[Edit]) -> String {
    let mut text: Vec<char> = url.chars().collect();
    for edit in edits {
        if text.is_empty() {
            break;
        }
        match edit {
            Edit::Remove(at, length) => {
                let at = at.index(text.len());
                text.drain(at..(at + length).min(text.len()));
            }
            Edit::Insert(at, bit) => {
                let at = at.index(text.len());
                text.splice(at..at, bit.chars());
            }
            Edit::Replace(at, c) => {
                let at = at.index(text.len());
                text[at] = *c;
            }
            // One of its parameters, once more.
            Edit::Repeat(at) => {
                let text_now: String = text.iter().collect();
                let parts: Vec<&str> = text_now.split('&').collect();
                let part = format!("&{}", parts[at.index(parts.len())]);
                text.extend(part.chars());
            }
        }
    }
    text.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn only_get_caller_identity_of_a_listed_host_comes_out_whatever_goes_in(edits in edits()) {
        let url = GOOD.with(Clone::clone);
        if let Ok(read) = parse(&edited(&url, &edits)) {
            is_safe(&read);
        }
    }

    #[test]
    fn no_text_is_a_surprise(text in "\\PC{0,200}") {
        prop_assert!(parse(&text).is_err());
        let _nonce = nonce(&text);
    }

    #[test]
    fn any_session_token_survives(session in "[A-Za-z0-9+/]{1,400}={0,2}") {
        let url = GOOD.with(Clone::clone);
        let escaped: String = form_urlencoded::byte_serialize(session.as_bytes()).collect();
        let url = format!("{url}&X-Amz-Security-Token={escaped}");
        let read = parse(&url).unwrap();
        is_safe(&read);
        prop_assert_eq!(pairs(read.address().expose_secret()), pairs(&url));
    }
}

thread_local! {
    static GOOD: String = good("");
}
