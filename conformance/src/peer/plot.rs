//! One case's part of what the suite plays: its keys and connections, what goes wrong on purpose, and what the target asked.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tieline_openapi::coordinator::{FeatureGuidance, KeyContents, OperationId as Op, Sensitive};
use tokio::sync::watch;

use super::{heard::Heard, stage::Statics};
use crate::suite::{Stop, violation};

/// How long an answer is held back at most: a case that ends early must not leave the target waiting.
const HELD: Duration = Duration::from_secs(60);

/// An answer of the suite.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Said {
    pub status: u16,
    pub body: Value,
}

impl Said {
    pub(crate) fn good(body: Value) -> Self {
        Self { status: 200, body }
    }

    pub(crate) fn no(status: u16, why: &str) -> Self {
        Self { status, body: json!({ "title": why, "status": status }) }
    }
}

/// What goes wrong with a request.
pub(crate) enum Act {
    /// It is carried out, and the answer is lost.
    Lose,
    /// It is not carried out, and the answer is lost: the request did not arrive.
    Vanish,
    /// It is carried out, and answered so much later.
    Late(Duration),
    /// It is refused.
    Refuse(u16),
    /// It waits until the case opens the gate, and is carried out then.
    Hold,
    /// It is carried out, and another answer given.
    Twist(fn(&mut Value)),
}

type When = Box<dyn Fn(&Heard) -> bool + Send>;
type Guide = Box<dyn Fn(&str, &mut FeatureGuidance) + Send>;

struct Rule {
    when: When,
    left: usize,
    act: Arc<Act>,
}

/// A key that the suite's customer carries to the target.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub text: Sensitive,
    pub contents: KeyContents,
    pub environment: String,
    /// Whether ConfirmActivationKey calls it good.
    pub valid: bool,
    pub spent: bool,
}

/// A connection at the suite's side.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    pub uuid: String,
    pub bandwidth_mbps: i64,
    pub features: BTreeMap<String, Value>,
    /// Whether its features count as finished.
    pub finished: bool,
    pub kind: Value,
}

/// How the suite behaves as a peer, where implementations may differ.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manners {
    /// A peer of the published revision: it knows no requestId and no sourceData.
    pub published: bool,
    /// Items on a page; as many as there are if absent.
    pub page_size: Option<usize>,
    /// Fields and values of a revision that is yet to come stand in every answer.
    pub adorned: bool,
    /// Whether it provisions in the caller's place.
    pub takes_deferral: bool,
    /// What comes to channels is this case's, MACsec and maintenance.
    pub channels: bool,
}

#[derive(Default)]
pub(crate) struct State {
    pub heard: Vec<Heard>,
    pub keys: Vec<Key>,
    pub connections: BTreeMap<String, Held>,
    pub tombstones: BTreeSet<String>,
    pub replays: BTreeMap<String, (String, Said)>,
    pub manners: Manners,
    pub guide: Option<Guide>,
    script: VecDeque<Rule>,
}

impl State {
    /// The requests of one kind.
    pub(crate) fn of(&self, op: Op) -> impl Iterator<Item = &Heard> {
        self.heard.iter().filter(move |heard| heard.op == op)
    }

    fn knows(&self, id: &str) -> bool {
        let names = self.connections.keys().chain(&self.tombstones);
        self.keys.iter().any(|key| key.contents.shared_connection_uuid.to_string() == id)
            || names.into_iter().any(|name| name.rsplit('/').next() == Some(id))
    }
}

/// One case's part.
pub(crate) struct Plot {
    state: Mutex<State>,
    news: watch::Sender<()>,
    gate: watch::Sender<bool>,
}

impl Default for Plot {
    fn default() -> Self {
        Self { state: Mutex::default(), news: watch::Sender::new(()), gate: watch::Sender::new(false) }
    }
}

impl Plot {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next `times` requests for which this holds go wrong so.
    pub(crate) fn spoil(&self, times: usize, act: Act, when: impl Fn(&Heard) -> bool + Send + 'static) {
        self.state().script.push_back(Rule { when: Box::new(when), left: times, act: Arc::new(act) });
    }

    /// Nothing goes wrong from now on.
    pub(crate) fn calm(&self) {
        self.state().script.clear();
        self.gate.send_replace(true);
    }

    /// Opens the gate for what is held.
    pub(crate) fn open(&self) {
        self.gate.send_replace(true);
    }

    /// Changes the guidance of channels, which are told by their last id.
    pub(crate) fn guide(&self, guide: impl Fn(&str, &mut FeatureGuidance) + Send + 'static) {
        self.state().guide = Some(Box::new(guide));
    }

    /// Whether a request is about something of this case.
    pub(crate) fn claims(&self, heard: &Heard) -> bool {
        let state = self.state();
        let connection = Some(heard.id("connection")).filter(|id| !id.is_empty()).or(heard.asked("connectionId"));
        let source = heard.body["sourceData"]["sourceConnectionName"].as_str().and_then(|name| name.rsplit('/').next());
        let text = brought(&heard.body);
        connection.is_some_and(|id| state.knows(id))
            || source.is_some_and(|id| state.knows(id))
            || text.is_some_and(|text| state.keys.iter().any(|key| key.text.expose() == text))
            || (state.manners.channels && !heard.id("channel").is_empty())
    }

    /// Answers a request; `None` is an answer that is lost.
    pub(crate) async fn hear(&self, heard: Heard, statics: &Statics) -> Option<Said> {
        let (at, act) = {
            let mut state = self.state();
            let act = state.script.iter_mut().find(|rule| rule.left > 0 && (rule.when)(&heard)).map(|rule| {
                rule.left -= 1;
                Arc::clone(&rule.act)
            });
            state.heard.push(heard);
            (state.heard.len() - 1, act)
        };
        self.news.send_replace(());
        let said = self.carry_out(at, act.as_deref(), statics).await;
        if let Some(heard) = self.state().heard.get_mut(at) {
            heard.answer = said.clone().map(|said| (said.status, said.body));
        }
        self.news.send_replace(());
        said
    }

    async fn carry_out(&self, at: usize, act: Option<&Act>, statics: &Statics) -> Option<Said> {
        let act = match act {
            Some(Act::Refuse(status)) => return Some(Said::no(*status, "the case wants it so")),
            Some(Act::Vanish) => return None,
            Some(Act::Hold) => {
                let mut gate = self.gate.subscribe();
                // Whoever is held too long is answered all the same.
                let _ = tokio::time::timeout(HELD, gate.wait_for(|open| *open)).await;
                None
            }
            act => act,
        };
        let mut said = self.state().serve(at, statics);
        match act {
            Some(Act::Lose) => return None,
            Some(Act::Late(by)) => tokio::time::sleep(*by).await,
            Some(Act::Twist(twist)) => twist(&mut said.body),
            Some(Act::Refuse(_) | Act::Vanish | Act::Hold) | None => {}
        }
        Some(said)
    }

    /// Waits until something is to be found in what is there, and gives it back.
    pub(crate) async fn until<T>(
        &self,
        patience: Duration,
        what: &str,
        find: impl Fn(&State) -> Option<T>,
    ) -> Result<T, Stop> {
        let mut news = self.news.subscribe();
        let found = async {
            loop {
                if let Some(found) = find(&self.state()) {
                    return found;
                }
                // The sender is in `self`.
                let _ = news.changed().await;
            }
        };
        let waited = tokio::time::timeout(patience, found).await;
        waited.map_err(|_| violation(format!("within {patience:?} {what}")))
    }

    /// Sees that nothing wrong came since a time, nor comes for so long from now on: what came while the case did something else
    /// is not passed over.
    pub(crate) async fn never(
        &self,
        since: Duration,
        window: Duration,
        what: &str,
        wrong: impl Fn(&Heard) -> bool,
    ) -> Result<(), Stop> {
        let came = |state: &State| state.heard.iter().any(|heard| heard.at >= since && wrong(heard)).then_some(());
        let come = self.until(window, "", came).await;
        if come.is_ok() { Err(violation(what.to_owned())) } else { Ok(()) }
    }
}

/// The text of the key in a body, in any of the places where it may stand.
pub(super) fn brought(body: &Value) -> Option<&str> {
    let places = [&body["sourceData"]["encodedKey"], &body["encodedKey"], &body["activationKey"]];
    places.into_iter().find_map(Value::as_str)
}
