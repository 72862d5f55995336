//! Peers that are told by a bearer token, beside a certificate or in its place: who may what.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tieline_openapi::config::{ClientCredentialsConfig, CoordinatorConfig, PeerCredential, PeerIdentity, TokenSource};

use super::{
    fixture::{Authority, Pair, Side},
    issuer::{Issuer, SECRET, now},
    logged::Logged,
    pairing,
};
use crate::http::fixture::{Backing, Go};

/// South shows a token and no certificate; east shows both.
fn by_tokens(config: &mut CoordinatorConfig, issuer: &Issuer) {
    if config.provider.as_str() == "north" {
        let mut east = config.peers[0].clone();
        east.provider = "east".parse().unwrap();
        east.identity = Some(PeerIdentity::DnsName("east.example".to_owned()));
        east.bearer = Some(issuer.rules("east", "north"));
        config.peers[0].identity = None;
        config.peers[0].bearer = Some(issuer.rules("south", "north"));
        config.peers.push(east);
    } else {
        std::fs::write(issuer.ca.path("client"), SECRET).unwrap();
        config.peers[0].credential =
            Some(PeerCredential::Bearer(TokenSource::ClientCredentials(ClientCredentialsConfig {
                endpoint: format!("https://{}/token", issuer.host),
                ca_file: Some(issuer.ca.path("ca.pem")),
                client_id: "south".to_owned(),
                secret_ref: format!("file:{}", issuer.ca.path("client")),
                scope: None,
                audience: Some("north".to_owned()),
            })));
    }
}

/// A client of north: with the certificate of somebody, or without one.
pub(super) fn client(pair: &Pair, certificate: Option<(&Authority, &str)>) -> reqwest::Client {
    let mut builder = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10));
    if let Some((authority, name)) = certificate {
        let pem = [authority.path(&format!("{name}.pem")), authority.path(&format!("{name}.key"))];
        let pem = pem.map(|path| std::fs::read_to_string(path).unwrap()).join("\n");
        builder = builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
    }
    let ca = reqwest::Certificate::from_pem(&std::fs::read(pair.ca.path("ca.pem")).unwrap()).unwrap();
    builder.tls_certs_only([ca]).build().unwrap()
}

fn at_north(pair: &Pair, path: &str) -> String {
    format!("{}/{path}", pair.south.config.peers[0].endpoint)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_what() {
    let issuer = Issuer::start().await;
    let pair = Pair::start_with([Backing::sqlite(), Backing::sqlite()], |config| by_tokens(config, &issuer)).await;
    let stranger = Authority::new();
    stranger.certify("east");
    pair.ca.certify("east");
    let nobody = client(&pair, None);
    let as_east = client(&pair, Some((&pair.ca, "east")));
    // Of the right authority and nobody's; and of no authority that is known.
    let as_south = client(&pair, Some((&pair.ca, "south")));
    let as_stranger = client(&pair, Some((&stranger, "east")));
    let token = |subject: &str, changes: Value| Some(issuer.token(subject, "north", &changes));
    let plain = |subject: &str| token(subject, json!({}));
    let challenged = "Bearer realm=\"coordinator\"";
    let invalid = "Bearer realm=\"coordinator\", error=\"invalid_token\"";
    // Certificate and token; whom that is, or the challenge. Whoever has no good certificate of a peer is as good as the token.
    let table = [
        ("nothing at all", &nobody, None, Err(challenged)),
        ("a certificate that is nobody's", &as_south, None, Err(challenged)),
        ("a stranger's certificate", &as_stranger, None, Err(challenged)),
        ("a certificate whose peer has a token too", &as_east, None, Err(challenged)),
        ("a token", &nobody, plain("south"), Ok("south")),
        ("a token, and a certificate that is nobody's", &as_south, plain("south"), Ok("south")),
        ("both", &as_east, plain("east"), Ok("east")),
        ("a certificate, and another peer's token", &as_east, plain("south"), Err(invalid)),
        ("a token whose peer has a certificate too", &nobody, plain("east"), Err(invalid)),
        ("that token, and a stranger's certificate", &as_stranger, plain("east"), Err(invalid)),
        ("a token that has ended", &nobody, token("south", json!({"exp": now() - 6})), Err(invalid)),
        ("a token of tomorrow", &nobody, token("south", json!({"nbf": now() + 60})), Err(invalid)),
        ("a token for others", &nobody, token("south", json!({"aud": "west"})), Err(invalid)),
        ("a token of others", &nobody, token("south", json!({"iss": "https://other.example"})), Err(invalid)),
        ("a token for nobody", &nobody, plain("west"), Err(invalid)),
        ("a token without an id", &nobody, token("south", json!({"jti": null})), Err(invalid)),
        ("no token", &nobody, Some("a.b.c".to_owned()), Err(invalid)),
    ];
    for (what, client, token, expected) in table {
        // A token is good once: each look at another's subtree has its own.
        let ask = |path: &str, token: Option<String>| {
            let request = client.get(at_north(&pair, path));
            token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth)
        };
        let first = ask("providers/south/environments", token).answer().await;
        match expected {
            Err(challenge) => {
                assert_eq!(
                    (first.status, first.header("www-authenticate")),
                    (StatusCode::UNAUTHORIZED, challenge),
                    "{what}"
                );
                // What is there is told to nobody, nor is what is not.
                for path in ["elsewhere", "providers/nobody"] {
                    assert_eq!(ask(path, None).answer().await.status, StatusCode::UNAUTHORIZED, "{what}");
                }
            }
            Ok(who) => {
                for id in ["south", "east", "north", "west"] {
                    let path = format!("providers/{id}/environments");
                    let seen = ask(&path, Some(issuer.token(who, "north", &json!({})))).answer().await.status;
                    let expected = if id == who { StatusCode::OK } else { StatusCode::NOT_FOUND };
                    assert_eq!(seen, expected, "{what} at {id}");
                }
            }
        }
    }
    // The keys were asked for a few times, not once a token.
    let (keys, _) = issuer.asked();
    assert!((1..=4).contains(&keys), "{keys}");
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_once_also_after_a_restart() {
    let issuer = Issuer::start().await;
    let pair = Pair::start_with([Backing::sqlite(), Backing::sqlite()], |config| by_tokens(config, &issuer)).await;
    let (client, url) = (client(&pair, None), at_north(&pair, "providers"));
    let token = issuer.token("south", "north", &json!({}));
    let ask = || client.get(&url).bearer_auth(&token).answer();
    assert_eq!(ask().await.status, StatusCode::OK);
    let again = ask().await;
    assert_eq!(again.status, StatusCode::UNAUTHORIZED);
    assert_eq!(again.header("www-authenticate"), "Bearer realm=\"coordinator\", error=\"invalid_token\"");
    assert!(again.text.contains("used before"), "{}", again.text);
    let Pair { north, south, ca } = pair;
    let listen = north.config.listen;
    let (backing, config) = north.end().await;
    let north = Side::start("north", backing, config, tokio::net::TcpListener::bind(listen).await.unwrap()).await;
    assert_eq!(ask().await.status, StatusCode::UNAUTHORIZED);
    let other = client.get(&url).bearer_auth(issuer.token("south", "north", &json!({}))).answer().await;
    assert_eq!(other.status, StatusCode::OK);
    Pair { north, south, ca }.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_installations_pair_by_tokens_and_tell_nobody_a_secret() {
    let logged = Logged::start();
    let issuer = Issuer::start().await;
    let pair = Pair::start_with([Backing::sqlite(), Backing::sqlite()], |config| by_tokens(config, &issuer)).await;
    pairing::brought_and_deleted(&pair, &pair.north, &pair.south, &pair.south).await;
    let (_, granted) = issuer.asked();
    assert!(granted > 5, "every call of south had a token: {granted}");
    let refused =
        client(&pair, None).get(at_north(&pair, "providers")).bearer_auth("eyJhbGciOiJub25lIn0.e30.").answer();
    assert_eq!(refused.await.status, StatusCode::UNAUTHORIZED);
    let audit = super::surface::audit(&pair).await;
    for operation in ["CreateConnection", "CreateFeature", "DeleteConnection"] {
        assert!(audit.contains(&("peer:south".to_owned(), operation.to_owned())), "{operation}: {audit:?}");
    }
    let shown = format!("{:?}", pair.south.peer_client());
    pair.end().await;
    let log = logged.text();
    assert!(log.contains("answered a peer") && log.contains("nobody knows whose it is"), "it was listened to");
    // A token begins with its header, `{"typ":"JWT"` or `{"alg"`.
    for secret in ["eyJ0eXAi", "eyJhbGci", SECRET, "s3cret", "Basic "] {
        assert!(!log.contains(secret), "`{secret}` stands in the log");
        assert!(!format!("{audit:?}{shown}").contains(secret), "`{secret}` is shown");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_issuers_keys_a_call_is_put_off_and_not_refused() {
    let issuer = Issuer::start().await;
    let pair = Pair::start_with([Backing::sqlite(), Backing::sqlite()], |config| {
        by_tokens(config, &issuer);
        for peer in &mut config.peers {
            if let Some(rules) = &mut peer.bearer {
                rules.keys = tieline_openapi::config::TokenKeys::File("/nowhere/keys.json".to_owned());
            }
        }
    })
    .await;
    let token = issuer.token("south", "north", &json!({}));
    let answer =
        client(&pair, None).request(Method::GET, at_north(&pair, "providers")).bearer_auth(&token).answer().await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "10"));
    assert!(!answer.text.contains("nowhere"), "{}", answer.text);
    pair.end().await;
}
