//! What must hold of how peers are told from others.

use std::collections::BTreeMap;

use url::Url;

use super::{
    DemandedProof, GivenProof, PeerConfig, PeerCredential, TokenKeys, TokenRules, TokenSigner, TokenSource,
    check::{Checker, endpoint_rule},
    document::Way,
};

/// Issuer and claims by which tokens are told to be a peer's.
pub(super) type Tokens = BTreeMap<String, Way>;

/// Checks what a peer proves and what is proved to it.
pub(super) fn all(peer: &PeerConfig, way: &Way, seen: &mut Tokens, checker: &mut Checker<'_, '_>) {
    if peer.identity.is_none() && peer.bearer.is_none() {
        checker.say(way, "nothing tells the peer from others: set `identity`, `bearer`, or both");
    }
    if let Some(rules) = &peer.bearer {
        let way = way.to("bearer");
        token(rules, &way, checker);
        if rules.claims.is_empty() {
            checker.say(&way, "an issuer has tokens for many: name in `claims` what this peer's have, as `sub`");
        }
        let claims: Vec<String> = rules.claims.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let key = format!("{} {}", rules.issuer, claims.join(" "));
        checker.once(seen, &key, way, "token of");
    }
    match &peer.credential {
        None => {}
        Some(PeerCredential::Bearer(source)) => self::source(source, &way.to("credential").to("bearer"), checker),
        Some(PeerCredential::SigV4(sign)) => {
            let way = way.to("credential").to("sigV4");
            checker.filled(&way.to("service"), &sign.service);
            checker.filled(&way.to("region"), &sign.region);
            reference(&sign.credential_ref, &way.to("credentialRef"), checker);
        }
    }
    proof(peer, &way.to("proof"), checker);
}

fn proof(peer: &PeerConfig, way: &Way, checker: &mut Checker<'_, '_>) {
    match &peer.proof.demand {
        None => {}
        Some(DemandedProof::AwsSts(rules)) => {
            let way = way.to("demand").to("awsSts");
            if rules.hosts.is_empty() {
                checker.say(&way.to("hosts"), "names at least one host that may be asked");
            }
            for (index, name) in rules.hosts.iter().enumerate() {
                host(name, &way.to("hosts").to(index), checker);
            }
            if !(1..=900).contains(&rules.max_age_seconds) {
                checker.say(&way.to("maxAgeSeconds"), "must be from 1 to 900");
            }
            if let Some(path) = &rules.ca_file {
                checker.filled(&way.to("caFile"), path);
            }
        }
        Some(DemandedProof::Oidc(rules)) => {
            let way = way.to("demand").to("oidc");
            token(&rules.token, &way.to("token"), checker);
            checker.filled(&way.to("accountClaim"), &rules.account_claim);
        }
    }
    let way = way.to("give");
    match &peer.proof.give {
        None => {}
        Some(GivenProof::AwsSts(proof)) => {
            let way = way.to("awsSts");
            host(&proof.host, &way.to("host"), checker);
            checker.filled(&way.to("region"), &proof.region);
            for (project, text) in &proof.credentials {
                reference(text, &way.to("credentials").to(project.as_str()), checker);
            }
        }
        Some(GivenProof::OidcFiles(files)) => {
            for (project, path) in files {
                checker.filled(&way.to("oidcFiles").to(project.as_str()), path);
            }
        }
        Some(GivenProof::OidcSigned(signer)) => {
            let way = way.to("oidcSigned");
            self::signer(signer, &way, checker);
            if signer.subject.is_some() {
                checker.say(&way.to("subject"), "a proof has the account here: leave it out");
            }
        }
    }
}

fn token(rules: &TokenRules, way: &Way, checker: &mut Checker<'_, '_>) {
    checker.filled(&way.to("issuer"), &rules.issuer);
    checker.filled(&way.to("audience"), &rules.audience);
    if rules.algorithms.is_empty() {
        checker.say(&way.to("algorithms"), "names at least one algorithm, as \"ES256\"");
    }
    if rules.leeway_seconds > 300 {
        checker.say(&way.to("leewaySeconds"), "must be at most 300");
    }
    match &rules.keys {
        TokenKeys::File(path) => checker.filled(&way.to("keys").to("file"), path),
        TokenKeys::Url(address) => {
            let way = way.to("keys").to("url");
            endpoint(&address.url, &way.to("url"), checker);
            if let Some(path) = &address.ca_file {
                checker.filled(&way.to("caFile"), path);
            }
        }
    }
}

fn source(source: &TokenSource, way: &Way, checker: &mut Checker<'_, '_>) {
    match source {
        TokenSource::File(path) => checker.filled(&way.to("file"), path),
        TokenSource::ClientCredentials(client) => {
            let way = way.to("clientCredentials");
            endpoint(&client.endpoint, &way.to("endpoint"), checker);
            checker.filled(&way.to("clientId"), &client.client_id);
            reference(&client.secret_ref, &way.to("secretRef"), checker);
        }
        TokenSource::Signed(signer) => self::signer(signer, &way.to("signed"), checker),
    }
}

fn signer(signer: &TokenSigner, way: &Way, checker: &mut Checker<'_, '_>) {
    for (key, text) in [
        ("keyFile", &signer.key_file),
        ("keyId", &signer.key_id),
        ("issuer", &signer.issuer),
        ("audience", &signer.audience),
    ] {
        checker.filled(&way.to(key), text);
    }
}

fn endpoint(text: &str, way: &Way, checker: &mut Checker<'_, '_>) {
    if let Err(message) = endpoint_rule(text) {
        checker.say(way, message);
    }
}

/// A host, or one with its port: what an `https` address may be made of, and nothing that changes where it leads.
fn host(text: &str, way: &Way, checker: &mut Checker<'_, '_>) {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b':');
    let whole = Url::parse(&format!("https://{text}/"))
        .is_ok_and(|url| url.host_str().is_some_and(|host| text.starts_with(host)));
    if text.is_empty() || !text.bytes().all(plain) || !whole || text.ends_with(":443") {
        checker.say(way, format!("`{text}` is no host in small letters, as sts.eu-central-1.amazonaws.com; a port follows a colon where it is not 443"));
    }
}

fn reference(text: &str, way: &Way, checker: &mut Checker<'_, '_>) {
    let good = matches!(text.split_once(':'), Some(("env" | "file", rest)) if !rest.is_empty());
    if !good {
        checker.say(way, "is env:NAME or file:PATH: no secret stands here");
    }
}
