//! The gateway's side of the API: join, configuration, observations. The data path waits for none of it.

use std::{error::Error as _, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use eventsource_stream::Eventsource;
use futures::StreamExt;
use reqwest::{StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use tieline_openapi::v1::{GatewayConfiguration, JoinAnswer, JoinRequest, KernelLanes, Observations};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{kernel::Told, state::Credential, status::Report};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest silence of a connection; servers send a comment more often than that.
const SILENCE: Duration = Duration::from_secs(45);
/// Waits between two tries, doubled from the first to the second with jitter.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Samples and changes in one report, by the contract.
const MAX_ITEMS: usize = 1_000;

/// Why the API could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Not a URL.
    #[error("`{0}` is not an http:// or https:// URL; give the API's, as http://127.0.0.1:7080")]
    Url(String),
    /// No HTTP client, for lack of certificates for example.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
    /// Not sent, or no answer.
    #[error("the API at {url} does not answer")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// A refusal.
    #[error("the API refused to {what}: {status} {detail}")]
    Refused {
        /// What.
        what: &'static str,
        /// Its status.
        status: StatusCode,
        /// Its words.
        detail: String,
    },
    /// An answer of another shape.
    #[error("the API answered something else than expected to {what}; is it another version?")]
    Answer {
        /// To what.
        what: &'static str,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
}

impl ControlError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => {
                status.is_server_error()
                    || matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            }
            Self::Url(_) | Self::Client(_) | Self::Answer { .. } => false,
        }
    }
}

/// The API, as a gateway sees it.
#[derive(Debug, Clone)]
pub struct Api {
    client: reqwest::Client,
    base: String,
}

impl Api {
    /// A client of the API at `url`.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn new(url: &str) -> Result<Self, ControlError> {
        let parsed = reqwest::Url::parse(url).map_err(|_| ControlError::Url(url.to_owned()))?;
        if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
            return Err(ControlError::Url(url.to_owned()));
        }
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .build()
            .map_err(ControlError::Client)?;
        Ok(Self { client, base: url.trim_end_matches('/').to_owned() })
    }

    async fn send(
        &self,
        what: &'static str,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, ControlError> {
        let answer =
            request.send().await.map_err(|source| ControlError::Unreachable { url: self.base.clone(), source })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let problem = answer.json::<serde_json::Value>().await.unwrap_or_default();
        let said = |field: &str| problem.get(field).and_then(|text| text.as_str()).map(str::to_owned);
        Err(ControlError::Refused {
            what,
            status,
            detail: said("detail").or_else(|| said("title")).unwrap_or_default(),
        })
    }

    /// `POST /v1/gateways:join`.
    ///
    /// # Errors
    /// When the API does not answer or refuses.
    pub async fn join(&self, token: &SecretString, request: &JoinRequest) -> Result<JoinAnswer, ControlError> {
        let url = format!("{}/v1/gateways:join", self.base);
        let request = self.client.post(url).bearer_auth(token.expose_secret()).json(request).timeout(SILENCE);
        let answer = self.send("let this gateway join", request).await?;
        answer.json().await.map_err(|source| ControlError::Answer { what: "the join", source })
    }

    /// `GET /v1/gateways/{id}/configuration:watch`, handing over every configuration until the stream ends.
    ///
    /// # Errors
    /// When the API does not answer, refuses, or the stream breaks.
    pub async fn watch(
        &self,
        credential: &Credential,
        known: Option<u64>,
        mut take: impl FnMut(GatewayConfiguration),
    ) -> Result<(), ControlError> {
        let url = format!("{}/v1/gateways/{}/configuration:watch", self.base, credential.gateway_id);
        let mut request = self
            .client
            .get(url)
            .bearer_auth(credential.secret.expose_secret())
            .header(header::ACCEPT, "text/event-stream");
        if let Some(version) = known {
            request = request.header("Last-Event-ID", version.to_string());
        }
        let answer = self.send("stream the configuration", request).await?;
        let mut events = answer.bytes_stream().eventsource();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => match serde_json::from_str(&event.data) {
                    Ok(configuration) => take(configuration),
                    Err(error) => tracing::warn!(event = event.event, %error, "an event that is no configuration"),
                },
                Err(error) => {
                    tracing::debug!(%error, "the configuration stream broke");
                    break;
                }
            }
        }
        Ok(())
    }

    /// `POST /v1/gateways/{id}/observations`.
    ///
    /// # Errors
    /// When the API does not answer or refuses.
    pub async fn observe(&self, credential: &Credential, observations: &Observations) -> Result<(), ControlError> {
        let url = format!("{}/v1/gateways/{}/observations", self.base, credential.gateway_id);
        let request =
            self.client.post(url).bearer_auth(credential.secret.expose_secret()).json(observations).timeout(SILENCE);
        self.send("take observations", request).await.map(drop)
    }

    /// `PUT /v1/gateways/{id}/kernelLanes`: all that there is.
    ///
    /// # Errors
    /// When the API does not answer or refuses.
    pub async fn put_kernel_lanes(&self, credential: &Credential, lanes: &KernelLanes) -> Result<(), ControlError> {
        let url = format!("{}/v1/gateways/{}/kernelLanes", self.base, credential.gateway_id);
        let request = self.client.put(url).bearer_auth(credential.secret.expose_secret()).json(lanes).timeout(SILENCE);
        self.send("take the lanes in the kernel", request).await.map(drop)
    }
}

/// Waits between tries, without an end.
pub(super) fn waits() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(RETRY.0)
        .with_max_delay(RETRY.1)
        .with_jitter()
        .without_max_times()
        .build()
        .chain(std::iter::repeat(RETRY.1))
}

/// Follows the configuration for ever; `known` is the version that runs already.
pub async fn follow(
    api: &Api,
    credential: &Credential,
    mut known: Option<u64>,
    mut take: impl FnMut(GatewayConfiguration),
) {
    let mut pauses = waits();
    loop {
        let mut heard = false;
        let watched = api
            .watch(credential, known, |configuration| {
                heard = true;
                known = Some(configuration.version);
                take(configuration);
            })
            .await;
        if heard {
            pauses = waits();
        }
        let pause = pauses.next().unwrap_or(RETRY.1);
        match watched {
            Ok(()) => tracing::debug!(?pause, "the configuration stream ended"),
            Err(error) => {
                let source = error.source().map(ToString::to_string);
                tracing::warn!(%error, source, ?pause, "no configuration from the API; the last one stays in force");
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Sends reports until they end. One that the API has not acknowledged is sent again under the same sequence number;
/// `session` makes the numbers rise over restarts too.
pub async fn observe(api: &Api, credential: &Credential, session: u64, mut reports: mpsc::Receiver<Report>) {
    let mut sequence = session << 32;
    while let Some(first) = reports.recv().await {
        let mut batch = first;
        // What has come together while the API was slow or gone goes out together.
        while batch.samples.len() + batch.changes.len() < MAX_ITEMS
            && let Ok(more) = reports.try_recv()
        {
            batch.configuration_version = more.configuration_version;
            batch.samples.extend(more.samples);
            batch.changes.extend(more.changes);
        }
        while !batch.samples.is_empty() || !batch.changes.is_empty() {
            sequence += 1;
            let rest = |items: usize| items.min(MAX_ITEMS);
            let observations = Observations {
                sequence,
                configuration_version: batch.configuration_version,
                samples: batch.samples.drain(..rest(batch.samples.len())).collect(),
                changes: batch.changes.drain(..rest(batch.changes.len())).collect(),
            };
            deliver(api, credential, &observations).await;
        }
    }
}

async fn deliver(api: &Api, credential: &Credential, observations: &Observations) {
    for pause in waits() {
        let Err(error) = api.observe(credential, observations).await else { return };
        if !error.is_passing() {
            tracing::warn!(%error, sequence = observations.sequence, "a report was refused and is dropped");
            return;
        }
        tracing::debug!(%error, ?pause, "a report waits");
        tokio::time::sleep(pause).await;
    }
}

/// Tells the API of WireGuard in the kernel, for as long as there is news. What is old before it was taken is not told any
/// more; `taken` hears which sequence was.
pub async fn tell_kernel_lanes(
    api: &Api,
    credential: &Credential,
    mut news: watch::Receiver<Told>,
    taken: impl Fn(u64),
) {
    loop {
        let Told { sequence, lanes } = news.borrow_and_update().clone();
        if sequence > 0 {
            for pause in waits() {
                match api.put_kernel_lanes(credential, &lanes).await {
                    Ok(()) => taken(sequence),
                    Err(error) if error.is_passing() => {
                        tracing::debug!(%error, ?pause, "the lanes in the kernel are not told yet");
                        tokio::select! {
                            // Sooner or later than the pause: what there is by then is told.
                            _ = news.changed() => {}
                            () = tokio::time::sleep(pause) => continue,
                        }
                        news.mark_changed();
                    }
                    // An API of an older version knows nothing of them, and there is nothing.
                    Err(error) if lanes.lanes.is_empty() => tracing::debug!(%error, "no lanes in the kernel"),
                    Err(error) => {
                        tracing::warn!(%error, "peers do not hear of the lanes in the kernel; they send to the others");
                    }
                }
                break;
            }
        }
        if news.changed().await.is_err() {
            return;
        }
    }
}

/// Joins, waiting for an API that does not answer yet; `None` when it was told to stop first.
///
/// # Errors
/// When the API refuses.
pub async fn join(
    api: &Api,
    token: &SecretString,
    request: &JoinRequest,
    shutdown: &CancellationToken,
) -> Result<Option<JoinAnswer>, ControlError> {
    for pause in waits() {
        let tried = tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            tried = api.join(token, request) => tried,
        };
        match tried {
            Ok(answer) => return Ok(Some(answer)),
            Err(error) if error.is_passing() => {
                tracing::warn!(%error, ?pause, "cannot join yet");
                tokio::select! {
                    () = shutdown.cancelled() => return Ok(None),
                    () = tokio::time::sleep(pause) => {}
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
