//! What a case works with: the wire, what the two providers share, keys from the customer, and what must be deleted after.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use reqwest::Url;
use serde_json::{Value, json};
use tieline_openapi::coordinator::{
    ActivationKey, ActivationKeyV1, Channel, ConnectionPath, Environment, EnvironmentPath, Interconnect,
    InterconnectPath, InterconnectState, KeyContents, ListChannelsResponse, ListEnvironmentsResponse,
    ListInterconnectsResponse, OperationId as Op, ProviderPath, ResourceId, Sensitive, decode_key,
};
use uuid::Uuid;

use crate::{
    customer::{Customer, KeySource, Wanted},
    peer::{Peer, Plot, Statics},
    suite::{SetupError, Stop, violation},
    wire::{Answer, Exchange, Wire},
};

/// Pages of a list that are read at most.
const PAGES: usize = 1_000;

/// What the suite cannot know by itself.
#[derive(Clone)]
pub struct Means {
    /// A new random UUID.
    pub uuid: Arc<dyn Fn() -> Uuid + Send + Sync>,
    /// Time since some moment that never changes.
    pub monotonic: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl fmt::Debug for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Means").finish_non_exhaustive()
    }
}

/// As whom the suite calls the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// As the peer that it plays.
    Peer,
    /// As nobody: without a certificate.
    Nobody,
}

/// Makes HTTP clients, with the trust anchors of the target. The suite sets the versions of TLS.
pub type HttpSource = Arc<dyn Fn(Credential) -> reqwest::ClientBuilder + Send + Sync>;

/// Whom to test, and as whom.
#[derive(Clone)]
pub struct Settings {
    /// The target: everything before `/providers`.
    pub url: String,
    /// The id of the provider that the suite plays.
    pub provider: String,
    /// HTTP clients.
    pub http: HttpSource,
    /// Where keys come from; without it, what needs a key of the target's is skipped.
    pub keys: Option<Arc<dyn KeySource>>,
    /// Who brings keys to the target; without it, what needs that is skipped.
    pub customer: Option<Arc<dyn Customer>>,
    /// The customer's account at the target, for whom keys of the suite are.
    pub account: String,
    /// The suite's own half of the API, which is served already; without it, what the target must call is skipped.
    pub peer: Option<Peer>,
    /// How long is waited for what must happen.
    pub patience: Duration,
    /// How long is waited to see that something does not happen.
    pub window: Duration,
    /// The bake time of MACsec keys that is agreed with the target: the specification's two hours, or less for a test.
    pub bake: Duration,
    /// Cases at a time, of those that do not disturb each other.
    pub jobs: usize,
    /// Time and chance.
    pub means: Means,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("url", &self.url).field("provider", &self.provider).finish_non_exhaustive()
    }
}

/// A place where connections can be made.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub environment: (EnvironmentPath, Environment),
    pub interconnect: (InterconnectPath, Interconnect),
    pub channels: Vec<Channel>,
}

impl Place {
    /// The smallest bandwidth that a connection may have here.
    pub(crate) fn bandwidth(&self) -> Result<i32, Stop> {
        let sizes = self.sizes();
        sizes
            .iter()
            .min()
            .copied()
            .ok_or_else(|| violation("neither environment nor interconnect supports any bandwidth"))
    }

    /// The bandwidths that a connection may have here.
    pub(crate) fn sizes(&self) -> Vec<i32> {
        let (own, of_all) = (&self.interconnect.1, &self.environment.1);
        own.supported_connection_size_mbps.iter().chain(&of_all.supported_connection_size_mbps).copied().collect()
    }
}

/// A key that the customer was given.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub encoded: Sensitive,
    pub read: ActivationKeyV1,
}

/// A connection that a case has made.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub path: ConnectionPath,
    pub key: Key,
    /// What was sent to create it.
    pub body: Value,
    /// The request id it was sent with.
    pub request_id: String,
}

struct Shared {
    settings: Settings,
    http: reqwest::Client,
    base: Url,
    provider: ProviderPath,
    places: Vec<Place>,
    /// Counts proposals, so that each begins elsewhere than the one before: what was deleted may not be free at once.
    proposals: Arc<AtomicU16>,
}

/// One case's view of the target.
pub(crate) struct Session {
    shared: Arc<Shared>,
    wire: Wire,
    made: Mutex<Vec<ConnectionPath>>,
    plot: Arc<Plot>,
}

impl Session {
    /// Reads what the two providers share, without which nothing can be tested.
    pub(crate) async fn open(settings: Settings) -> Result<Self, SetupError> {
        let wrong = |reason: String| SetupError::Url { url: settings.url.clone(), reason };
        let base = Url::parse(&settings.url).map_err(|error| wrong(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.query().is_some() {
            return Err(wrong("it begins with https:// and has no query".to_owned()));
        }
        let id: Result<ResourceId, _> = settings.provider.parse();
        let id = id.map_err(|source| SetupError::Provider { id: settings.provider.clone(), source })?;
        let http = client(&settings, Credential::Peer, |http| http.tls_version_min(reqwest::tls::Version::TLS_1_3));
        let http = http.map_err(SetupError::Http)?;
        let provider = ProviderPath { provider: id };
        let mut shared = Shared { http, base, provider, places: Vec::new(), proposals: Arc::default(), settings };
        let reading = Self::of(Arc::new(shared.copy()));
        match reading.read_places().await {
            Ok(places) => shared.places = places,
            Err(stop) => {
                let (provider, why) = (shared.settings.provider, stop.to_string());
                return Err(SetupError::Static { provider, why, exchanges: reading.exchanges() });
            }
        }
        let session = Self::of(Arc::new(shared));
        if let (Some(peer), Ok(target)) = (&session.shared.settings.peer, session.target()) {
            let target = target.rsplit('/').next().unwrap_or_default();
            let own = session.shared.provider.provider.as_str();
            peer.stage().agree(Statics::mirrored(
                own,
                target,
                &session.shared.places,
                Arc::clone(peer.stage().channels()),
            ));
        }
        Ok(session)
    }

    fn of(shared: Arc<Shared>) -> Self {
        let monotonic = Arc::clone(&shared.settings.means.monotonic);
        let wire = Wire::new(shared.http.clone(), shared.base.clone(), monotonic);
        let plot = Arc::default();
        if let Some(peer) = &shared.settings.peer {
            peer.stage().enter(&plot);
        }
        Self { shared, wire, made: Mutex::default(), plot }
    }

    /// The same target, with an empty record.
    pub(crate) fn fresh(&self) -> Self {
        Self::of(Arc::clone(&self.shared))
    }

    /// The same target, called by another client.
    pub(crate) fn wire_with(
        &self,
        credential: Credential,
        change: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> Result<Wire, Stop> {
        let http = client(&self.shared.settings, credential, change);
        let http = http.map_err(|error| Stop::Skipped(format!("no such client can be made: {error}")))?;
        let monotonic = Arc::clone(&self.shared.settings.means.monotonic);
        Ok(Wire::new(http, self.shared.base.clone(), monotonic))
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// What this case plays at the suite's side.
    pub(crate) fn plot(&self) -> &Arc<Plot> {
        &self.plot
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.shared.base.scheme() == "https"
    }

    /// What was sent and received, by both sides, in order.
    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        let mut all = self.wire.take();
        all.extend(self.plot.state().heard.iter().map(Exchange::heard));
        all.sort_by_key(|exchange| exchange.at);
        all
    }

    /// What another client of the case has sent and received.
    pub(crate) fn note(&self, other: &Wire) {
        self.wire.note(other.take());
    }

    pub(crate) fn elapsed(&self) -> Duration {
        (self.shared.settings.means.monotonic)()
    }

    pub(crate) fn uuid(&self) -> Uuid {
        (self.shared.settings.means.uuid)()
    }

    /// Where the next proposals begin: room for some, one after the other.
    pub(crate) fn next_proposals(&self) -> u16 {
        self.shared.proposals.fetch_add(8, Ordering::Relaxed) % 4_096
    }

    /// The provider that the suite plays.
    pub(crate) fn provider(&self) -> &ProviderPath {
        &self.shared.provider
    }

    /// Every interconnect that the two providers share.
    pub(crate) fn places(&self) -> &[Place] {
        &self.shared.places
    }

    /// The first interconnect that takes connections.
    pub(crate) fn place(&self) -> Result<&Place, Stop> {
        let active = |place: &&Place| place.interconnect.1.state == Some(InterconnectState::Active);
        let none = || Stop::Skipped("no interconnect is INTERCONNECT_STATE_ACTIVE".to_owned());
        self.shared.places.iter().find(active).ok_or_else(none)
    }

    /// The target's own provider id, as the environment tells it.
    pub(crate) fn target(&self) -> Result<String, Stop> {
        let own = self.shared.provider.to_string();
        let sites = &self.place()?.environment.1.provider_sites;
        let other = sites.iter().filter_map(|site| site.provider_id.clone()).find(|id| *id != own);
        other.ok_or_else(|| violation(format!("no providerSites of the environment is another's than {own}")))
    }

    pub(crate) async fn get(
        &self,
        operation: Op,
        path: &impl tieline_openapi::coordinator::PathParameters,
    ) -> Result<Answer, Stop> {
        self.wire.call(operation, path, &[], None).await
    }

    pub(crate) async fn call(
        &self,
        operation: Op,
        path: &impl tieline_openapi::coordinator::PathParameters,
        query: &[(&str, &str)],
        body: &Value,
    ) -> Result<Answer, Stop> {
        self.wire.call(operation, path, query, Some(body)).await
    }

    /// Reads with a query.
    pub(crate) async fn ask(
        &self,
        operation: Op,
        path: &impl tieline_openapi::coordinator::PathParameters,
        query: &[(&str, &str)],
    ) -> Result<Answer, Stop> {
        self.wire.call(operation, path, query, None).await
    }

    /// Sends whatever bytes, to whatever path.
    pub(crate) async fn raw(&self, operation: Op, path: &str, body: Option<Vec<u8>>) -> Result<Answer, Stop> {
        self.wire.send(operation, path, &[], body).await
    }

    /// Sends bytes by whatever method, as whatever kind of document.
    pub(crate) async fn raw_with(
        &self,
        method: &'static str,
        path: &str,
        kind: &'static str,
        body: Vec<u8>,
    ) -> Result<Answer, Stop> {
        self.wire.raw(method, path, kind, body).await
    }

    async fn read_places(&self) -> Result<Vec<Place>, Stop> {
        let provider = &self.shared.provider;
        let mut places = Vec::new();
        let environments = self
            .whole(Op::ListEnvironments, provider, |page: ListEnvironmentsResponse| {
                (page.environments, page.next_page_token)
            })
            .await?;
        for environment in environments {
            let path: EnvironmentPath = name(environment.name.as_deref())?;
            let interconnects = self
                .whole(Op::ListInterconnects, &path, |page: ListInterconnectsResponse| {
                    (page.interconnects, page.next_page_token)
                })
                .await?;
            for interconnect in interconnects {
                let at: InterconnectPath = name(interconnect.name.as_deref())?;
                let channels = self
                    .whole(Op::ListChannels, &at, |page: ListChannelsResponse| (page.channels, page.next_page_token))
                    .await?;
                let environment = (path.clone(), environment.clone());
                places.push(Place { environment, interconnect: (at, interconnect), channels });
            }
        }
        if places.is_empty() { Err(violation("it lists no environment with an interconnect")) } else { Ok(places) }
    }

    /// Everything of a list, page by page.
    pub(crate) async fn whole<P: serde::de::DeserializeOwned, T>(
        &self,
        operation: Op,
        path: &impl tieline_openapi::coordinator::PathParameters,
        into: impl Fn(P) -> (Vec<T>, Option<String>),
    ) -> Result<Vec<T>, Stop> {
        let (mut all, mut token) = (Vec::new(), None::<String>);
        for _ in 0..PAGES {
            let query: Vec<_> = token.iter().map(|token| ("pageToken", token.as_str())).collect();
            let (items, next) = into(self.ask(operation, path, &query).await?.read()?);
            all.extend(items);
            match next.filter(|next| !next.is_empty()) {
                Some(next) if Some(&next) == token.as_ref() => break,
                Some(next) => token = Some(next),
                None => return Ok(all),
            }
        }
        Err(violation(format!("the pages of {} do not end", operation.as_str())))
    }

    /// A new activation key from the target's customer side, as it is handed out.
    pub(crate) async fn key_text(&self, place: &Place, bandwidth_mbps: i32) -> Result<Sensitive, Stop> {
        let Some(keys) = &self.shared.settings.keys else {
            let why = "it needs an activation key from the target's customer side: --issue-key says how to get one";
            return Err(Stop::Skipped(why.to_owned()));
        };
        let wanted = Wanted { environment: place.environment.0.to_string(), bandwidth_mbps };
        keys.issue(wanted).await.map_err(|why| Stop::NoAnswer(format!("no activation key: {why}")))
    }

    /// A new activation key that the suite can read.
    pub(crate) async fn key(&self, place: &Place, bandwidth_mbps: i32) -> Result<Key, Stop> {
        let encoded = self.key_text(place, bandwidth_mbps).await?;
        match decode_key(&encoded) {
            Ok(ActivationKey::V1(read)) => {
                KeyContents::of_v1(&read)
                    .map_err(|why| violation(format!("the activation key is not what it should be: {why}")))?;
                Ok(Key { encoded, read })
            }
            Ok(ActivationKey::V2(_)) => {
                Err(Stop::Skipped("the activation key is of version 2, which only its destination can read".to_owned()))
            }
            Ok(ActivationKey::Other { version, .. }) => {
                Err(violation(format!("the activation key is of version {version}, and complete in none")))
            }
            Err(why) => Err(violation(format!("what the customer was given is no activation key: {why}"))),
        }
    }

    /// Where a key's connection is to be made.
    pub(crate) fn path_of(&self, place: &Place, key: &Key) -> Result<ConnectionPath, Stop> {
        let id: Result<ResourceId, _> = key.read.shared_connection_uuid.parse();
        let id = id.map_err(|why| violation(format!("sharedConnectionUuid of the key: {why}")))?;
        Ok(place.interconnect.0.connection(id))
    }

    /// The body of CreateConnection for a key.
    pub(crate) fn body_of(&self, path: &ConnectionPath, key: &Key) -> Value {
        json!({
            "name": path.to_string(),
            "bandwidthMbps": key.read.connection_size_mbps,
            "activationKey": key.encoded.expose(),
            "sourceData": { "encodedKey": key.encoded.expose() },
        })
    }

    /// Sends CreateConnection, and remembers to delete what it may make.
    pub(crate) async fn create(
        &self,
        path: &ConnectionPath,
        body: &Value,
        request_id: Option<&str>,
    ) -> Result<Answer, Stop> {
        let mut query = vec![("connectionId", path.connection.as_str())];
        query.extend(request_id.map(|id| ("requestId", id)));
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
        self.call(Op::CreateConnection, &path.parent(), &query, body).await
    }

    /// A connection, made the ordinary way.
    pub(crate) async fn connection(&self) -> Result<Made, Stop> {
        let place = self.place()?;
        let key = self.key(place, place.bandwidth()?).await?;
        let path = self.path_of(place, &key)?;
        let (body, request_id) = (self.body_of(&path, &key), self.uuid().to_string());
        let answer = self.create(&path, &body, Some(&request_id)).await?;
        let _: tieline_openapi::coordinator::Connection = answer.read()?;
        Ok(Made { path, key, body, request_id })
    }

    /// Deletes what the case has made, so that the next one finds the target as this one did. What cannot be deleted now is
    /// the target's to clean up.
    pub(crate) async fn clean_up(&self) {
        let mut made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        self.plot.calm();
        if let Some(peer) = self.shared.settings.peer.as_ref().filter(|_| self.plot.state().manners.channels) {
            peer.stage().channels().held().calm();
        }
        made.extend(self.brought_up());
        for path in made {
            let _ = self.get(Op::DeleteConnection, &path).await;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(peer) = &self.shared.settings.peer {
            peer.stage().leave(&self.plot);
        }
    }
}

impl Shared {
    fn copy(&self) -> Self {
        Self {
            settings: self.settings.clone(),
            http: self.http.clone(),
            base: self.base.clone(),
            provider: self.provider.clone(),
            places: self.places.clone(),
            proposals: Arc::clone(&self.proposals),
        }
    }
}

fn client(
    settings: &Settings,
    credential: Credential,
    change: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
) -> Result<reqwest::Client, reqwest::Error> {
    change((settings.http)(credential).redirect(reqwest::redirect::Policy::none())).build()
}

/// Reads a name, which the specification wants to be there in every answer.
pub(crate) fn name<T: std::str::FromStr<Err = tieline_openapi::coordinator::NameError>>(
    text: Option<&str>,
) -> Result<T, Stop> {
    let text = text.ok_or_else(|| violation("a resource came without its name"))?;
    text.parse().map_err(|why: tieline_openapi::coordinator::NameError| violation(why.to_string()))
}
