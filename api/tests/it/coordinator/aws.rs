//! AWS's side of signatures and proofs, by botocore: what we sign is verified by AWS's own signer, over real HTTP.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
};

use data_encoding::BASE64URL_NOPAD;
use reqwest::{
    Method, StatusCode,
    header::{HeaderMap, HeaderValue},
};
use serde_json::{Value, json};
use tieline_openapi::{
    config::{DemandedProof, GivenProof, PeerCredential, SigV4Config, StsProof, StsRules},
    coordinator::{
        ConnectionPath, GetProvider, ListEnvironments, NoBody, NoQuery, NotifyConnectionStatus,
        NotifyConnectionStatusRequest, Page, ProviderPath, Request,
    },
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::{
    fixture::{Authority, Half, Pair, half, parse},
    logged::Logged,
    pairing,
    proofs::{Prover, issue_for},
};
use crate::{http::fixture::Backing, schemathesis::python};

const KEY: &str = "AKIDEXAMPLEEXAMPLE";
const OTHER: &str = "AKIDANOTHERANOTHER";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const ACCOUNT: &str = "123456789012";

/// AWS, as far as it is needed here.
struct Aws {
    host: String,
    ca: Authority,
    http: reqwest::Client,
    _process: Child,
}

impl Aws {
    /// Starts it, or says why it cannot be had.
    async fn start() -> Option<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python: PathBuf = match python().await {
            Ok(python) => python,
            Err(reason) => {
                println!("SKIPPED: botocore cannot be had here: {reason}");
                return None;
            }
        };
        let ca = Authority::new();
        ca.certify("aws");
        let mut process = Command::new(python)
            .arg(here.join("tests/python/aws_verifier.py"))
            .env("CERTIFICATE", ca.path("aws.pem"))
            .env("KEY", ca.path("aws.key"))
            .env("KEYS", format!("{KEY} {SECRET} {ACCOUNT}\n{OTHER} another 999999999999"))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = lines.next_line().await.unwrap().expect("it says its port");
        let trusted = reqwest::Certificate::from_pem(&std::fs::read(ca.path("ca.pem")).unwrap()).unwrap();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([trusted]).build().unwrap();
        std::fs::write(ca.path("credential"), format!("{KEY}:{SECRET}\n")).unwrap();
        Some(Self { host: format!("127.0.0.1:{port}"), ca, http, _process: process })
    }

    fn reference(&self) -> String {
        format!("file:{}", self.ca.path("credential"))
    }

    /// A proof that botocore signed, for a purpose.
    async fn proof(&self, key: &str, purpose: &str, expires: u32) -> String {
        static NUMBER: AtomicUsize = AtomicUsize::new(10_000_000);
        let nonce = NUMBER.fetch_add(1, Ordering::Relaxed).to_string();
        let wanted =
            json!({ "host": self.host, "key": key, "purpose": format!("{purpose} {nonce}"), "expires": expires });
        let url = format!("https://{}/presign", self.host);
        let answer: Value = self.http.post(url).json(&wanted).send().await.unwrap().json().await.unwrap();
        format!("aws-sts {} {nonce}", BASE64URL_NOPAD.encode(answer["url"].as_str().unwrap().as_bytes()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_takes_the_signature_of_our_calls() {
    let Some(aws) = Aws::start().await else { return };
    let ca = Authority::new();
    ca.certify("north");
    let endpoint = format!("https://{}/coordinator/v1", aws.host);
    let peer = Half { id: "south", endpoint, identity: "{ dnsName = \"south.example\" }".to_owned() };
    let mut config = parse(&half(&ca, "north", "127.0.0.1:0", &peer));
    let peer = &mut config.peers[0];
    peer.ca_file = aws.ca.path("ca.pem");
    peer.credential = Some(PeerCredential::SigV4(SigV4Config {
        service: "execute-api".to_owned(),
        region: "us-west-2".to_owned(),
        credential_ref: aws.reference(),
    }));
    let client = tieline_api::coordinator::client(&config, &config.peers[0]).unwrap();
    let provider: ProviderPath = "providers/north".parse().unwrap();
    let signed = client.call::<GetProvider>(&provider, &NoQuery {}, &NoBody {}).await.unwrap();
    assert_eq!(signed.name.as_deref(), Some("accept host x-amz-date"));
    // What is escaped in an address is signed as it is sent.
    let page = Page { page_size: Some(7), page_token: Some("a+b/c=~ *%41ä&d".to_owned()) };
    client.call::<ListEnvironments>(&provider, &page, &NoBody {}).await.unwrap();
    let connection: ConnectionPath =
        "providers/north/environments/e.1/interconnects/i_1/connections/c~1".parse().unwrap();
    let once = Request { request_id: Some(uuid::Uuid::from_u128(7)) };
    let body = NotifyConnectionStatusRequest {};
    client.call::<NotifyConnectionStatus>(&connection, &once, &body).await.unwrap();
    // A proof is signed with the rest.
    let more = HeaderMap::from_iter([("interconnect-account-proof".parse().unwrap(), HeaderValue::from_static("x"))]);
    let signed = client.with_headers(more).call::<GetProvider>(&provider, &NoQuery {}, &NoBody {}).await.unwrap();
    assert_eq!(signed.name.as_deref(), Some("accept host interconnect-account-proof x-amz-date"));
    // The file is read for every call; another secret signs nothing that is taken.
    std::fs::write(aws.ca.path("credential"), format!("{KEY}:x{SECRET}")).unwrap();
    let error = client.call::<GetProvider>(&provider, &NoQuery {}, &NoBody {}).await.unwrap_err();
    assert_eq!(error.refusal().unwrap().status, 403);
    std::fs::remove_file(aws.ca.path("credential")).unwrap();
    let error = client.call::<GetProvider>(&provider, &NoQuery {}, &NoBody {}).await.unwrap_err();
    assert!(error.to_string().contains("credential"), "{error}");
}

async fn paired(aws: &Aws) -> Pair {
    Pair::start_with([Backing::sqlite(), Backing::sqlite()], |config| {
        let proof = &mut config.peers[0].proof;
        if config.provider.as_str() == "north" {
            proof.demand = Some(DemandedProof::AwsSts(StsRules {
                hosts: vec![aws.host.clone()],
                ca_file: Some(aws.ca.path("ca.pem")),
                max_age_seconds: 300,
            }));
        } else {
            proof.give = Some(GivenProof::AwsSts(StsProof {
                host: aws.host.clone(),
                region: "eu-central-1".to_owned(),
                credentials: [("default".to_owned(), aws.reference())].into(),
            }));
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_says_for_whom_a_connection_is_changed() {
    let Some(aws) = Aws::start().await else { return };
    let logged = Logged::start();
    let pair = paired(&aws).await;
    let hand = Prover::of(&pair);
    let key = issue_for(&pair.north, ACCOUNT).await;
    let name = format!("{}/connections/k1", super::surface::ON);
    let purpose = |operation: &str| format!("north south {operation} {name}");
    let body = json!({ "bandwidthMbps": 5_000, "sourceData": { "encodedKey": key } });
    let at = format!("{}/connections?connectionId=k1", super::surface::ON);
    let create = async |proof: &str| hand.send(Method::POST, &at, Some(&body), &[proof]).await;
    for (key, purpose, said) in [
        (OTHER, purpose("CreateConnection"), "another account"),
        (KEY, purpose("DeleteConnection"), "refuses the proof with 403"),
        (KEY, purpose("CreateConnection").replace("north", "east"), "refuses the proof with 403"),
        (KEY, purpose("CreateConnection").replace("k1", "k2"), "refuses the proof with 403"),
    ] {
        let answer = create(&aws.proof(key, &purpose, 60).await).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text);
        assert!(answer.text.contains(said), "{purpose}: {}", answer.text);
    }
    let proof = aws.proof(KEY, &purpose("CreateConnection"), 60).await;
    let made = create(&proof).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.text);
    let again = create(&proof).await;
    assert!(again.status == StatusCode::FORBIDDEN && again.text.contains("used before"), "{}", again.text);
    // An old one is refused for its age, before anybody is asked; used or not.
    let old = aws.proof(KEY, &purpose("UpdateConnection"), 1).await;
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let update = format!("{name}?updateMask=bandwidthMbps");
    let wanted = json!({ "bandwidthMbps": 10_000 });
    let late = hand.send(Method::PATCH, &update, Some(&wanted), &[&old]).await;
    assert!(late.status == StatusCode::FORBIDDEN && late.text.contains("has ended"), "{}", late.text);
    let proof = aws.proof(KEY, &purpose("UpdateConnection"), 60).await;
    let updated = hand.send(Method::PATCH, &update, Some(&wanted), &[&proof]).await;
    assert_eq!(updated.status, StatusCode::OK, "{}", updated.text);
    let proof = aws.proof(KEY, &purpose("DeleteConnection"), 60).await;
    assert_eq!(hand.send(Method::DELETE, &name, None, &[&proof]).await.status, StatusCode::OK);
    pair.north.until_empty("south").await;
    // South's own: for a connection that north brought a key for, the first proof says whose it is.
    pairing::brought_and_deleted(&pair, &pair.south, &pair.north, &pair.south).await;
    let audit = format!("{:?}", super::surface::audit(&pair).await);
    pair.end().await;
    assert!(audit.contains("CreateConnection:proofRefused"), "{audit}");
    let log = logged.text();
    assert!(log.contains("answered a peer"));
    for secret in [SECRET, KEY, "X-Amz-", "X-Amz-Signature", &proof, "aws-sts "] {
        assert!(!log.contains(secret) && !audit.contains(secret), "`{secret}` is told");
    }
}
