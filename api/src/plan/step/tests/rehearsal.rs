//! What a rehearsal plans, from every kind of start.

use tieline_openapi::v1::Middle;

use super::{
    super::rehearse::{Reached, Rehearsal, Start, rehearse},
    model::{channel, config},
    *,
};

fn planned(model: &Model, wanted: &[NegotiatedChannel]) -> Rehearsal {
    let start = Start {
        wanted,
        channels: &model.channels,
        instances: &model.instances,
        calls: &model.calls,
        wishes: &model.wishes,
        middle: Middle::None,
        rules: &model.book,
        now: at(model.now_ms),
    };
    rehearse(&start, &config())
}

fn kinds(rehearsal: &Rehearsal) -> Vec<(Verb, &str)> {
    rehearsal.calls.iter().map(|call| (call.verb, call.key.kind.as_str())).collect()
}

fn edges(rehearsal: &Rehearsal) -> Vec<&[usize]> {
    rehearsal.calls.iter().map(|call| call.after.as_slice()).collect()
}

const BUILT: [(Verb, &str); 3] =
    [(Verb::Create, "fake.attachment"), (Verb::Create, "fake.peer"), (Verb::Create, "fake.interface")];
const GONE: [(Verb, &str); 3] =
    [(Verb::Delete, "fake.peer"), (Verb::Delete, "fake.interface"), (Verb::Delete, "fake.attachment")];

#[test]
fn it_builds_in_order_and_takes_down_in_reverse() {
    let mut model = Model::new(IdentityKind::Named, Vec::new());
    let up = planned(&model, &model.wanted);
    assert_eq!((kinds(&up), &up.reached), (BUILT.to_vec(), &Reached::Goal));
    assert_eq!(edges(&up), [&[] as &[usize], &[0], &[0]], "the interface awaits what the other cloud picks");

    model.run(1_000).unwrap();
    assert_eq!(kinds(&planned(&model, &model.wanted)), [], "all of it is there");
    let down = planned(&model, &[]);
    assert_eq!((kinds(&down), &down.reached), (GONE.to_vec(), &Reached::Goal));
    assert_eq!(edges(&down), [&[] as &[usize], &[], &[0, 1]]);
}

#[test]
fn what_takes_the_place_of_a_channel_comes_after_all_of_it() {
    let mut model = Model::new(IdentityKind::Named, Vec::new());
    model.run(1_000).unwrap();
    let anew = [channel(1, 101)];
    model.channels.extend(anew.clone());
    let moved = planned(&model, &anew);
    assert_eq!(kinds(&moved), [GONE, BUILT].concat());
    assert_eq!(edges(&moved)[3..], [&[0usize, 1, 2] as &[usize], &[0, 1, 2, 3], &[0, 1, 2, 3]]);
}

#[test]
fn only_what_differs_is_updated() {
    let mut model = Model::new(IdentityKind::Named, Vec::new());
    model.run(1_000).unwrap();
    let mut wanted = model.wanted.clone();
    wanted[0].sides.a.advertised_prefixes = vec!["10.7.0.0/16".parse().unwrap()];
    let change = planned(&model, &wanted);
    assert_eq!((kinds(&change), &change.reached), (vec![(Verb::Update, "fake.peer")], &Reached::Goal));
    let pointers: Vec<_> = change.calls[0].changes.iter().map(|change| change.pointer.as_str()).collect();
    assert_eq!(pointers, ["/advertised"]);

    wanted[0].sides.b.vlan = 7u64.try_into().unwrap();
    let stopped = planned(&model, &wanted);
    let Reached::Person(troubles) = &stopped.reached else { panic!("{:?}", stopped.reached) };
    assert_eq!(troubles[0].code, TroubleCode::ImmutableDrift, "what cannot be changed is not planned");
}

proptest! {
    /// Wherever an undisturbed run is interrupted, what is planned from there is what is left of the whole plan: calls on
    /// their way are neither lost nor doubled.
    #[test]
    fn from_anywhere_it_plans_what_is_left(steps in 0usize..40, delete in any::<bool>()) {
        let mut model = Model::new(IdentityKind::Named, Vec::new());
        if delete {
            model.run(1_000)?;
            model.wanted.clear();
        }
        let whole = planned(&model, &model.wanted);
        for _ in 0..steps {
            let step = model.step();
            model.take(step);
        }
        let left = planned(&model, &model.wanted);
        prop_assert_eq!(&left.reached, &Reached::Goal);
        let calls = if delete { model.live().count() } else { 3 - model.things.len() };
        prop_assert_eq!(kinds(&left), &kinds(&whole)[3 - calls..]);
    }

    /// A call that was sent and not answered yet is taken to have its effect.
    #[test]
    fn an_open_call_is_not_planned_again(n in 0usize..3) {
        // What is drawn first stands last.
        let luck = [vec![Luck::AnswerLost], vec![Luck::Good; n]].concat();
        let mut model = Model::new(IdentityKind::Named, luck);
        for _ in 0..200 {
            if model.calls.last().is_some_and(|call| call.verdict == Verdict::Open) {
                break;
            }
            let step = model.step();
            model.take(step);
        }
        prop_assert_eq!(model.calls.len(), n + 1);
        let left = planned(&model, &model.wanted);
        prop_assert_eq!(left.calls.len(), 2 - n, "{:?}", left);
    }
}
