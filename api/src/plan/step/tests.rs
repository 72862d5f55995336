//! The step function against a model of two clouds: from any state that can be reached, the loop comes to an end, and it
//! never holds two of anything.

mod model;
mod picked;
mod rehearsal;
mod seen;

use proptest::prelude::*;
use serde_json::json;
use tieline_openapi::{config::EngineConfig, ids::InstanceId, v1::Verb};
use tieline_providers::{CallErrorKind, IdentityKind, fake::ATTACHMENT};
use uuid::Uuid;

use super::*;
use model::{LAG, Luck, Model, Thing, at, luck};

fn identity() -> impl Strategy<Value = IdentityKind> {
    prop_oneof![
        Just(IdentityKind::Named),
        Just(IdentityKind::Slot),
        Just(IdentityKind::Token { lifetime_ms: 3_600_000 }),
        Just(IdentityKind::Tagged),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever goes wrong for a while, and whenever the deletion comes, the end is the same, and nothing is ever doubled.
    #[test]
    fn every_reachable_state_converges(
        identity in identity(),
        luck in prop::collection::vec(luck(), 0..12),
        delete_after in prop::option::of(0usize..120),
        meddled in prop::option::of(0usize..3),
    ) {
        let slots = luck.iter().filter(|l| **l == Luck::Refused(CallErrorKind::SlotTaken)).count();
        prop_assume!(slots <= 2);
        let mut model = Model::new(identity, luck);
        if let Some(steps) = delete_after {
            model.run(steps)?;
        } else {
            prop_assert_eq!(model.run(4_000)?, Some(Step::Settled));
            prop_assert_eq!(model.live().count(), 3);
            if let Some(n) = meddled {
                // Somebody takes one away: it comes back as a new instance.
                let now = model.now_ms;
                model.things.iter_mut().filter(|t| t.gone_ms.is_none()).nth(n).unwrap().gone_ms = Some(now);
                model.now_ms += LAG;
                let ids: Vec<_> = model.instances.iter().map(|i| i.id).collect();
                ids.into_iter().for_each(|id| model.look(id));
                prop_assert_eq!(model.run(4_000)?, Some(Step::Settled));
                prop_assert_eq!(model.live().count(), 3);
            }
        }
        model.wanted.clear();
        prop_assert_eq!(model.run(8_000)?, Some(Step::Gone));
        prop_assert_eq!(model.live().count(), 0);
        prop_assert!(model.instances.is_empty() && model.channels.is_empty());
    }

    /// A blind create whose answer was lost stops for a person, and is never sent again.
    #[test]
    fn blind_stops_for_a_person(lost in prop_oneof![Just(Luck::AnswerLost), Just(Luck::RequestLost)], delete in any::<bool>()) {
        let mut model = Model::new(IdentityKind::Blind, vec![lost]);
        model.run(8)?;
        if delete {
            model.wanted.clear();
        }
        for _ in 0..40 {
            let step = model.step();
            if let Step::Escalate { troubles, .. } = &step {
                prop_assert_eq!(troubles[0].code, TroubleCode::BlindCreate);
            }
            let goes_on = matches!(step, Step::Create { .. } | Step::Gone | Step::Settled);
            prop_assert!(!goes_on, "a blind create must not be sent again");
            model.take(step);
        }
        prop_assert_eq!(model.calls.len(), 1);
    }
}

/// A blind create that stopped, with a person's answer; the model, and what the next steps come to.
fn answered(lost: Luck, answer: impl FnOnce(&Model) -> CreateAnswer) -> (Model, Option<Step>) {
    let mut model = Model::new(IdentityKind::Blind, vec![lost]);
    while !matches!(model.step(), Step::Escalate { .. }) {
        let step = model.step();
        model.take(step);
    }
    let answer = answer(&model);
    model.calls[0].answer = Some(answer);
    let end = model.run(1_000).unwrap();
    (model, end)
}

#[test]
fn a_person_answers_for_a_blind_create() {
    let (model, end) = answered(Luck::RequestLost, |_| CreateAnswer::NotCreated);
    assert_eq!((end, model.live().count()), (Some(Step::Settled), 3));
    assert_eq!(model.calls[1].instance_id, model.calls[0].instance_id, "created again as the same instance");

    let named = |model: &Model| CreateAnswer::Created { cloud_id: model.things[0].cloud_id.clone() };
    let (model, end) = answered(Luck::AnswerLost, named);
    assert_eq!((end, model.live().count()), (Some(Step::Settled), 3));
    assert_eq!(model.calls[0].verdict, Verdict::FoundDone, "what was named is taken, and nothing is made beside it");
}

#[test]
fn what_a_person_names_must_fit() {
    let nothing = |_: &Model| CreateAnswer::Created { cloud_id: "nothing".to_owned() };
    let (model, _) = answered(Luck::AnswerLost, nothing);
    assert_eq!((model.calls.len(), &model.instances[0].cloud_id), (1, &None), "asked again");
    let Step::Escalate { troubles, .. } = model.step() else { panic!("{:?}", model.step()) };
    assert!(troubles[0].message.contains("nothing is not there"), "{}", troubles[0].message);

    let mut model = Model::new(IdentityKind::Blind, vec![Luck::RequestLost]);
    model.run(8).unwrap();
    let (key, fields) = (model.instances[0].key.clone(), json!({ "port": "another", "vlan": 100 }));
    let cloud_id = "other".to_owned();
    let instance = InstanceId(Uuid::nil());
    model.things.push(Thing { cloud_id, instance, key, fields, picked: None, made_ms: 0, gone_ms: None });
    model.calls[0].answer = Some(CreateAnswer::Created { cloud_id: "other".to_owned() });
    model.now_ms += LAG;
    while !matches!(model.step(), Step::Escalate { .. }) {
        let step = model.step();
        assert!(
            !matches!(step, Step::Resolve { .. } | Step::Delete { .. }),
            "somebody else's thing was taken: {step:?}"
        );
        model.take(step);
    }
}

#[test]
fn a_twin_goes_and_nothing_else_does() {
    let mut model = Model::new(IdentityKind::Tagged, Vec::new());
    model.run(1_000).unwrap();
    let of = model.instances.iter().find(|i| i.key.kind == ATTACHMENT).unwrap().clone();
    let made = model.things.iter().find(|t| t.key == of.key).unwrap().clone();
    model.things.push(Thing { cloud_id: "twin".to_owned(), ..made });
    let id = InstanceId(model.draw());
    let twin = Some(Box::new(Twin { of: of.id, parent: None, fields: json!({}) }));
    model.instances.push(Instance { id, cloud_id: Some("twin".to_owned()), seen: Seen::Never, twin, ..of });
    let mut steps = 0;
    while model.step() != Step::Settled {
        let step = model.step();
        if let Step::Delete { instance } = &step {
            assert_eq!(*instance, id);
        }
        model.take(step);
        steps += 1;
        assert!(steps < 1_000, "it goes on for ever: {:?}", model.step());
    }
    let left: Vec<_> = model.live().map(|t| t.cloud_id.as_str()).collect();
    assert!(left.len() == 3 && !left.contains(&"twin"), "{left:?}");
    assert_eq!(model.calls.iter().filter(|c| c.verb == Verb::Delete).count(), 0, "its ledger is retired with it");

    // What is the recorded one after all, or carries no name, is let go untouched.
    let of = model.instances.iter().find(|i| i.key.kind == ATTACHMENT).unwrap().clone();
    let id = InstanceId(model.draw());
    let twin = Some(Box::new(Twin { of: of.id, parent: None, fields: json!({}) }));
    model.instances.push(Instance { id, twin, ..of });
    model.look(id);
    assert_eq!(model.step(), Step::RetireInstance { instance: id });
}

#[test]
fn what_cannot_be_changed_on_a_living_resource_is_not_changed() {
    let mut model = Model::new(IdentityKind::Named, Vec::new());
    model.run(1_000).unwrap();
    let attachment = model.things.iter_mut().find(|t| t.key.kind == ATTACHMENT).unwrap();
    attachment.fields["vlan"] = json!(7);
    let ids: Vec<_> = model.instances.iter().map(|i| i.id).collect();
    ids.into_iter().for_each(|id| model.look(id));
    let Step::Escalate { troubles, .. } = model.step() else { panic!("{:?}", model.step()) };
    assert_eq!(troubles[0].code, TroubleCode::ImmutableDrift);
    assert!(troubles[0].message.contains("/vlan"), "{}", troubles[0].message);

    // What can be changed is.
    let attachment = model.things.iter_mut().find(|t| t.key.kind == ATTACHMENT).unwrap();
    (attachment.fields["vlan"], attachment.fields["mtu"]) = (json!(100), json!(1440));
    let ids: Vec<_> = model.instances.iter().map(|i| i.id).collect();
    ids.into_iter().for_each(|id| model.look(id));
    assert!(matches!(model.step(), Step::Update { .. }), "{:?}", model.step());
}

#[test]
fn a_refusal_that_quotes_a_negotiated_value_walks_the_channel_back() {
    let refused = |message: &str| {
        let mut model = Model::new(IdentityKind::Named, vec![Luck::Refused(CallErrorKind::Invalid)]);
        model.run(4).unwrap();
        let call = model.calls.last_mut().unwrap();
        let Verdict::Refused { detail, .. } = &mut call.verdict else { panic!() };
        detail.message = message.to_owned();
        model.step()
    };
    assert!(matches!(refused("VLAN 100 is not allowed here"), Step::WalkBack { .. }));
    assert!(matches!(refused("subnet 169.254.0.0/29 overlaps"), Step::WalkBack { .. }));
    let Step::Escalate { troubles, .. } = refused("bandwidth 1000 is not sold here") else { panic!() };
    assert_eq!(troubles[0].code, TroubleCode::Invalid);
}

#[test]
fn walk_backs_come_to_an_end() {
    let mut model = Model::new(IdentityKind::Named, vec![Luck::Refused(CallErrorKind::SlotTaken); 8]);
    for _ in 0..400 {
        let step = model.step();
        if let Step::Escalate { troubles, .. } = &step {
            assert_eq!(troubles[0].code, TroubleCode::WalkBacksUsedUp);
            assert_eq!(model.walk_backs.values().sum::<u32>(), 3);
            return;
        }
        model.take(step);
    }
    panic!("it goes on for ever");
}

#[test]
fn what_is_gone_is_looked_at_less_and_less_often() {
    let long = EngineConfig { poll_ms: 5_000, visibility_lag_ms: 120_000, ..model::config() };
    let mut model = Model::new(IdentityKind::Named, Vec::new()).with(long);
    model.run(1_000).unwrap();
    model.wanted.clear();
    let mut waits = Vec::new();
    while model.step() != Step::Gone {
        let (before, step) = (model.now_ms, model.step());
        if let Step::Wait { until, why: Why::Absence(_) } = &step {
            waits.push(millis_between(at(before), *until));
        }
        model.take(step);
    }
    // Two minutes are 24 polls.
    assert!(waits.len() <= 8 && waits[0] > 55_000, "{waits:?}");
}
