//! Two requests at once: exactly one of them wins, and nothing is given out twice.

use futures::future::join;
use serde_json::json;
use tieline_openapi::coordinator::{
    Connection, ConnectionPath, Feature, InterconnectState, ListConnectionsResponse, ListFeaturesResponse,
    OperationId as Op,
};

use super::features::{Stage, send};
use crate::{
    propose::Proposal,
    session::{Place, Session},
    suite::{Case, Stop, case, must, violation},
};

pub(super) const CASES: &[Case] = &[
    case!(
        alone
        "races/last-room",
        "Of two connections that want the last room at once, exactly one is made; the other is refused with 409.",
        "CreateConnection: 409; Interconnect.maxBandwidthMbps",
        last_room
    ),
    case!(
        "races/vlan",
        "Of two features that want one VLAN of a channel at once, one is taken at most.",
        "CreateFeature: sequential reservation; 409",
        vlan
    ),
    case!(
        "races/subnet",
        "Of two features that want one subnet of a channel at once, one is taken at most.",
        "CreateFeature: sequential reservation; 409",
        subnet
    ),
    case!(
        "races/same-request",
        "The same request twice at once makes one feature, and is good at least once.",
        "CreateFeature requestId",
        same_request
    ),
    case!(
        "races/delete-and-create",
        "A feature that is created while its connection is deleted leaves nothing.",
        "DeleteConnection implies its features",
        delete_and_create
    ),
    case!(
        "races/two-updates",
        "Of two changes of the bandwidth at once, what is shown in the end is one that was answered with success.",
        "UpdateConnection: 409",
        two_updates
    ),
];

/// Connections that are made at most to fill an interconnect.
const FILLERS: i64 = 20;
/// How many proposals are tried while others are faster.
const TRIES: u16 = 6;

async fn used(s: &Session, place: &Place) -> Result<i64, Stop> {
    let all: Vec<Connection> = s
        .whole(Op::ListConnections, &place.interconnect.0, |page: ListConnectionsResponse| {
            (page.connections, page.next_page_token)
        })
        .await?;
    Ok(all.iter().filter_map(|connection| connection.bandwidth_mbps.map(i64::from)).sum())
}

/// The interconnect that is the fullest, a size, and how many connections of it leave room for one more only.
async fn fullest(s: &Session) -> Result<(&Place, i32, i64), Stop> {
    let mut best: Option<(&Place, i32, i64)> = None;
    for place in s.places().iter().filter(|p| p.interconnect.1.state == Some(InterconnectState::Active)) {
        let Some(most) = place.interconnect.1.max_bandwidth_mbps else { continue };
        let free = i64::from(most) - used(s, place).await?;
        for size in place.sizes() {
            let fillers = free / i64::from(size.max(1)) - 1;
            if fillers >= 0 && best.is_none_or(|(_, _, least)| fillers < least) {
                best = Some((place, size, fillers));
            }
        }
    }
    let small = best.filter(|(_, _, fillers)| *fillers <= FILLERS);
    small.ok_or_else(|| Stop::Skipped(format!("no interconnect is full with {FILLERS} connections")))
}

async fn last_room(s: &Session) -> Result<(), Stop> {
    let (place, size, fillers) = fullest(s).await?;
    let mut keys = Vec::new();
    for _ in 0..fillers + 2 {
        keys.push(s.key(place, size).await?);
    }
    let paths = keys.iter().map(|key| s.path_of(place, key)).collect::<Result<Vec<_>, _>>()?;
    let bodies: Vec<_> = paths.iter().zip(&keys).map(|(path, key)| s.body_of(path, key)).collect();
    let filled = usize::try_from(fillers).unwrap_or_default();
    for (path, body) in paths.iter().zip(&bodies).take(filled) {
        s.create(path, body, None).await?.read::<Connection>()?;
    }
    let (one, two) = (filled, filled + 1);
    let racing = join(s.create(&paths[one], &bodies[one], None), s.create(&paths[two], &bodies[two], None));
    let (first, second) = racing.await;
    let (first, second) = (first?, second?);
    must(first.good() != second.good(), || {
        format!("there was room for one of the two, and the answers are {} and {}", first.status, second.status)
    })?;
    let loser = if first.good() { &second } else { &first };
    loser.refused_with(&[409], "for the room that another was given")?;
    let (used, most) = (used(s, place).await?, i64::from(place.interconnect.1.max_bandwidth_mbps.unwrap_or(i32::MAX)));
    must(used <= most, || format!("{used} Mbit/s of {most} are sold"))
}

/// Two connections propose at once what differs in all but one thing.
async fn clash(s: &Session, what: &str, same: fn(&Proposal, Proposal) -> Proposal) -> Result<(), Stop> {
    let (one, two) = (Stage::set(s).await?, Stage::set(s).await?);
    for n in 0..TRIES {
        let first = one.proposal(0, n)?;
        let second = same(&first, two.proposal(0, n + TRIES)?);
        let (a, b) = (one.feature(s), two.feature(s));
        let bodies = (first.body(&a.to_string()), second.body(&b.to_string()));
        let (x, y) = join(send(s, &a, &bodies.0, None), send(s, &b, &bodies.1, None)).await;
        let (x, y) = (x?, y?);
        must(!(x.good() && y.good()), || format!("one {what} of a channel was given to two connections at once"))?;
        if x.good() || y.good() {
            let loser = if x.good() { &y } else { &x };
            return loser.refused(&format!("with a {what} that another was given"));
        }
    }
    Err(violation(format!("{TRIES} pairs of proposals that follow the guidance were refused")))
}

async fn vlan(s: &Session) -> Result<(), Stop> {
    clash(s, "VLAN", |first, second| Proposal { vlan: first.vlan, ..second }).await
}

async fn subnet(s: &Session) -> Result<(), Stop> {
    clash(s, "subnet", |first, second| Proposal { subnet: first.subnet, ..second }).await
}

async fn same_request(s: &Session) -> Result<(), Stop> {
    let stage = Stage::set(s).await?;
    for n in 0..TRIES {
        let (path, request) = (stage.feature(s), s.uuid().to_string());
        let body = stage.proposal(0, n)?.body(&path.to_string());
        let (x, y) = join(send(s, &path, &body, Some(&request)), send(s, &path, &body, Some(&request))).await;
        let (x, y) = (x?, y?);
        let features: Vec<Feature> = s
            .whole(Op::ListFeatures, &stage.connection, |page: ListFeaturesResponse| {
                (page.features, page.next_page_token)
            })
            .await?;
        // Others may have been faster.
        if features.is_empty() && x.status == 409 && y.status == 409 {
            continue;
        }
        let (x, y, n) = (x.status, y.status, features.len());
        let good = |status: u16| (200..300).contains(&status);
        must(n == 1, || format!("one request, sent twice at once, made {n} features"))?;
        must(good(x) || good(y), || format!("the feature is there, and the answers are {x} and {y}"))?;
        let fine = |status: u16| good(status) || status == 409;
        return must(fine(x) && fine(y), || format!("the answers are {x} and {y}"));
    }
    Err(violation(format!("{TRIES} proposals that follow the guidance were refused with 409")))
}

async fn delete_and_create(s: &Session) -> Result<(), Stop> {
    let stage = Stage::set(s).await?;
    let path = stage.feature(s);
    let body = stage.proposal(0, 0)?.body(&path.to_string());
    let (created, deleted) = join(send(s, &path, &body, None), s.get(Op::DeleteConnection, &stage.connection)).await;
    created?;
    deleted?.read::<serde_json::Value>()?;
    s.get(Op::GetConnection, &stage.connection).await?.refused_with(&[404], "of a connection that was deleted")?;
    s.get(Op::GetFeature, &path).await?.refused_with(&[404], "of a feature whose connection was deleted")
}

async fn two_updates(s: &Session) -> Result<(), Stop> {
    let place = s.place()?;
    let now = place.bandwidth()?;
    let others: Vec<_> = place.sizes().into_iter().filter(|size| *size != now).collect();
    let [one, two, ..] = others.as_slice() else {
        return Err(Stop::Skipped("the interconnect supports fewer than three bandwidths".to_owned()));
    };
    let path: ConnectionPath = s.connection().await?.path;
    let body = |to: &i32| json!({ "bandwidthMbps": to });
    let (one_body, two_body, query) = (body(one), body(two), [("updateMask", "bandwidthMbps")]);
    let racing = join(
        s.call(Op::UpdateConnection, &path, &query, &one_body),
        s.call(Op::UpdateConnection, &path, &query, &two_body),
    );
    let (first, second) = racing.await;
    let (first, second) = (first?, second?);
    for answer in [&first, &second] {
        must(answer.good() || answer.status == 409, || format!("a change was answered with {}", answer.status))?;
    }
    let shown: Connection = s.get(Op::GetConnection, &path).await?.read()?;
    let agreed: Vec<_> =
        [(&first, *one), (&second, *two)].into_iter().filter(|(a, _)| a.good()).map(|(_, to)| to).collect();
    let shown = shown.bandwidth_mbps.unwrap_or_default();
    must(agreed.contains(&shown), || format!("{agreed:?} were answered with success, and {shown} is shown"))
}
