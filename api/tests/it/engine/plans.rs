//! A plan is what an undisturbed run does: the ledger of the real engine against the steps of the real plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::AtomicI64},
};

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};
use tieline_api::{
    app::{App, Caller, Vault},
    engine::clock::{ChaChaRandom, Random},
    events::Hints,
    secrets::Sealer,
    topology::Topology,
};
use tieline_openapi::{
    config::Config,
    v1::{OperationState, Plan, PlanRequest, PlanStep, Scope, Severity, Verb},
};
use tieline_providers::{
    IdentityKind, Rules,
    fake::{FakeRules, FakeSide, Timing},
};

use super::{
    sched::SimClock,
    sim::{ACCOUNTS, Database, Sim, config, parse, project},
    store::Row,
};

const RUNS: u32 = 24;

/// Four channels on devices of their own; which end's cloud picks the addresses, and what stands between, vary.
fn topology(middle: &str, picking: usize) -> Topology {
    let provider = |n: usize| if n == picking { "fake-picking" } else { "fake-taking" };
    let port = |channel: usize, n: usize| json!({ "accountId": ACCOUNTS[n], "portId": format!("port-{channel}{n}"), "device": format!("dev-{channel}") });
    let account = |n: usize| {
        json!({ "id": ACCOUNTS[n], "provider": provider(n), "externalId": ACCOUNTS[n],
                "credentialRef": "anonymous", "region": "r" })
    };
    let point = |n: usize| {
        json!({ "id": format!("point-{n}"), "accountId": ACCOUNTS[n], "site": format!("site-{n}"),
                "type": "CLOUD_ROUTER", "cloudId": format!("router-{n}"), "asn": 64512 + n })
    };
    let sites: Vec<_> = (0..2)
        .map(|n| json!({ "provider": provider(n), "site": format!("site-{n}"), "displayName": n.to_string() }))
        .collect();
    let channels: Vec<_> =
        (1..=4).map(|n| json!({ "id": format!("ch{n}"), "a": port(n, 0), "b": port(n, 1) })).collect();
    let read = |value: Value| serde_json::from_value(value);
    let config = Config {
        engine: config(),
        accounts: vec![serde_json::from_value(account(0)).unwrap(), serde_json::from_value(account(1)).unwrap()],
        environments: vec![
            serde_json::from_value(json!({ "id": "env", "kind": "DIRECT", "sites": sites,
                "bandwidthsMbps": [100, 1000, 10000], "middle": middle }))
            .unwrap(),
        ],
        interconnects: vec![
            serde_json::from_value(json!({ "id": "ic", "environmentId": "env", "maxBandwidthMbps": 100_000,
                "channels": channels }))
            .unwrap(),
        ],
        attach_points: (0..2).map(|n| read(point(n)).unwrap()).collect(),
        ..Config::default()
    };
    let rules = |side| Arc::new(FakeRules { side, identity: IdentityKind::Named }) as Arc<dyn Rules>;
    let rules = [("fake-picking", rules(FakeSide::Picking)), ("fake-taking", rules(FakeSide::Taking))];
    Topology::new(&config, rules.into_iter().map(|(name, rules)| (parse(name), rules)).collect())
}

/// What somebody asks for, one after the other.
#[derive(Debug, Clone)]
struct Story {
    middle: &'static str,
    picking: usize,
    intent: Value,
    patches: Vec<Value>,
    /// Milliseconds that each request has before the next comes; none: until it is done.
    pauses: Vec<Option<u64>>,
}

fn wanted() -> impl Strategy<Value = Value> {
    (
        prop::option::weighted(0.3, 100u16..4000),
        prop::option::of(prop_oneof![Just(1440u16), Just(1500)]),
        any::<Option<bool>>(),
    )
        .prop_map(|(vlan, mtu, bfd)| json!({ "vlanId": vlan, "mtuBytes": mtu, "bfd": bfd }))
}

fn prefixes(n: usize) -> impl Strategy<Value = Vec<String>> {
    prop::collection::btree_set(0u8..20, 1..4)
        .prop_map(move |thirds| thirds.into_iter().map(|third| format!("10.{n}.{third}.0/24")).collect::<Vec<_>>())
}

fn patch() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop::sample::select(vec![100, 1000, 10_000]).prop_map(|mbps| json!({ "bandwidthMbps": mbps })),
        prefixes(0).prop_map(|nets| json!({ "a": { "advertisedPrefixes": nets } })),
        prefixes(1).prop_map(|nets| json!({ "b": { "advertisedPrefixes": nets } })),
        prefixes(0).prop_map(|nets| json!({ "b": { "acceptedPrefixes": nets } })),
        wanted().prop_map(|wanted| json!({ "wanted": wanted })),
        prop::sample::select(vec!["SINGLE", "DUAL", "QUAD"]).prop_map(|class| json!({ "redundancy": class })),
        Just(json!({ "description": "another" })),
        Just(json!({})),
    ]
}

fn story() -> impl Strategy<Value = Story> {
    let class = prop::sample::select(vec!["SINGLE", "DUAL", "QUAD"]);
    let middle = prop::sample::select(vec!["NONE", "L2"]);
    let pause = prop::option::weighted(0.3, 1u64..8_000);
    let patches = prop::collection::vec(patch(), 0..4);
    (middle, 0usize..2, class, wanted(), prefixes(0), prefixes(1), patches, prop::collection::vec(pause, 8)).prop_map(
        |(middle, picking, class, wanted, a, b, patches, pauses)| Story {
            middle,
            picking,
            intent: json!({
                "name": "link", "environmentId": "env", "bandwidthMbps": 1000, "redundancy": class, "wanted": wanted,
                "a": { "attachPointId": "point-0", "advertisedPrefixes": a },
                "b": { "attachPointId": "point-1", "advertisedPrefixes": b },
            }),
            patches,
            pauses,
        },
    )
}

struct Stage {
    sim: Sim,
    app: App,
    caller: Caller,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn new(seed: u64, story: &Story) -> Self {
        let random: Arc<dyn Random> = Arc::new(ChaChaRandom::from_seed(seed));
        let folder = tempfile::tempdir().unwrap();
        let (sealer, _) = Sealer::from_key_file_or_new(&folder.path().join("key"), &*random).unwrap();
        let vault = Vault::new(Arc::new(sealer), Arc::clone(&random));
        let timing = Timing { lag_ms: 500, settle_ms: 700 };
        let topology = topology(story.middle, story.picking);
        let mut sim = Sim::over(seed, topology, Arc::new(vault.clone()), timing, Database::Memory, |_, _| None).await;
        sim.start();
        let clock = SimClock { sched: Arc::clone(&sim.sched), replica: 99, stepped_ms: Arc::new(AtomicI64::new(0)) };
        let app = App {
            store: sim.store.clone(),
            topology: Arc::clone(&sim.topology),
            vault,
            clock: Arc::new(clock),
            random,
            hints: Hints::new(),
            coordination: None,
            choosing: Default::default(),
        };
        let caller = Caller {
            principal: "token:t".to_owned(),
            project: project(),
            scope: Some(Scope::Admin),
            request_id: "r".to_owned(),
            action: "createPlan",
        };
        Self { sim, app, caller, _folder: folder }
    }

    async fn plan(&self, request: Value) -> Plan {
        let request: PlanRequest = serde_json::from_value(request).unwrap();
        self.app.save_plan(&self.caller, &request, None).await.unwrap().plan
    }

    /// Runs what was applied, without a disturbance, until it is done, or for so long as the next request leaves it.
    async fn run(&mut self, id: tieline_openapi::ids::ConnectionId, pause: Option<u64>) -> bool {
        let until = pause.map(|ms| self.sim.sched.now_ms() + ms);
        let finished = self
            .sim
            .run_until(400_000, async |sim| {
                let gone = sim.record(id).await.is_none();
                let done = gone || sim.last_operation(id).await.state == OperationState::Succeeded;
                done || until.is_some_and(|until| sim.sched.now_ms() >= until)
            })
            .await;
        assert!(finished, "it neither ends nor pauses: {:#?}", self.sim.last_operation(id).await);
        self.sim.last_operation(id).await.state == OperationState::Succeeded
    }
}

fn tuple(step: &PlanStep) -> (Verb, String, &'static str, String) {
    (
        step.verb,
        step.resource_type.clone(),
        step.end.as_str(),
        step.channel_id.as_ref().map(ToString::to_string).unwrap_or_default(),
    )
}

fn told(row: &Row) -> (Verb, String, &'static str, String) {
    (row.verb, row.key.kind.to_string(), row.key.end.as_str(), row.channel.clone())
}

/// Every row is a step, one to one, and comes after what its step comes after.
fn follow(plan: &Plan, rows: &[Row], whole: bool) -> BTreeMap<usize, Row> {
    let mut matched: BTreeMap<usize, Row> = BTreeMap::new();
    for row in rows {
        let step = plan.steps.iter().position(|step| tuple(step) == told(row));
        let step = step.filter(|n| !matched.contains_key(n));
        let step = step.unwrap_or_else(|| panic!("{row:?} is no step of {plan:#?}\nafter {matched:#?}"));
        for earlier in &plan.steps[step].after {
            let before = usize::try_from(*earlier).unwrap() - 1;
            assert!(matched.contains_key(&before), "{row:?} came before step {earlier} of {plan:#?}");
        }
        matched.insert(step, row.clone());
    }
    if whole {
        let missing: Vec<_> = (0..plan.steps.len()).filter(|n| !matched.contains_key(n)).collect();
        assert!(missing.is_empty(), "steps {missing:?} were not done: {plan:#?}\n{rows:#?}");
    }
    matched
}

/// What was made holds what the plan said.
fn compare_fields(sim: &Sim, plan: &Plan, matched: &BTreeMap<usize, Row>) {
    for (n, row) in matched {
        let step = &plan.steps[*n];
        if step.verb == Verb::Delete {
            continue;
        }
        let made = sim.ours().into_iter().find(|object| object.made_for == Some(row.instance)).unwrap();
        for field in &step.fields {
            if field.sensitive {
                assert_eq!(field.after, None);
                continue;
            }
            let is = made.fields.pointer(&field.pointer).cloned().unwrap_or(Value::Null);
            let told = field.after.clone().unwrap_or(Value::Null);
            let holds = told["oneOf"].as_array().map_or(told == is, |choices| choices.contains(&is));
            assert!(holds, "{} is {is}, planned was {told}: {step:#?}", field.pointer);
        }
    }
}

async fn one_story(seed: u64, story: &Story) -> usize {
    let mut stage = Stage::new(seed, story).await;
    let mut asked = vec![json!({ "intent": story.intent })];
    asked.extend(story.patches.iter().map(|patch| json!({ "patch": patch })));
    asked.push(json!({ "delete": true }));
    let (mut id, mut followed) = (None, 0);
    let last = asked.len() - 1;
    for (n, mut request) in asked.into_iter().enumerate() {
        if n > 0 {
            request["connectionId"] = json!(id);
        }
        let plan = stage.plan(request).await;
        if !plan.applicable {
            if n == 0 {
                return followed;
            }
            continue;
        }
        let warned: Vec<_> = plan.findings.iter().filter(|f| f.severity == Severity::Warning).collect();
        assert!(warned.iter().all(|f| f.code != "plan-incomplete"), "{warned:?}");
        let from = stage.sim.rows.log().len();
        let accepted = stage.app.apply(&stage.caller, plan.id.unwrap(), None).await.unwrap();
        id = Some(accepted.connection);
        let pause = if n == last { None } else { story.pauses[n] };
        let done = stage.run(accepted.connection, pause).await;
        let rows = stage.sim.rows.log().split_off(from);
        let matched = follow(&plan, &rows, done);
        if done {
            compare_fields(&stage.sim, &plan, &matched);
        }
        followed += matched.len();
    }
    stage.sim.verify_clean_slate();
    followed
}

#[tokio::test]
async fn an_undisturbed_run_writes_the_ledger_that_the_plan_told() {
    let seed: Option<u32> = std::env::var("TIELINE_PLAN_SEED").ok().map(|seed| seed.parse().unwrap());
    let mut runner = TestRunner::deterministic();
    let (mut followed, mut middles) = (0, BTreeSet::new());
    for n in 0..RUNS {
        let story = story().new_tree(&mut runner).unwrap().current();
        if seed.is_some_and(|seed| seed != n) {
            continue;
        }
        println!("TIELINE_PLAN_SEED={n}: {story:?}");
        middles.insert((story.middle, story.picking));
        followed += one_story(u64::from(n), &story).await;
    }
    assert!(seed.is_some() || (followed > 300 && middles.len() == 4), "{followed} rows over {middles:?}");
}
