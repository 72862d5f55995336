//! The key that the customer brought, before anything is made from it.

use std::time::Duration;

use tieline_openapi::coordinator::{ActivationKey, GetActivationKeyParametersResponse, OperationId as Op};

use crate::{
    customer::{Brought, Wish},
    peer::{Act, Heard, Pair, sealed},
    session::Session,
    suite::{Case, Stop, asked, must, violation},
};

pub(super) const CASES: &[Case] = &[
    asked!(
        "confirming/first",
        "ConfirmActivationKey comes before CreateConnection, with the key as the customer brought it.",
        "ConfirmActivationKey; establishing intent",
        first
    ),
    asked!(
        "confirming/local-first",
        "The target has its own half of the connection before it asks for the other.",
        "CreateConnection; Connection attribute 2",
        local_first
    ),
    asked!(
        "confirming/not-valid",
        "A key that the peer does not call valid makes no connection.",
        "ConfirmActivationKeyResponse.keyValid",
        not_valid
    ),
    asked!(
        "confirming/nothing-said",
        "A key of which the peer does not say that it is valid makes no connection.",
        "ConfirmActivationKeyResponse.keyValid",
        nothing_said
    ),
    asked!(
        "confirming/refused",
        "A key whose confirmation is refused makes no connection.",
        "ConfirmActivationKey; establishing intent",
        refused
    ),
    asked!(
        "confirming/other-account",
        "A key for another account is not used.",
        "ActivationKey.destinationAccountId",
        other_account
    ),
    asked!(
        "confirming/unknown-environment",
        "A key for an environment that the two providers do not share is not used.",
        "ActivationKey.destinationEnvironmentUri",
        unknown_environment
    ),
    asked!(
        "confirming/unsupported-size",
        "A key with a bandwidth that the environment does not support makes no connection.",
        "Environment.supportedConnectionSizeMbps",
        unsupported_size
    ),
    asked!(
        "confirming/brought-twice",
        "A key that is brought twice makes one connection.",
        "Activation keys are used once",
        brought_twice
    ),
    asked!(
        "confirming/encrypted",
        "A key of version 2, encrypted to the target's public key, is used like one of version 1.",
        "ActivationKeyV2; GetActivationKeyParameters",
        encrypted
    ),
    asked!(
        "confirming/encrypted-to-another",
        "A key of version 2 that is encrypted to another public key is not used.",
        "ActivationKeyV2; GetActivationKeyParameters",
        encrypted_to_another
    ),
];

/// Brings a key that the target must not use, and sees that nothing is made from it. Whether it asks before it refuses is its
/// own affair.
async fn unused(s: &Session, brought: Brought, why: &str) -> Result<(), Stop> {
    s.peer()?;
    // That the customer is refused at once is the best that can happen.
    if let Err(stop @ Stop::Skipped(_)) = s.wish(Wish::Bring(brought)).await {
        return Err(stop);
    }
    s.never(Duration::ZERO, why, |heard| heard.op == Op::CreateConnection).await
}

async fn first(s: &Session) -> Result<(), Stop> {
    let brought = s.bring().await?;
    s.nth(Op::CreateConnection, 0).await?;
    let state = s.plot().state();
    let kinds = [Op::ConfirmActivationKey, Op::CreateConnection];
    let first = state.heard.iter().find(|heard| kinds.contains(&heard.op));
    let Some(confirm) = first.filter(|heard| heard.op == Op::ConfirmActivationKey) else {
        return Err(violation("CreateConnection came without ConfirmActivationKey before it"));
    };
    must(confirm.id("environment") == brought.environment, || {
        format!("the key was for {} and was confirmed in {}", brought.environment, confirm.id("environment"))
    })?;
    let text = confirm.body["encodedKey"].as_str();
    must(text.is_some_and(|text| text == brought.key.expose()), || {
        "encodedKey is not the text that the customer brought".to_owned()
    })
}

async fn local_first(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    s.plot().spoil(1, Act::Hold, |heard| heard.op == Op::CreateConnection);
    s.bring().await?;
    let asked = s.nth(Op::CreateConnection, 0).await?;
    let name = asked.connection().ok_or_else(|| violation("CreateConnection came without connectionId"))?;
    let half = s.half(&name).await;
    s.plot().open();
    must(half?.is_some(), || format!("while it asks for {name}, the target has no such connection itself"))
}

async fn unconfirmed(s: &Session, why: &str) -> Result<(), Stop> {
    s.bring().await?;
    s.nth(Op::ConfirmActivationKey, 0).await?;
    s.never(Duration::ZERO, why, |heard| heard.op == Op::CreateConnection).await
}

async fn not_valid(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    s.plot().spoil(100, Act::Twist(|body| body["keyValid"] = false.into()), confirms);
    unconfirmed(s, "CreateConnection came though ConfirmActivationKey said that the key is not valid").await
}

async fn nothing_said(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    s.plot().spoil(100, Act::Twist(|body| *body = serde_json::json!({})), confirms);
    unconfirmed(s, "CreateConnection came though ConfirmActivationKey did not say that the key is valid").await
}

async fn refused(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    s.plot().spoil(100, Act::Refuse(400), confirms);
    unconfirmed(s, "CreateConnection came though ConfirmActivationKey was refused").await
}

fn confirms(heard: &Heard) -> bool {
    heard.op == Op::ConfirmActivationKey
}

async fn other_account(s: &Session) -> Result<(), Stop> {
    let place = s.active()?;
    let brought = s.issue(place, place.bandwidth()?, "somebody-elses-account")?;
    unused(s, brought, "a connection was asked for with a key for somebody else's account").await
}

async fn unknown_environment(s: &Session) -> Result<(), Stop> {
    let uri = format!("{}/environments/nowhere", s.provider());
    let brought = s.issue_in("nowhere", &uri, s.active()?.bandwidth()?, &s.settings().account)?;
    unused(s, brought, "a connection was asked for with a key for an environment that nobody shares").await
}

async fn unsupported_size(s: &Session) -> Result<(), Stop> {
    let place = s.active()?;
    let sizes = place.sizes();
    let odd = (1..).map(|n| n * 7).find(|size| !sizes.contains(size)).unwrap_or(7);
    let brought = s.issue(place, odd, &s.settings().account)?;
    unused(s, brought, "a connection was asked for with a bandwidth that the environment does not support").await
}

async fn brought_twice(s: &Session) -> Result<(), Stop> {
    let brought = s.bring().await?;
    let made = s.negotiated(brought.connection, 0).await?;
    // It may be refused at once.
    if let Err(stop @ Stop::Skipped(_)) = s.wish(Wish::Bring(brought)).await {
        return Err(stop);
    }
    tokio::time::sleep(s.settings().window).await;
    let state = s.plot().state();
    let another = state.of(Op::CreateConnection).any(|heard| heard.connection().as_ref() != Some(&made.name));
    must(!another, || "a key that was brought twice made a second connection".to_owned())
}

async fn encrypted(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    let place = s.active()?;
    let path = &place.environment.0;
    let parameters: GetActivationKeyParametersResponse = s.get(Op::GetActivationKeyParameters, path).await?.read()?;
    if !parameters.supported_versions.contains(&2) {
        return Err(Stop::Skipped("the target takes no keys of version 2".to_owned()));
    }
    let contents = s.contents(place.bandwidth()?, &s.settings().account)?;
    let text = ActivationKey::V2(sealed(&contents, &path.to_string(), &parameters)?).encode();
    let brought = s.issued(contents, text, path.environment.as_str());
    s.wish(Wish::Bring(brought.clone())).await?;
    s.negotiated(brought.connection, 0).await?;
    let state = s.plot().state();
    let same = state.of(Op::ConfirmActivationKey).all(|heard| heard.body["encodedKey"] == brought.key.expose());
    must(same, || "encodedKey is not the text that the customer brought".to_owned())
}

async fn encrypted_to_another(s: &Session) -> Result<(), Stop> {
    let place = s.active()?;
    let path = &place.environment.0;
    let contents = s.contents(place.bandwidth()?, &s.settings().account)?;
    let parameters = Pair::make().await?.parameters()?;
    let text = ActivationKey::V2(sealed(&contents, &path.to_string(), &parameters)?).encode();
    let brought = s.issued(contents, text, path.environment.as_str());
    unused(s, brought, "a connection was asked for with a key that the target cannot read").await
}
