//! What happens to a connection after it was made: notifications, updates, its deletion.

use serde_json::{Value, json};
use tieline_openapi::coordinator::{Connection, ListConnectionsResponse, OperationId as Op};

use crate::{
    session::Session,
    suite::{Case, Stop, case, must},
};

pub(super) const CASES: &[Case] = &[
    case!(
        "lifecycle/notify",
        "A notification of a connection's status is acknowledged, however often it comes.",
        "NotifyConnectionStatus",
        notify
    ),
    case!(
        "lifecycle/notify-unknown",
        "A notification of a connection that does not exist is refused with 404.",
        "NotifyConnectionStatus",
        notify_unknown
    ),
    case!(
        "lifecycle/notify-proves-nothing",
        "A notification alone verifies nothing.",
        "Verification handshake",
        notify_proves_nothing
    ),
    case!(
        "lifecycle/update",
        "The bandwidth changes to another supported size, and is shown.",
        "UpdateConnection",
        update
    ),
    case!(
        "lifecycle/update-unsupported",
        "A change to a size that is not supported is refused, and changes nothing.",
        "UpdateConnection",
        update_unsupported
    ),
    case!(
        "lifecycle/update-mask",
        "Only bandwidthMbps can be changed: another field in updateMask is refused.",
        "UpdateConnection updateMask",
        update_mask
    ),
    case!(
        "lifecycle/delete",
        "A deletion cannot be declined: the connection is gone, and no longer listed.",
        "DeleteConnection",
        delete
    ),
    case!(
        "lifecycle/delete-unknown",
        "Deleting what does not exist breaks nothing.",
        "DeleteConnection",
        delete_unknown
    ),
    case!(
        "lifecycle/late-create",
        "A request to create that arrives after the deletion makes nothing.",
        "Recovery: an old create arrives after its parent was deleted",
        late_create
    ),
];

async fn notify(s: &Session) -> Result<(), Stop> {
    let made = s.connection().await?;
    for _ in 0..3 {
        s.call(Op::NotifyConnectionStatus, &made.path, &[], &json!({})).await?.read::<Value>()?;
    }
    Ok(())
}

async fn notify_unknown(s: &Session) -> Result<(), Stop> {
    let path = s.place()?.interconnect.0.connection(s.uuid().into());
    let answer = s.call(Op::NotifyConnectionStatus, &path, &[], &json!({})).await?;
    answer.refused_with(&[404], "for a connection that does not exist")
}

async fn notify_proves_nothing(s: &Session) -> Result<(), Stop> {
    let made = s.connection().await?;
    s.call(Op::NotifyConnectionStatus, &made.path, &[], &json!({})).await?.read::<Value>()?;
    let shown: Connection = s.get(Op::GetConnection, &made.path).await?.read()?;
    let verified = shown.verification_state == Some(tieline_openapi::coordinator::VerificationState::Verified);
    must(!verified, || "a connection without a feature is verified after a notification".to_owned())
}

async fn update(s: &Session) -> Result<(), Stop> {
    let made = s.connection().await?;
    let place = s.place()?;
    let (had, room) = (made.key.read.connection_size_mbps, place.interconnect.1.max_bandwidth_mbps.unwrap_or(i32::MAX));
    let Some(other) = place.sizes().into_iter().filter(|size| *size != had && *size <= room).min() else {
        return Err(Stop::Skipped("the interconnect supports one size only".to_owned()));
    };
    let (body, query) = (json!({ "bandwidthMbps": other }), [("updateMask", "bandwidthMbps")]);
    s.call(Op::UpdateConnection, &made.path, &query, &body).await?.read::<Connection>()?;
    let shown: Connection = s.get(Op::GetConnection, &made.path).await?.read()?;
    must(shown.bandwidth_mbps == Some(other), || {
        format!("{:?} Mbit/s are shown after a change to {other}", shown.bandwidth_mbps)
    })
}

async fn update_unsupported(s: &Session) -> Result<(), Stop> {
    let made = s.connection().await?;
    let sizes = s.place()?.sizes();
    let strange = (1..).find(|size| !sizes.contains(size)).unwrap_or(1);
    let (body, query) = (json!({ "bandwidthMbps": strange }), [("updateMask", "bandwidthMbps")]);
    s.call(Op::UpdateConnection, &made.path, &query, &body).await?.refused("to a size that is not supported")?;
    let (shown, had): (Connection, _) =
        (s.get(Op::GetConnection, &made.path).await?.read()?, made.key.read.connection_size_mbps);
    must(shown.bandwidth_mbps == Some(had), || {
        format!("{:?} Mbit/s are shown after a refused change", shown.bandwidth_mbps)
    })
}

async fn update_mask(s: &Session) -> Result<(), Stop> {
    let made = s.connection().await?;
    let (body, query) =
        (json!({ "verificationState": "VERIFICATION_STATE_VERIFIED" }), [("updateMask", "verificationState")]);
    s.call(Op::UpdateConnection, &made.path, &query, &body).await?.refused("with verificationState in updateMask")
}

async fn delete(s: &Session) -> Result<(), Stop> {
    let made = s.connection().await?;
    s.get(Op::DeleteConnection, &made.path).await?.read::<Value>()?;
    s.get(Op::GetConnection, &made.path).await?.refused_with(&[404], "for a deleted connection")?;
    let into = |page: ListConnectionsResponse| (page.connections, page.next_page_token);
    let listed = s.whole(Op::ListConnections, &made.path.parent(), into).await?;
    let name = made.path.to_string();
    let there = listed.iter().any(|connection| connection.name.as_deref() == Some(&name));
    must(!there, || format!("{name} is listed after its deletion"))
}

async fn delete_unknown(s: &Session) -> Result<(), Stop> {
    let path = s.place()?.interconnect.0.connection(s.uuid().into());
    let answer = s.get(Op::DeleteConnection, &path).await?;
    must(answer.good() || answer.status == 404, || format!("it was answered with {}", answer.status))
}

async fn late_create(s: &Session) -> Result<(), Stop> {
    let made = s.connection().await?;
    s.get(Op::DeleteConnection, &made.path).await?.read::<Value>()?;
    // Whatever the answer is: nothing may be there.
    s.create(&made.path, &made.body, Some(&s.uuid().to_string())).await?.refused("of what was deleted")?;
    s.get(Op::GetConnection, &made.path).await?.refused_with(&[404], "for a deleted connection")
}
