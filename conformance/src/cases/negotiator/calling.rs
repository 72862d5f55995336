//! Whom the target calls, and as whom.

use tieline_openapi::coordinator::OperationId as Op;

use crate::{
    peer::{Guise, Peer, State},
    session::Session,
    suite::{Case, Stop, asked, must, violation},
};

pub(super) const CASES: &[Case] = &[
    asked!(
        "calling/certificate",
        "The target shows who it is: every request comes over a connection with its client certificate.",
        "Security policy: authentication on every endpoint",
        certificate
    ),
    asked!(
        "calling/own-name",
        "The first id of every path is the target's own provider id.",
        "providers/{provider}; authorization",
        own_name
    ),
    asked!("calling/json", "A body says that it is JSON.", "RFC 9110 section 8.3", json_bodies),
    asked!(
        alone
        "calling/old-tls",
        "The target calls nobody who speaks nothing newer than TLS 1.2.",
        "Security policy: TLS 1.3 or better",
        old_tls
    ),
    asked!(
        alone
        "calling/stranger",
        "The target calls nobody whose certificate no authority issued that it trusts.",
        "Security policy: authentication",
        stranger
    ),
];

async fn certificate(s: &Session) -> Result<(), Stop> {
    if !s.peer()?.asks_certificates() {
        return Err(Stop::Skipped("without trust anchors no client certificate can be checked: --ca".to_owned()));
    }
    s.agreed().await?;
    let state = s.plot().state();
    let bare = state.heard.iter().find(|heard| !heard.certified);
    must(bare.is_none(), || {
        format!("{} came without a client certificate", bare.map_or("a request", |heard| heard.op.as_str()))
    })
}

async fn own_name(s: &Session) -> Result<(), Stop> {
    s.bring().await?;
    let target = s.statics()?.target.clone();
    let rightly = |state: &State| {
        let other = state.heard.iter().find(|heard| heard.id("provider") != target);
        let whole = state.connections.values().any(|held| !held.features.is_empty());
        other.map(|heard| Err(heard.path.clone())).or(whole.then_some(Ok(())))
    };
    let found = s.until("the target proposed no feature", rightly).await?;
    found.map_err(|path| violation(format!("the target is {target}, and asks for {path}")))
}

async fn json_bodies(s: &Session) -> Result<(), Stop> {
    s.agreed().await?;
    let state = s.plot().state();
    let other = state.heard.iter().find(|heard| !heard.says_json);
    must(other.is_none(), || {
        let op = other.map_or("a request", |heard| heard.op.as_str());
        format!("the body of {op} has another Content-Type than application/json")
    })
}

/// Takes the disguise off, however the case ends.
struct Disguise<'p>(&'p Peer);

impl Drop for Disguise<'_> {
    fn drop(&mut self) {
        self.0.disguise(Guise::Peer);
    }
}

/// In this guise nobody may ask the suite anything.
async fn avoided(s: &Session, guise: Guise, why: &str) -> Result<(), Stop> {
    let peer = s.peer()?;
    let disguise = Disguise(peer);
    peer.disguise(guise);
    s.bring().await?;
    let tried = async {
        while peer.callers().0 == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(s.settings().patience, tried).await.is_err() {
        return Err(Stop::NoAnswer("the target has not tried to call the suite".to_owned()));
    }
    tokio::time::sleep(s.settings().window).await;
    let (_, requests) = peer.callers();
    drop(disguise);
    must(requests == 0, || why.to_owned())?;
    let asked = s.plot().state().of(Op::ConfirmActivationKey).any(|heard| !heard.was_good());
    must(!asked, || why.to_owned())
}

async fn old_tls(s: &Session) -> Result<(), Stop> {
    avoided(s, Guise::OldTls, "requests came over TLS 1.2").await
}

async fn stranger(s: &Session) -> Result<(), Stop> {
    avoided(s, Guise::Stranger, "requests came to a server whose certificate no authority has issued").await
}
