//! Channels that are due: what our device is to hold, a step of the protocol, one call to the peer, and what its answer
//! changes. And what operators see and wish of channels.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::StreamExt as _;
use jiff::SignedDuration;
use secrecy::SecretString;
use tieline_openapi::{
    client::coordinator::CallVerdict,
    coordinator::{
        CreateMacSecKey, CreateMacSecKeyQuery, DeleteMacSecKey, GetMaintenanceEvents, ListMacSecKeys,
        MacSecKeyRotationRequest, NoBody, NoQuery, NotifyMaintenance, NotifyMaintenanceRequest,
        RequestMacSecKeyRotation, ResourceId, Sensitive, Timestamp,
    },
    ids::{IssueId, ProjectId},
    v1::{Issue, IssueState, Severity},
};
use tieline_providers::network::DeviceError;
use uuid::Uuid;

use super::{Coordination, CoordinationError, Peer, answers::Call, call::NoAnswer, keeper::Doing};
use crate::{
    app::bootstrap,
    events::Topic,
    plan::coordinate::{
        Book, ChannelAsk, ChannelDraw, ChannelPlace, ChannelReply, ChannelRequest, ChannelRow, Draw, KeyTroubleKind,
        Local, MacSecTerms, Refusal, RotationReason, SeenKey, WindowRequest, wire,
    },
    store::{Audit, StoreError},
};

/// Channels of one peer that are worked on at a time.
const AT_A_TIME: usize = 4;
/// Channels that are taken from the store at once.
const BATCH: u32 = 64;
/// How long nobody looks, at most: hints may be lost.
const LONGEST_MS: u64 = 1_000;
/// How often is looked for what a person should look at.
const WATCH: Duration = Duration::from_secs(60);
/// The code of an issue about keys.
const TROUBLE: &str = "macsec-rotation-stuck";
/// The code of an issue about a device that says nothing of its keys.
const SILENT: &str = "macsec-device-silent";
/// How long a device may say nothing: what was known of its keys stands until then.
const SILENCE: SignedDuration = SignedDuration::from_mins(5);

/// Channels whose device could not be asked, each since when, and why at the last try.
pub(super) type Silent = Mutex<BTreeMap<(ResourceId, ChannelPlace), (Timestamp, String)>>;

/// A channel, as an operator sees it.
#[derive(Debug, Clone)]
pub struct SharedChannel {
    /// With whom.
    pub peer: ResourceId,
    /// Its row.
    pub row: ChannelRow,
    /// Its MACsec, if it is run.
    pub macsec: Option<MacSecTerms>,
    /// Whether nothing of ours carries on it: every feature is drained, or not configured.
    pub drained: bool,
}

fn no_such_channel(at: &ChannelPlace) -> CoordinationError {
    CoordinationError::NoChannel(format!("{}/{}/{}", at.environment, at.interconnect, at.channel))
}

impl Coordination {
    /// Answers a call about a channel by the protocol, with the key that it is about as it is then.
    ///
    /// # Errors
    /// The store's.
    pub async fn answer_channel(
        &self,
        call: &Call,
        ask: &ChannelAsk,
    ) -> Result<(ChannelReply, Option<SeenKey>), CoordinationError> {
        let about = match ask {
            ChannelAsk::CreateKey { key, .. } | ChannelAsk::DeleteKey { key, .. } => Some(key.clone()),
            ChannelAsk::Events { .. }
            | ChannelAsk::NotifyMaintenance { .. }
            | ChannelAsk::Keys { .. }
            | ChannelAsk::RequestRotation { .. } => None,
        };
        let answered = self.act(&call.peer, call.request_id, Some(&call.audit), |book, now| {
            let request = ChannelRequest { ask: ask.clone(), request_id: call.request_id, digest: call.digest };
            let served = book.serve_channel(&request, now);
            let there = about.as_ref().and_then(|id| book.shown_key(ask.at(), id));
            Doing::new((served.reply, there), served.changes)
        });
        answered.await
    }

    /// Works on a peer's channels as long as it is polled.
    pub(super) async fn drive_channels(&self, peer: &Arc<Peer>) {
        let mut due = self.parts.hints.subscribe(Topic::Due);
        let (mut watched, mut failures) = (None, 0u32);
        loop {
            let now = self.parts.clock.monotonic();
            let watch = watched.is_none_or(|at| now.saturating_sub(at) >= WATCH);
            let round = async {
                if watch {
                    self.begin_channels(peer).await?;
                    self.watch_keys(peer).await?;
                }
                self.channel_round(peer).await
            };
            let wait = match round.await {
                Ok(wait) => {
                    failures = 0;
                    watched = if watch { Some(now) } else { watched };
                    wait
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, peer = %peer.id, "a peer's channels were put off");
                    Duration::from_millis(LONGEST_MS.saturating_mul(u64::from(failures.min(30))))
                }
            };
            if wait > Duration::ZERO {
                due.wait_at_most(&*self.parts.clock, wait).await;
            }
        }
    }

    /// Makes what is missing of the channels that are agreed.
    async fn begin_channels(&self, peer: &Peer) -> Result<(), CoordinationError> {
        self.act(peer, None, None, |book, now| Doing::new((), book.missing_channels(now))).await
    }

    /// Every channel that is due now; how long to wait then.
    async fn channel_round(&self, peer: &Arc<Peer>) -> Result<Duration, CoordinationError> {
        let due = self.parts.books.due_channels(&peer.id, BATCH).await?;
        if due.is_empty() {
            let next = self.parts.books.next_channel_due(&peer.id, LONGEST_MS).await?;
            return Ok(Duration::from_millis(next.unwrap_or(LONGEST_MS).max(1)));
        }
        let passes = futures::stream::iter(due).map(|at| self.channel_pass(peer, at));
        let mut passes = passes.buffer_unordered(AT_A_TIME);
        let mut failed = None;
        while let Some(passed) = passes.next().await {
            failed = passed.err().or(failed);
        }
        failed.map_or(Ok(Duration::ZERO), Err)
    }

    async fn channel_pass(&self, peer: &Peer, at: ChannelPlace) -> Result<(), CoordinationError> {
        self.apply_keys(peer, &at).await?;
        let draw = self.channel_draw();
        let ask = self.act(peer, None, None, |book, now| {
            let step = book.step_channel(&at, now, &draw);
            let wait = u64::try_from(step.wake.duration_since(now).as_millis()).unwrap_or(0);
            let mut doing = Doing::new(step.ask, step.changes);
            doing.channels_due.push((at.clone(), wait.max(u64::from(doing.changes.is_empty()))));
            doing
        });
        let Some(ask) = ask.await? else { return Ok(()) };
        let reply = match self.ask_channel(peer, &ask).await {
            Ok(reply) => reply,
            // The next step asks again, later and later.
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::info!(peer = %peer.id, channel = %at.channel, error, "no answer of the peer about a channel");
                return Ok(());
            }
        };
        self.act(peer, None, None, |book, now| Doing::new((), book.absorb_channel(&ask, Some(&reply), now))).await
    }

    /// Our device gets the keys that it is to have, and says how it is.
    async fn apply_keys(&self, peer: &Peer, at: &ChannelPlace) -> Result<(), CoordinationError> {
        let Some(wanted) = self.load(peer, None).await?.1.wanted_keys(at) else { return Ok(()) };
        let applied = self.parts.macsec.apply(&peer.id, at, &wanted).await;
        self.note_silence(peer, at, applied.as_ref().err());
        match applied {
            Ok(Some(report)) => {
                self.act(peer, None, None, |book, now| Doing::new((), book.observe_keys(at, &report, now))).await
            }
            Ok(None) => Ok(()),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(peer = %peer.id, channel = %at.channel, error, "nothing is known of a channel's keys");
                Ok(())
            }
        }
    }

    fn silent(&self) -> MutexGuard<'_, BTreeMap<(ResourceId, ChannelPlace), (Timestamp, String)>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_silence(&self, peer: &Peer, at: &ChannelPlace, error: Option<&DeviceError>) {
        let now = self.now();
        let place = (peer.id.clone(), at.clone());
        match error {
            Some(error) => self.silent().entry(place).or_insert((now, String::new())).1 = error.to_string(),
            None => {
                self.silent().remove(&place);
            }
        }
    }

    /// Why a channel's device says nothing, if it has for long.
    fn silence(&self, peer: &Peer, at: &ChannelPlace, now: Timestamp) -> Option<String> {
        let silent = self.silent();
        let (since, why) = silent.get(&(peer.id.clone(), at.clone()))?;
        (now.duration_since(*since) >= SILENCE).then(|| why.clone())
    }

    /// Random choices for one step of a channel.
    fn channel_draw(&self) -> ChannelDraw {
        let random = &*self.parts.random;
        let key = || {
            let mut bytes = zeroize::Zeroizing::new([0; 32]);
            random.fill(&mut *bytes);
            Sensitive::from(SecretString::from(data_encoding::HEXLOWER.encode(&*bytes)))
        };
        let Draw { ids, jitter, .. } = self.draw();
        ChannelDraw { ids, cak: key(), ckn: key(), jitter }
    }

    /// Asks a peer about a channel. A refusal is an answer; everything that tells nothing is none.
    async fn ask_channel(&self, peer: &Peer, ask: &ChannelAsk) -> Result<ChannelReply, NoAnswer> {
        match self.ask_channel_on_wire(peer, ask).await {
            Err(NoAnswer::Call(error)) if error.verdict() == CallVerdict::Refused => {
                let refused = |r: &tieline_openapi::client::coordinator::Refusal| {
                    ChannelReply::Refused(Refusal { status: r.status, rule: r.text.clone() })
                };
                error.refusal().map(refused).ok_or(NoAnswer::Call(error))
            }
            other => other,
        }
    }

    async fn ask_channel_on_wire(&self, peer: &Peer, ask: &ChannelAsk) -> Result<ChannelReply, NoAnswer> {
        let (client, path) = (&peer.client, wire::channel_path(self.us(), ask.at()));
        match ask {
            ChannelAsk::Events { .. } => {
                let answer = client.call::<GetMaintenanceEvents>(&path, &NoQuery {}, &NoBody {}).await?;
                return Ok(ChannelReply::Events(answer.events.iter().map(wire::read_event).collect()));
            }
            ChannelAsk::Keys { .. } => {
                let answer = client.call::<ListMacSecKeys>(&path, &NoQuery {}, &NoBody {}).await?;
                return Ok(ChannelReply::Keys(wire::read_keys(&path, &answer.mac_sec_keys)?));
            }
            ChannelAsk::NotifyMaintenance { .. } => {
                let body = NotifyMaintenanceRequest::default();
                client.call::<NotifyMaintenance>(&path, &NoQuery {}, &body).await?;
            }
            ChannelAsk::CreateKey { key, cak, ckn, .. } => {
                let query = CreateMacSecKeyQuery { mac_sec_key_id: key.clone() };
                client.call::<CreateMacSecKey>(&path, &query, &wire::key_of(cak, ckn)).await?;
            }
            ChannelAsk::DeleteKey { key, .. } => {
                client.call::<DeleteMacSecKey>(&wire::key_path(&path, key), &NoQuery {}, &NoBody {}).await?;
            }
            ChannelAsk::RequestRotation { words, .. } => {
                let reason = Some(words.clone()).filter(|words| !words.is_empty());
                let body = MacSecKeyRotationRequest { reason };
                client.call::<RequestMacSecKeyRotation>(&path, &NoQuery {}, &body).await?;
            }
        }
        Ok(ChannelReply::Done { at: None })
    }

    /// Says what about keys does not end by itself, and takes back what has ended.
    async fn watch_keys(&self, peer: &Peer) -> Result<(), CoordinationError> {
        let (_, book) = self.load(peer, None).await?;
        let now = self.now();
        let troubles: BTreeMap<ChannelPlace, KeyTroubleKind> =
            book.key_troubles(now).into_iter().map(|trouble| (trouble.at, trouble.what)).collect();
        let Ok(project) = bootstrap::FIRST_PROJECT.parse::<ProjectId>() else { return Ok(()) };
        for (at, _) in book.channels.iter().filter(|(at, _)| book.macsec_of(at).is_some()) {
            let subject = wire::channel_path(&peer.id, at).to_string();
            match troubles.get(at) {
                Some(what) => self.parts.books.raise(&project, &self.trouble(&subject, *what, now)).await?,
                None => self.parts.books.resolve(TROUBLE, &subject, now).await?,
            }
            match self.silence(peer, at, now) {
                Some(why) => self.parts.books.raise(&project, &self.silence_issue(&subject, &why, now)).await?,
                None => self.parts.books.resolve(SILENT, &subject, now).await?,
            }
        }
        Ok(())
    }

    fn trouble(&self, subject: &str, what: KeyTroubleKind, now: Timestamp) -> Issue {
        let (title, remediation) = match what {
            KeyTroubleKind::NotActive => (
                "A MACsec key is not in use on both sides",
                "See what the device says of the channel, and `tieline coordinator macsec list`. `tieline coordinator \
                 macsec rotate` puts another key in its place.",
            ),
            KeyTroubleKind::NotBegun => (
                "A change of a MACsec key that was asked for has not begun for a day",
                "Another channel of the interconnect may be stuck in its own change, or the peer manages the key and does \
                 not change it: see `tieline coordinator macsec list`, and ask the peer.",
            ),
        };
        self.issue(TROUBLE, subject, title, remediation.to_owned(), now)
    }

    fn silence_issue(&self, subject: &str, why: &str, now: Timestamp) -> Issue {
        let title = "A router does not say how the MACsec keys of a channel are";
        let remediation = format!(
            "What was known of them before still counts, and no key is changed. Run the router's program of `tieline.toml` by \
             hand; its last try: {why}"
        );
        self.issue(SILENT, subject, title, remediation, now)
    }

    fn issue(&self, code: &str, subject: &str, title: &str, remediation: String, now: Timestamp) -> Issue {
        Issue {
            id: IssueId::from(self.parts.random.uuid_v7(now)),
            severity: Severity::Warning,
            code: code.to_owned(),
            about: vec![subject.to_owned()],
            title: title.to_owned(),
            cost: None,
            remediation,
            state: IssueState::Open,
            created_at: now,
            resolved_at: None,
        }
    }

    /// Every channel that is shared with somebody, in order of peer and place.
    ///
    /// # Errors
    /// The store's.
    pub async fn shared_channels(&self) -> Result<Vec<SharedChannel>, CoordinationError> {
        let mut all = Vec::new();
        for peer in self.peers.values() {
            let (_, book) = self.load(peer, None).await?;
            let agreed = book.channels.values().filter(|row| book.is_agreed(&row.at));
            all.extend(agreed.map(|row| SharedChannel {
                peer: peer.id.clone(),
                row: row.clone(),
                macsec: book.macsec_of(&row.at).cloned(),
                drained: is_drained(&book, &row.at),
            }));
        }
        Ok(all)
    }

    /// Wishes another MACsec key for a channel; where the peer manages it, the peer is asked.
    ///
    /// # Errors
    /// [`CoordinationError::NoPeer`], [`CoordinationError::NoChannel`], [`CoordinationError::Rotation`], the store's.
    pub async fn rotate_key(
        &self,
        peer: &str,
        at: &ChannelPlace,
        words: &str,
        audit: &Audit,
    ) -> Result<(), CoordinationError> {
        let peer = Arc::clone(self.provider(peer)?);
        let request_id = self.draw().ids[0];
        let wished = self.act(&peer, None, Some(audit), |book, now| {
            if !book.is_agreed(at) {
                return Doing::new(Err(no_such_channel(at)), Vec::new());
            }
            match book.wish_rotation(at, RotationReason::Operator, words, request_id, now) {
                Ok(changes) => Doing::new(Ok(()), changes),
                Err(error) => Doing::new(Err(error.into()), Vec::new()),
            }
        });
        wished.await?
    }

    /// Plans work on a channel, or begins it.
    ///
    /// # Errors
    /// [`CoordinationError::NoPeer`], [`CoordinationError::NoChannel`], [`CoordinationError::Window`], the store's.
    pub async fn open_window(
        &self,
        peer: &str,
        request: &WindowRequest,
        audit: &Audit,
    ) -> Result<(), CoordinationError> {
        let peer = Arc::clone(self.provider(peer)?);
        let opened = self.act(&peer, None, Some(audit), |book, now| {
            if !book.is_agreed(&request.at) {
                return Doing::new(Err(no_such_channel(&request.at)), Vec::new());
            }
            match book.open_window(request, now) {
                Ok(changes) => Doing::new(Ok(()), changes),
                Err(error) => Doing::new(Err(error.into()), Vec::new()),
            }
        });
        opened.await?
    }

    /// Ends work, or calls it off.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where there is none of this id, [`CoordinationError::Window`] where it is over; the store's.
    pub async fn end_window(&self, id: Uuid, audit: &Audit) -> Result<(), CoordinationError> {
        for peer in self.peers.values() {
            if !self.load(peer, None).await?.1.has_window(id) {
                continue;
            }
            let ended = self.act(peer, None, Some(audit), |book, now| match book.end_window(id, now) {
                Ok(changes) => Doing::new(Ok(()), changes),
                Err(error) => Doing::new(Err(error), Vec::new()),
            });
            return Ok(ended.await??);
        }
        Err(StoreError::NotFound.into())
    }
}

fn is_drained(book: &Book, at: &ChannelPlace) -> bool {
    let here = book
        .rows
        .values()
        .filter(|row| row.place.environment == at.environment && row.place.interconnect == at.interconnect);
    let mut features = here.filter_map(|row| row.features.get(&at.channel));
    features.all(|feature| matches!(feature.ours, Local::Reserved | Local::Drained))
}
