//! Work on channels, the target's and the suite's.

use std::sync::Arc;

use serde_json::json;
use tieline_openapi::coordinator::{ChannelPath, GetMaintenanceEventsResponse, MaintenanceEvent, OperationId as Op};

use super::{LOOK, settling::forget};
use crate::{
    customer::{Wish, WorkPlace},
    peer::{Channels, Heard, State},
    session::{Session, name},
    suite::{Case, Stop, asked, must, violation},
};

pub(super) const CASES: &[Case] = &[
    asked!(
        alone
        "maintaining/shown",
        "Work that the target plans on a channel is shown there, with an id, its start and its end.",
        "GetMaintenanceEvents; MaintenanceEvent",
        shown
    ),
    asked!(
        alone
        "maintaining/told",
        "When the target's list of work changes the peer is notified, at its beginning and at its end.",
        "NotifyMaintenance; Maintenance Coordination",
        told
    ),
    asked!(
        alone
        "maintaining/asks",
        "Before work begins the target reads what the peer plans on the other channels of the interconnect.",
        "GetMaintenanceEvents; Maintenance Coordination",
        asks
    ),
    asked!(
        alone
        "maintaining/never-two",
        "While the peer works on a channel, no work of the target's on another channel of the interconnect goes on.",
        "Maintenance Coordination: never two channels of one interconnect",
        never_two
    ),
    asked!(
        alone
        "maintaining/own-two",
        "The target does not work on two channels of one interconnect at the same time.",
        "Maintenance Coordination: never two channels of one interconnect",
        own_two
    ),
    asked!(
        alone
        "maintaining/emergency",
        "An emergency waits for nobody, and is shown like other work.",
        "Maintenance Coordination: emergency",
        emergency
    ),
    asked!(
        alone
        "maintaining/over",
        "Work that is over is not shown any more.",
        "GetMaintenanceEvents",
        over
    ),
    asked!(
        alone
        "maintaining/not-recreated",
        "While the peer works on a channel, the target makes no feature there.",
        "Recovery: the channel in maintenance",
        not_recreated
    ),
];

/// Channels of one interconnect, and what the suite has on them.
struct Stand {
    channels: Vec<ChannelPath>,
    held: Arc<Channels>,
}

impl Stand {
    async fn set(s: &Session) -> Result<Self, Stop> {
        let held = Arc::clone(s.peer()?.stage().channels());
        s.plot().state().manners.channels = true;
        let names = s.active()?.channels.iter().map(|channel| name(channel.name.as_deref()));
        let channels: Vec<ChannelPath> = names.collect::<Result<_, _>>()?;
        if channels.len() < 2 {
            return Err(Stop::Skipped("the interconnect has one channel".to_owned()));
        }
        // What the suite worked on before is over: the target had better look, but the rule is another.
        let from = s.plot().state().heard.len();
        for at in &channels {
            s.call(Op::NotifyMaintenance, at, &[], &json!({})).await?.read::<serde_json::Value>()?;
        }
        let looked = |state: &State| {
            let read = |at: &ChannelPath| {
                let mut later = state.heard.iter().skip(from);
                later.any(|heard| heard.op == Op::GetMaintenanceEvents && heard.is_of(at) && heard.answer.is_some())
            };
            channels.iter().all(read).then_some(())
        };
        let _ = s.plot().until(s.settings().window, "", looked).await;
        Ok(Self { channels, held })
    }

    /// The target's operator works on a channel while something is looked at; then the work is over, whatever came of it.
    /// As long as the target takes what the suite worked on before for unfinished, it may refuse.
    async fn during<T>(
        &self,
        s: &Session,
        n: usize,
        emergency: bool,
        look: impl AsyncFnOnce() -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let at = place(&self.channels[n]);
        let (began, patience) = (s.elapsed(), s.settings().patience);
        while let Err(stop) = s.wish(Wish::Maintain { at: at.clone(), emergency }).await {
            if matches!(stop, Stop::Skipped(_)) || s.elapsed().saturating_sub(began) >= patience {
                return Err(stop);
            }
            tokio::time::sleep(LOOK).await;
        }
        let looked = look().await;
        let restored = s.wish(Wish::Restore { at }).await;
        let looked = looked?;
        restored.map(|()| looked)
    }
}

fn place(at: &ChannelPath) -> WorkPlace {
    WorkPlace {
        environment: at.environment.to_string(),
        interconnect: at.interconnect.to_string(),
        channel: at.channel.to_string(),
    }
}

/// A channel as the target calls it.
fn theirs(s: &Session, at: &ChannelPath) -> Result<String, Stop> {
    let statics = s.statics()?;
    Ok(at.to_string().replacen(&format!("providers/{}/", statics.own), &format!("providers/{}/", statics.target), 1))
}

async fn events(s: &Session, at: &ChannelPath) -> Result<Vec<MaintenanceEvent>, Stop> {
    Ok(s.get(Op::GetMaintenanceEvents, at).await?.read::<GetMaintenanceEventsResponse>()?.events)
}

/// Waits until the target's work on a channel is as wanted.
async fn until(
    s: &Session,
    at: &ChannelPath,
    what: &str,
    found: impl Fn(&[MaintenanceEvent]) -> bool,
) -> Result<Vec<MaintenanceEvent>, Stop> {
    let (began, patience) = (s.elapsed(), s.settings().patience);
    loop {
        let events = events(s, at).await?;
        if found(&events) {
            return Ok(events);
        }
        must(s.elapsed().saturating_sub(began) < patience, || format!("within {patience:?} {what}"))?;
        tokio::time::sleep(LOOK).await;
    }
}

const UNSHOWN: &str = "the target did not show its work on the channel";

async fn shown(s: &Session) -> Result<(), Stop> {
    let stand = Stand::set(s).await?;
    let at = &stand.channels[0];
    let shown = async || until(s, at, UNSHOWN, |events| !events.is_empty()).await;
    let events = stand.during(s, 0, false, shown).await?;
    let whole = |event: &MaintenanceEvent| {
        let ordered = event.start_time.zip(event.end_time).is_some_and(|(start, end)| start < end);
        event.maintenance_id.as_ref().is_some_and(|id| !id.is_empty()) && ordered
    };
    must(events.iter().all(whole), || "work is shown without an id, or with no end after its start".to_owned())
}

async fn told(s: &Session) -> Result<(), Stop> {
    let stand = Stand::set(s).await?;
    let at = &stand.channels[0];
    let more_than = |n: usize| {
        move |state: &State| {
            let hints = state.of(Op::NotifyMaintenance).filter(|heard| heard.is_of(at)).count();
            (hints > n).then_some(hints)
        }
    };
    let planned = async || s.until("the target did not notify of its work", more_than(0)).await;
    let before = stand.during(s, 0, false, planned).await?;
    s.until("the target did not notify of the end of its work", more_than(before)).await.map(drop)
}

async fn asks(s: &Session) -> Result<(), Stop> {
    let stand = Stand::set(s).await?;
    let from = s.plot().state().heard.len();
    let read = |state: &State| {
        let asked = |at: &ChannelPath| {
            let mut later = state.heard.iter().skip(from);
            later.any(|heard| heard.op == Op::GetMaintenanceEvents && heard.is_of(at))
        };
        stand.channels.iter().skip(1).all(asked).then_some(())
    };
    let why = "the target did not read what the peer plans on the other channels";
    stand.during(s, 0, false, async || s.until(why, read).await).await
}

/// No work is shown on a channel, or stops being shown.
async fn nothing_goes_on(s: &Session, at: &ChannelPath, why: &str) -> Result<(), Stop> {
    tokio::time::sleep(s.settings().window).await;
    until(s, at, why, <[MaintenanceEvent]>::is_empty).await.map(drop)
}

async fn never_two(s: &Session) -> Result<(), Stop> {
    let stand = Stand::set(s).await?;
    stand.held.held().works(&theirs(s, &stand.channels[1])?, true);
    let why = "the target's work went on beside the peer's on another channel";
    let at = place(&stand.channels[0]);
    // Whether it is refused, or given up when the peer was asked, is the target's choice.
    match s.wish(Wish::Maintain { at: at.clone(), emergency: false }).await {
        Ok(()) => {
            let given_up = nothing_goes_on(s, &stand.channels[0], why).await;
            // It may be over already.
            let _ = s.wish(Wish::Restore { at }).await;
            given_up
        }
        Err(Stop::Skipped(why)) => Err(Stop::Skipped(why)),
        Err(Stop::NoAnswer(_) | Stop::Violation(_)) => nothing_goes_on(s, &stand.channels[0], why).await,
    }
}

async fn own_two(s: &Session) -> Result<(), Stop> {
    let stand = Stand::set(s).await?;
    let why = "the target's operator works on two channels at the same time";
    let (first, second) = (&stand.channels[0], &stand.channels[1]);
    let look = async || {
        until(s, first, UNSHOWN, |events| !events.is_empty()).await?;
        let again = s.wish(Wish::Maintain { at: place(second), emergency: false }).await;
        let looked = nothing_goes_on(s, second, why).await;
        if again.is_ok() {
            let _ = s.wish(Wish::Restore { at: place(second) }).await;
        }
        looked
    };
    stand.during(s, 0, false, look).await
}

async fn emergency(s: &Session) -> Result<(), Stop> {
    let stand = Stand::set(s).await?;
    stand.held.held().works(&theirs(s, &stand.channels[1])?, true);
    let shown = async || until(s, &stand.channels[0], UNSHOWN, |events| !events.is_empty()).await;
    stand.during(s, 0, true, shown).await.map(drop)
}

async fn over(s: &Session) -> Result<(), Stop> {
    let stand = Stand::set(s).await?;
    let at = &stand.channels[0];
    let shown = async || until(s, at, UNSHOWN, |events| !events.is_empty()).await;
    stand.during(s, 0, false, shown).await?;
    until(s, at, "work that is over was still shown", <[MaintenanceEvent]>::is_empty).await.map(drop)
}

async fn not_recreated(s: &Session) -> Result<(), Stop> {
    let stand = Stand::set(s).await?;
    let made = s.agreed().await?;
    let statics = s.statics()?;
    let first = {
        let state = s.plot().state();
        let held = state.connections.get(&made.name).ok_or_else(|| violation("the connection went"))?;
        held.features.values().next().and_then(|feature| feature["channel"].as_str().map(str::to_owned))
    };
    let channel = first.unwrap_or_default();
    let path: ChannelPath = name(Some(&channel.replacen(
        &format!("providers/{}/", statics.target),
        &format!("providers/{}/", statics.own),
        1,
    )))?;
    stand.held.held().works(&channel, true);
    let from = s.plot().state().heard.len();
    s.call(Op::NotifyMaintenance, &path, &[], &json!({})).await?.read::<serde_json::Value>()?;
    let read = |state: &State| {
        let mut later = state.heard.iter().skip(from);
        later.any(|h| h.op == Op::GetMaintenanceEvents && h.is_of(&path) && h.answer.is_some()).then_some(())
    };
    s.until("the target did not read the peer's work", read).await?;
    let since = s.elapsed();
    forget(s, &made).await?;
    let again = move |heard: &Heard| heard.op == Op::CreateFeature && heard.body["channel"] == json!(channel);
    s.never(since, "a feature was made on a channel that the peer works on", again).await
}
