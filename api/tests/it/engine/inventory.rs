//! Settled connections are observed by lists, and too much that is missing holds creates: what is asked of the clouds and
//! written to the store is counted.

use tieline_api::{
    engine::clock::Random,
    plan::step::Seen,
    store::{Acceptance, Audit, Page, Store, Watch},
};
use tieline_openapi::{
    ids::ConnectionId,
    v1::{BgpState, ConnectionState, Issue, IssueState, OperationState, Verb},
};
use tieline_providers::{
    IdentityKind,
    fake::{INTERFACE, PEER, Timing},
};

use super::sim::{ACCOUNTS, Database, Sim, config, project};

/// Connections of two channels each, of which a list of the taking side has two pages.
const MORE_THAN_A_PAGE: usize = 55;

/// Connections of two channels each that are settled, with their ids.
async fn settled(replicas: u32, connections: usize) -> (Sim, Vec<ConnectionId>) {
    let mut sim =
        Sim::new(3, IdentityKind::Slot, Timing { lag_ms: 0, settle_ms: 0 }, Database::Memory, |_, _| None).await;
    let mut ids = Vec::new();
    for n in 0..connections {
        ids.push(sim.create(&format!("link-{n}"), "DUAL").await);
    }
    for _ in 0..replicas {
        sim.start();
    }
    let up = sim
        .run_until(120_000, async |sim| {
            for id in &ids {
                if sim.last_operation(*id).await.state != OperationState::Succeeded {
                    return false;
                }
            }
            true
        })
        .await;
    assert!(up, "{:#?}", sim.last_operation(ids[0]).await);
    // Past the lag in which a list need not show what is new, and a whole round after it.
    run_for(&mut sim, config().visibility_lag_ms + 2 * config().settled_poll_ms).await;
    sim.trace.clear();
    (sim, ids)
}

async fn run_for(sim: &mut Sim, ms: u64) {
    sim.run_until(ms, async |_| false).await;
}

/// How often this was passed since the trace was cleared: a call to a cloud, or a call of the store.
fn count(sim: &Sim, what: &str) -> usize {
    sim.trace.iter().filter(|line| line.split_whitespace().nth(2) == Some(what)).count()
}

async fn state(sim: &Sim, id: ConnectionId) -> Option<ConnectionState> {
    sim.record(id).await.and_then(|record| record.status.state)
}

async fn account_issues(sim: &Sim) -> Vec<Issue> {
    let page = Page { limit: 100, after: None };
    let mut issues = sim.store.issues(&project(), page).await.unwrap();
    issues.retain(|issue| issue.about[0].starts_with("/v1/accounts/"));
    issues
}

/// Interfaces of the taking side, by cloud id.
fn interfaces(sim: &Sim) -> Vec<String> {
    sim.ours().into_iter().filter(|o| o.kind == INTERFACE).map(|o| o.cloud_id).collect()
}

#[tokio::test]
async fn settled_connections_cost_lists_and_nothing_of_their_own() {
    for replicas in [1, 2] {
        let (mut sim, ids) = settled(replicas, MORE_THAN_A_PAGE).await;
        let rounds = 10;
        run_for(&mut sim, rounds * config().settled_poll_ms).await;
        let (reads, lists) = (count(&sim, "read"), count(&sim, "list"));
        assert_eq!(reads, 0, "{replicas} replicas: a settled connection was read by itself");
        // The attachments are a page, and so are the peers of the one router; the interfaces, in every second round, are two.
        let rounds = rounds as usize;
        assert!((rounds..=rounds + 1).contains(&(lists / 3)), "{replicas} replicas: {lists} pages in {rounds} rounds");
        assert_eq!(count(&sim, "socket"), 0, "nothing was changed");
        let unchanged = ["write_fenced", "write_sightings", "write_unclaimed", "ledger_facts"].map(|w| count(&sim, w));
        assert_eq!(unchanged, [0; 4], "{replicas} replicas: a pass without change writes only due times");
        assert!(count(&sim, "end_round") <= 2 * (rounds + 1));
        // A pass of its own comes far less often than a round.
        let (passes, releases) = (count(&sim, "load"), count(&sim, "release_unchanged"));
        assert!(passes <= 2 * ids.len() && releases <= passes, "{passes} passes, {releases} releases");
        // And still every observation is as young as the last list.
        let old = super::sched::at(sim.sched.now_ms() - 3 * config().settled_poll_ms);
        for instance in sim.record(ids[0]).await.unwrap().instances {
            assert!(matches!(&instance.seen, Seen::Present { at, .. } if *at >= old), "{:?}", instance.seen);
        }
    }
}

/// Times of the last list of each account, in milliseconds before now.
async fn listed_ago(sim: &Sim) -> [u64; 2] {
    let mut ago = [0; 2];
    for (ago, account) in ago.iter_mut().zip(ACCOUNTS) {
        *ago = sim.store.account_watch(&super::sim::parse(account)).await.unwrap().tried_ms_ago.unwrap();
    }
    ago
}

#[tokio::test]
async fn what_one_end_shows_has_the_other_listed_in_its_turn() {
    let (mut sim, ids) = settled(1, MORE_THAN_A_PAGE).await;
    let (every, slack) = (config().settled_poll_ms, 300);
    let down = async |sim: &Sim, kind| {
        let record = sim.record(ids[7]).await.unwrap();
        let of = |i: &&tieline_api::plan::step::Instance| i.key.kind == kind;
        record.instances.iter().filter(of).all(|i| i.present().and_then(|o| o.bgp) != Some(BgpState::Established))
    };
    let record = sim.record(ids[7]).await.unwrap();
    // The dear lists have just been taken, and would not be again for two turns.
    assert!(sim.run_until(3 * every, async |sim| listed_ago(sim).await[1] < slack).await);
    for channel in &record.negotiated.channels {
        sim.world.cut(u64::from(channel.sides.a.vlan), true);
    }
    let seen = sim.run_until(every + every / 4 + slack, async |sim| down(sim, INTERFACE).await).await;
    assert!(seen && down(&sim, PEER).await, "{:?}", listed_ago(&sim).await);
}

#[tokio::test]
async fn an_end_that_cannot_be_listed_speaks_for_nobody() {
    let (mut sim, _) = settled(1, MORE_THAN_A_PAGE).await;
    sim.world.set_wrong_credential(ACCOUNTS[0], true);
    run_for(&mut sim, 2 * config().settled_poll_ms).await;
    sim.trace.clear();
    run_for(&mut sim, 10 * config().settled_poll_ms).await;
    // Two pages in every round, and none of the other account.
    let lists = count(&sim, "list");
    assert!((18..=22).contains(&lists), "{lists} pages");
}

#[tokio::test]
async fn what_a_list_shows_reaches_the_connection_without_a_read() {
    let (mut sim, ids) = settled(1, 30).await;
    let record = sim.record(ids[7]).await.unwrap();
    let vlans: Vec<u64> = record.negotiated.channels.iter().map(|c| u64::from(c.sides.a.vlan)).collect();
    let alike = async |sim: &Sim| {
        let mut n = 0;
        for id in &ids {
            let record = sim.record(*id).await.unwrap();
            let over = |c: &tieline_api::plan::negotiate::NegotiatedChannel| vlans.contains(&u64::from(c.sides.a.vlan));
            n += usize::from(record.negotiated.channels.iter().any(over));
        }
        n
    };
    for vlan in &vlans {
        sim.world.cut(*vlan, true);
    }
    let degraded = sim.run_until(10_000, async |sim| state(sim, ids[7]).await == Some(ConnectionState::Degraded)).await;
    assert!(degraded, "the sessions are down");
    assert_eq!(count(&sim, "read"), 0);
    let down = sim.record(ids[7]).await.unwrap();
    assert!(down.instances.iter().filter_map(|i| i.present()?.bgp).all(|bgp| bgp != BgpState::Established));
    for vlan in &vlans {
        sim.world.cut(*vlan, false);
    }
    assert!(sim.run_until(10_000, async |sim| state(sim, ids[7]).await == Some(ConnectionState::Active)).await);
    assert_eq!((count(&sim, "read"), count(&sim, "socket")), (0, 0));
    // One pass a change and side, of the connections that share the VLANs, and no other is touched.
    let passes = count(&sim, "write_fenced");
    assert!(passes <= 4 * alike(&sim).await, "{passes} passes wrote");
}

#[tokio::test]
async fn drift_and_loss_are_mended_by_reads_of_that_connection_alone() {
    let (mut sim, ids) = settled(1, 30).await;
    let of = async |sim: &Sim, id| {
        let record = sim.record(id).await.unwrap();
        record
            .instances
            .into_iter()
            .filter(|i| i.key.kind == INTERFACE)
            .map(|i| i.cloud_id.unwrap())
            .collect::<Vec<_>>()
    };
    let (drifted, lost) = (of(&sim, ids[1]).await[0].clone(), of(&sim, ids[2]).await[0].clone());
    sim.world.meddle(&drifted, "mtu", 9000.into());
    sim.world.vanish(&lost);
    let mended = sim
        .run_until(60_000, async |sim| {
            let mtu = sim.ours().into_iter().find(|o| o.cloud_id == drifted).map(|o| o.fields["mtu"].clone());
            mtu != Some(9000.into())
                && interfaces(sim).len() == 60
                && state(sim, ids[2]).await == Some(ConnectionState::Active)
        })
        .await;
    assert!(mended, "{:#?}", sim.record(ids[2]).await);
    let wire: Vec<_> = sim.world.wire().split_off(180).into_iter().map(|w| w.verb).collect();
    assert_eq!(wire.iter().filter(|v| **v == Verb::Update).count(), 1);
    assert_eq!(wire.iter().filter(|v| **v == Verb::Create).count(), 1);
    assert_eq!(wire.len(), 2);
    assert!(account_issues(&sim).await.is_empty(), "one is not too many");
    // Settled again: from now on by lists.
    run_for(&mut sim, 2 * config().settled_poll_ms).await;
    sim.trace.clear();
    run_for(&mut sim, 5 * config().settled_poll_ms).await;
    assert_eq!(count(&sim, "read"), 0);
}

/// Eight of sixteen interfaces are gone from one account.
async fn half_gone(replicas: u32) -> (Sim, Vec<ConnectionId>, Vec<String>) {
    let (mut sim, ids) = settled(replicas, 8).await;
    let gone: Vec<_> = interfaces(&sim).into_iter().step_by(2).collect();
    for id in &gone {
        sim.world.vanish(id);
    }
    let before = sim.world.wire().len();
    let held = sim.run_until(3 * config().settled_poll_ms, async |sim| !account_issues(sim).await.is_empty()).await;
    assert!(held, "an issue at once, not when a create is refused");
    assert_eq!(sim.world.wire().len(), before);
    (sim, ids, gone)
}

fn ours_by_kind(sim: &Sim) -> usize {
    interfaces(sim).len()
}

#[tokio::test]
async fn a_hold_outlives_every_replica_and_ends_when_things_show_again() {
    let (mut sim, ids, gone) = half_gone(2).await;
    let issue = account_issues(&sim).await.remove(0);
    assert_eq!((issue.code.as_str(), issue.about[0].as_str()), ("creates-held", "/v1/accounts/acct-b"));
    assert!(issue.title.contains("8 of 16"), "{}", issue.title);
    let before = sim.world.wire().len();
    run_for(&mut sim, 60_000).await;
    for replica in sim.running() {
        sim.crash(replica).await;
    }
    sim.start();
    // A new connection has to wait as well.
    let new = sim.create("new", "SINGLE").await;
    run_for(&mut sim, 60_000).await;
    assert!(sim.world.wire()[before..].iter().all(|w| w.account != "acct-b"), "nothing is made in the account");
    assert_eq!(state(&sim, new).await, Some(ConnectionState::ActionRequired));
    assert_eq!(ours_by_kind(&sim), 8);

    for id in &gone {
        sim.world.reappear(id);
    }
    let well = sim
        .run_until(60_000, async |sim| {
            let mut all = true;
            for id in ids.iter().chain([&new]) {
                all &= state(sim, *id).await == Some(ConnectionState::Active);
            }
            all
        })
        .await;
    assert!(well, "{:#?}", sim.record(ids[0]).await.map(|r| r.status));
    assert_eq!(ours_by_kind(&sim), 17, "nothing was made twice");
    let issue = account_issues(&sim).await.remove(0);
    assert_eq!(issue.state, IssueState::Resolved);
    assert!(!sim.store.account_watch(&super::sim::parse("acct-b")).await.unwrap().held);
}

#[tokio::test]
async fn a_person_can_say_that_what_is_missing_is_meant_to_be_gone() {
    let (mut sim, ids, gone) = half_gone(2).await;
    run_for(&mut sim, 30_000).await;
    assert_eq!(ours_by_kind(&sim), 8);
    let now = sim.sched.now();
    let acceptance = Acceptance {
        account_id: super::sim::parse("acct-b"),
        code: "creates-held".to_owned(),
        subject: "/v1/accounts/acct-b".to_owned(),
        event: tieline_api::store::NewEvent {
            project: project(),
            time: now,
            kind: "account.absenceAccepted".to_owned(),
            subject: "/v1/accounts/acct-b".to_owned(),
            generation: None,
            cause: "test".to_owned(),
            data: serde_json::Value::Null,
        },
        audit: Audit {
            principal: "token:t".to_owned(),
            request_id: sim.random.uuid_v7(now).to_string(),
            action: "acknowledgeIssue".to_owned(),
            subject: "/v1/issues/x".to_owned(),
            at: now,
        },
        at: now,
    };
    sim.store.accept_absence(acceptance).await.unwrap();
    let made = sim
        .run_until(120_000, async |sim| {
            let mut all = true;
            for id in &ids {
                all &= state(sim, *id).await == Some(ConnectionState::Active);
            }
            all && ours_by_kind(sim) == 16
        })
        .await;
    assert!(made, "{:#?}", sim.record(ids[0]).await.map(|r| r.status));
    assert!(interfaces(&sim).iter().all(|id| !gone.contains(id)));
    assert_eq!(account_issues(&sim).await.len(), 1, "it was not held again");
    assert_eq!(sim.most_live(), 1);
}

#[tokio::test]
async fn an_account_that_cannot_be_listed_is_an_issue_and_changes_no_connection() {
    let (mut sim, ids) = settled(1, 4).await;
    sim.world.set_wrong_credential(ACCOUNTS[1], true);
    let told = sim.run_until(60_000, async |sim| !account_issues(sim).await.is_empty()).await;
    assert!(told);
    let issue = account_issues(&sim).await.remove(0);
    assert_eq!(issue.code, "account-unobserved");
    assert_eq!(count(&sim, "read"), 0, "what cannot be listed is not read one by one");
    assert_eq!(state(&sim, ids[0]).await, Some(ConnectionState::Active), "as it was seen last");
    sim.world.set_wrong_credential(ACCOUNTS[1], false);
    let over = async |sim: &Sim| account_issues(sim).await.iter().all(|issue| issue.state == IssueState::Resolved);
    assert!(sim.run_until(60_000, over).await);
}

#[tokio::test]
async fn a_connection_is_watched_by_lists_once_it_is_settled() {
    let (sim, ids) = settled(1, 1).await;
    let expected = sim.store.expected(&super::sim::parse(ACCOUNTS[0]), None, 100).await.unwrap();
    assert_eq!(expected.len(), 4, "two attachments and two peers");
    assert!(expected.iter().all(|e| e.connection_id == ids[0] && e.watch == Watch::List));
}
