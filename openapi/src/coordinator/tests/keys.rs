//! Activation keys as text.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::super::*;
use crate::units::BandwidthMbps;

const URI: &str = "providers/south/environments/north-1-south-1";

fn any_contents() -> impl Strategy<Value = KeyContents> {
    (any::<u128>(), 1u64..=800_000, "[!-~]{1,64}").prop_map(|(uuid, mbps, account)| KeyContents {
        shared_connection_uuid: Uuid::from_u128(uuid),
        bandwidth: BandwidthMbps::try_from(mbps).unwrap(),
        destination_account_id: account,
    })
}

proptest! {
    #[test]
    fn a_key_in_clear_comes_back(contents in any_contents(), uri in "[ -~]{0,80}") {
        let key = ActivationKey::V1(contents.to_v1(&uri));
        let text = key.encode();
        let ActivationKey::V1(back) = decode_key(&text).unwrap() else { panic!("another version") };
        prop_assert_eq!(&back.destination_environment_uri, &uri);
        prop_assert_eq!(KeyContents::of_v1(&back).unwrap(), contents);
        // As people copy it.
        let bare = text.expose().trim_end_matches('=').to_owned();
        let wrapped: String = bare.chars().flat_map(|c| [c, '\n']).collect();
        let url_safe = URL_SAFE_NO_PAD.encode(STANDARD.decode(text.expose()).unwrap());
        for spelling in [bare, wrapped, url_safe] {
            prop_assert_eq!(decode_key(&Sensitive::new(spelling)).unwrap(), key.clone());
        }
    }

    /// A damaged key is an error or another key, and never a panic.
    #[test]
    fn a_damaged_key_is_refused(contents in any_contents(), at: prop::sample::Index, with: char, cut: bool) {
        let text = ActivationKey::V1(contents.to_v1(URI)).encode();
        let mut chars: Vec<char> = text.expose().chars().collect();
        let at = at.index(chars.len());
        if cut { chars.truncate(at) } else { chars[at] = with }
        match decode_key(&Sensitive::new(chars.into_iter().collect::<String>())) {
            Ok(ActivationKey::V1(key)) => { let _ = KeyContents::of_v1(&key); }
            Ok(ActivationKey::V2(_) | ActivationKey::Other { .. }) | Err(_) => {}
        }
    }

    #[test]
    fn no_text_is_a_panic(text in "\\PC{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_key(&Sensitive::new(text));
        let _ = decode_key(&Sensitive::new(STANDARD.encode(bytes)));
    }

    /// JSON that is almost a key.
    #[test]
    fn no_json_is_a_panic(
        version in prop_oneof![Just(json!(1)), Just(json!(2)), any::<i64>().prop_map(|n| json!(n)), Just(json!("1")), Just(json!(null))],
        uuid in prop_oneof![Just(json!(null)), "\\PC{0,40}".prop_map(|s| json!(s)), any::<i32>().prop_map(|n| json!(n))],
        size in prop_oneof![any::<i64>().prop_map(|n| json!(n)), any::<f64>().prop_map(|n| json!(n))],
        contents in prop::option::of("\\PC{0,20}"),
    ) {
        let json = json!({
            "version": version, "destinationEnvironmentUri": URI, "sharedConnectionUuid": uuid,
            "connectionSizeMbps": size, "destinationAccountId": "1", "encryptedContents": contents,
        });
        if let Ok(ActivationKey::V1(key)) = decode_key(&Sensitive::new(STANDARD.encode(json.to_string()))) {
            let _ = KeyContents::of_v1(&key);
        }
    }
}

#[test]
fn what_is_refused_says_which_part() {
    let good = || ActivationKeyV1 {
        version: KeyVersion,
        destination_environment_uri: URI.to_owned(),
        shared_connection_uuid: "0192f0c1-2345-7abc-8def-0123456789ab".to_owned(),
        connection_size_mbps: 1_000,
        destination_account_id: "123456789012".to_owned(),
    };
    assert!(KeyContents::of_v1(&good()).is_ok());
    for size in [0, -1, i32::MIN, 800_001] {
        let key = ActivationKeyV1 { connection_size_mbps: size, ..good() };
        assert_eq!(KeyContents::of_v1(&key), Err(KeyContentsError::Bandwidth), "{size}");
    }
    for account in ["", " ", "a b", "ä", &"1".repeat(65)] {
        let key = ActivationKeyV1 { destination_account_id: account.to_owned(), ..good() };
        assert_eq!(KeyContents::of_v1(&key), Err(KeyContentsError::Account), "{account}");
    }
    let key = ActivationKeyV1 { shared_connection_uuid: "1".to_owned(), ..good() };
    assert_eq!(KeyContents::of_v1(&key), Err(KeyContentsError::Uuid));
    assert!(matches!(decode_key(&Sensitive::new("A".repeat(MAX_KEY_BYTES + 1))), Err(KeyTextError::TooLong)));
    assert!(matches!(decode_key(&Sensitive::new("***")), Err(KeyTextError::Base64)));
    assert!(matches!(decode_key(&Sensitive::new("e30=")), Err(KeyTextError::Json)));
}

#[test]
fn a_key_of_an_unknown_version_is_read_and_good_for_nothing() {
    let text = STANDARD.encode(json!({ "version": 3, "destinationEnvironmentUri": URI, "more": [1] }).to_string());
    let key = decode_key(&Sensitive::new(text)).unwrap();
    assert_eq!(key, ActivationKey::Other { version: 3, destination_environment_uri: URI.to_owned() });
    let empty = json!({ "version": 2, "destinationEnvironmentUri": URI });
    assert!(matches!(serde_json::from_value(empty).unwrap(), ActivationKey::Other { version: 2, .. }));
}
