//! Server-sent events that are taken up where they stopped (the `id` of the last one goes out as `Last-Event-ID`, WHATWG
//! HTML section 9.2).

use std::{marker::PhantomData, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use eventsource_stream::{EventStream, EventStreamError, Eventsource};
use futures::{Stream, StreamExt, stream::BoxStream};
use reqwest::{
    Method, Response,
    header::{ACCEPT, CONTENT_TYPE},
};
use serde::de::DeserializeOwned;

use super::{Client, ClientError, MAX_ANSWER_BYTES, TIMEOUT};

/// A stream that was silent this long is broken: the API says something at least every 15 s.
const SILENCE: Duration = Duration::from_secs(45);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

type Chunks = BoxStream<'static, Result<Vec<u8>, ClientError>>;

/// A stream of server-sent events, each the JSON of a `T`.
///
/// What breaks it for a moment is given out as an error, and the next call takes it up again after a pause; what breaks it
/// for good (no such gateway, a token that ended, a cursor that is too old) is given out, and then the stream ends.
pub struct Watch<T> {
    client: Client,
    path: String,
    last_id: Option<String>,
    events: Option<EventStream<Chunks>>,
    pauses: ExponentialBackoff,
    pause: Option<Duration>,
    ended: bool,
    item: PhantomData<fn() -> T>,
}

impl<T> std::fmt::Debug for Watch<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("path", &self.path).field("last_id", &self.last_id).finish_non_exhaustive()
    }
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .without_max_times()
        .with_jitter()
        .build()
}

impl<T: DeserializeOwned> Watch<T> {
    pub(super) fn new(client: Client, path: String, last_id: Option<String>) -> Self {
        Self { client, path, last_id, events: None, pauses: pauses(), pause: None, ended: false, item: PhantomData }
    }

    /// The id of the last event that was given out: where another watch can go on.
    #[must_use]
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// The next event, or what broke the stream; `None` once it ended for good. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Result<T, ClientError>> {
        if self.ended {
            return None;
        }
        let next = self.advance().await;
        if let Err(error) = &next {
            self.events = None;
            if error.is_transient() {
                let own = self.pauses.next().unwrap_or(LONGEST_PAUSE);
                self.pause = Some(error.retry_after().map_or(own, |wanted| wanted.max(own)));
            } else {
                self.ended = true;
            }
        }
        Some(next)
    }

    /// The same as a [`Stream`].
    pub fn into_stream(self) -> impl Stream<Item = Result<T, ClientError>> {
        futures::stream::unfold(self, async |mut watch| watch.next().await.map(|item| (item, watch)))
    }

    async fn advance(&mut self) -> Result<T, ClientError> {
        if let Some(pause) = self.pause {
            tokio::time::sleep(pause).await;
            self.pause = None;
        }
        let events = match &mut self.events {
            Some(events) => events,
            none => {
                let response = self.client.open(&self.path, self.last_id.as_deref()).await?;
                none.insert(chunks(response, self.path.clone()).eventsource())
            }
        };
        let event = match events.next().await {
            Some(Ok(event)) => event,
            Some(Err(EventStreamError::Transport(error))) => return Err(error),
            Some(Err(EventStreamError::Utf8(_) | EventStreamError::Parser(_))) => {
                return Err(self.broken("is not a stream of events"));
            }
            None => return Err(self.broken("ended")),
        };
        let item = serde_json::from_str(&event.data)
            .map_err(|source| ClientError::Decode { path: self.path.clone(), source })?;
        if !event.id.is_empty() {
            self.last_id = Some(event.id);
        }
        self.pauses = pauses();
        Ok(item)
    }

    fn broken(&self, reason: &str) -> ClientError {
        ClientError::Stream { path: self.path.clone(), reason: reason.to_owned() }
    }
}

impl Client {
    /// Opens a stream. Only the answer's head is bounded in time: the stream itself may last for ever.
    async fn open(&self, path: &str, last_id: Option<&str>) -> Result<Response, ClientError> {
        let mut request = self.request(Method::GET, path).header(ACCEPT, "text/event-stream");
        if let Some(last_id) = last_id {
            request = request.header("last-event-id", last_id);
        }
        let late = || ClientError::Stream { path: path.to_owned(), reason: "was not opened in time".to_owned() };
        let response = tokio::time::timeout(TIMEOUT, request.send())
            .await
            .map_err(|_| late())?
            .map_err(|source| self.transport(&Method::GET, path, source))?;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let (status, streams) = (response.status(), kind.starts_with("text/event-stream"));
        if status.is_success() && streams {
            return Ok(response);
        }
        if status.is_success() {
            return Err(ClientError::Header { path: path.to_owned(), header: "content-type" });
        }
        let headers = response.headers().clone();
        let body =
            tokio::time::timeout(TIMEOUT, self.read(&Method::GET, path, response)).await.map_err(|_| late())??;
        Err(self.refusal(&Method::GET, status, &super::Answer { path: path.to_owned(), headers, body }))
    }
}

/// The body in chunks: broken off when it is silent for too long, or when one event grows without end.
fn chunks(response: Response, path: String) -> Chunks {
    let step = |(mut response, path, mut unfinished): (Response, String, usize)| async move {
        let broken = |reason: &str| ClientError::Stream { path: path.clone(), reason: reason.to_owned() };
        let chunk = match tokio::time::timeout(SILENCE, response.chunk()).await {
            Err(_) => Err(broken("fell silent")),
            Ok(Err(_)) => Err(broken("broke off")),
            Ok(Ok(None)) => return None,
            Ok(Ok(Some(chunk))) => Ok(chunk.to_vec()),
        };
        let chunk = chunk.and_then(|chunk| {
            // An empty line ends an event.
            let end = chunk.windows(2).rposition(|pair| pair == b"\n\n" || pair == b"\n\r");
            unfinished = end.map_or(unfinished + chunk.len(), |end| chunk.len() - end);
            if unfinished > MAX_ANSWER_BYTES {
                return Err(ClientError::TooLarge { path: path.clone(), limit: MAX_ANSWER_BYTES });
            }
            Ok(chunk)
        });
        Some((chunk, (response, path, unfinished)))
    };
    futures::stream::unfold((response, path, 0), step).boxed()
}
