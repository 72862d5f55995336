//! What of the prefix rules the clouds themselves hold, and what nothing holds.
//!
//! An end receives exactly what it accepts where its own cloud filters the session, or where the other end's cloud announces
//! exactly the prefixes that it is told. Where neither does, the intent still says what should arrive, and nothing drops the
//! rest: a plan says so.

use ipnet::IpNet;
use tieline_openapi::v1::{ConnectionIntent, End, Ends};
use tieline_providers::{PrefixControl, Sourced};

use super::{super::carried::announced, Findings, Note};

/// Names every prefix rule of an intent that no cloud holds, with the end that is exposed.
pub fn enforcement(intent: &ConnectionIntent, controls: &Ends<Sourced<PrefixControl>>, findings: &mut Findings) {
    for end in End::BOTH {
        let (receiver, sender) = (controls.get(end), controls.get(end.other()));
        if sender.value.announces {
            // Exactly the list arrives: what it may hold was checked with it.
            continue;
        }
        announced_elsewhere(intent, end.other(), sender, findings);
        if intent.end(end).accepted_prefixes.is_some() && !receiver.value.accepts {
            not_accepted_only(end, receiver, sender, findings);
        }
        if let Some(most) = intent.routing.max_prefixes.filter(|_| !receiver.value.limits) {
            not_limited(end, most, receiver, findings);
        }
    }
}

fn list(nets: &[IpNet]) -> String {
    match nets {
        [] => "nothing".to_owned(),
        some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn announced_elsewhere(intent: &ConnectionIntent, end: End, control: &Sourced<PrefixControl>, findings: &mut Findings) {
    let e = end.as_str();
    findings.info(Note::new(
        "announced-elsewhere",
        &format!("/{e}/advertisedPrefixes"),
        format!("what end {e} announces on this session is not Tieline's to configure"),
        &control.rule,
        format!(
            "see that its cloud announces {} towards this session, and nothing else",
            list(&announced(intent, end))
        ),
    ));
}

fn not_accepted_only(
    end: End,
    receiver: &Sourced<PrefixControl>,
    sender: &Sourced<PrefixControl>,
    findings: &mut Findings,
) {
    let (e, other) = (end.as_str(), end.other().as_str());
    findings.warning(Note::conflict(
        "not-enforced",
        &format!("/{e}/acceptedPrefixes"),
        format!("no cloud holds this list: whatever end {other} announces reaches the routes of end {e}"),
        [(&format!("end {e}"), &receiver.rule), (&format!("end {other}"), &sender.rule)],
        format!(
            "restrict what end {other} announces in its own cloud; routes and firewalls of end {e} decide the rest"
        ),
    ));
}

fn not_limited(end: End, most: u32, receiver: &Sourced<PrefixControl>, findings: &mut Findings) {
    let (e, other) = (end.as_str(), end.other().as_str());
    findings.warning(Note::new(
        "not-enforced",
        "/routing/maxPrefixes",
        format!("end {e} takes as many prefixes as its cloud's own limit allows from end {other}, not only {most}"),
        &receiver.rule,
        format!("restrict what end {other} announces in its own cloud, or leave maxPrefixes null"),
    ));
}
