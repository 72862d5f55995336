//! Streams: how many may be open, and how they end. Each holds a connection and looks at the store for as long as it lives,
//! so one client cannot take the places of all others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::header;
use tieline_openapi::problem::ProblemCode;

use super::{Http, metrics::Metrics, problem::Fault};

/// How often a quiet stream shows that it lives.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);
/// After this a stream ends and the client comes again with its cursor: its token is then looked at again.
const LONGEST_STREAM: Duration = Duration::from_secs(900);
/// Seconds after which a refused client should try again.
const RETRY_AFTER: &str = "5";

/// How many streams may be open at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Of one principal. A gateway needs one; a token is shared by the tabs and scripts of a team.
    pub of_one: usize,
    /// Of all together.
    pub of_all: usize,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self { of_one: 64, of_all: 4_096 }
    }
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_principal: HashMap<String, usize>,
}

/// The streams of this process.
pub(super) struct Streams {
    limits: StreamLimits,
    metrics: Arc<Metrics>,
    open: Mutex<Open>,
}

impl Streams {
    pub(super) fn new(limits: StreamLimits, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { limits, metrics, open: Mutex::default() })
    }

    /// A place for one more stream, until it is dropped.
    ///
    /// # Errors
    /// 429 where the principal has as many as it may, 503 where all together have.
    pub(super) fn open(self: &Arc<Self>, principal: &str) -> Result<Place, Fault> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let own = open.by_principal.get(principal).copied().unwrap_or(0);
        let refusal = if own >= self.limits.of_one {
            let detail = format!("this token has {own} streams open, and may have {}", self.limits.of_one);
            let remedy = "Close streams that nobody reads, or follow several resources on one stream.";
            Some(("principal", Fault::new(ProblemCode::TooManyRequests, detail).remedy(remedy)))
        } else if open.all >= self.limits.of_all {
            let detail = format!("{} streams are open, and no more may be", open.all);
            let remedy = "Try again after `Retry-After` seconds, or read pages of events instead.";
            Some(("total", Fault::new(ProblemCode::Unavailable, detail).remedy(remedy)))
        } else {
            None
        };
        if let Some((limit, fault)) = refusal {
            self.metrics.stream_refused(limit);
            return Err(fault.header(header::RETRY_AFTER, RETRY_AFTER));
        }
        open.all += 1;
        open.by_principal.insert(principal.to_owned(), own + 1);
        self.metrics.streams_open(open.all);
        Ok(Place { streams: Arc::clone(self), principal: principal.to_owned() })
    }
}

/// The place of one open stream.
pub(super) struct Place {
    streams: Arc<Streams>,
    principal: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all = open.all.saturating_sub(1);
        let left = open.by_principal.get(&self.principal).copied().unwrap_or(0).saturating_sub(1);
        if left == 0 {
            open.by_principal.remove(&self.principal);
        } else {
            open.by_principal.insert(self.principal.clone(), left);
        }
        self.streams.metrics.streams_open(open.all);
    }
}

/// Ends a stream at shutdown, and after its longest life. Its place is free as soon as it ends, or its reader is gone.
pub(super) fn until_the_end<S: futures::Stream + Send + 'static>(
    http: &Http,
    place: Place,
    stream: S,
) -> impl futures::Stream<Item = S::Item> + Send + 'static {
    let (stop, clock) = (http.stop.clone(), Arc::clone(&http.app.clock));
    let end = async move {
        let _place = place;
        tokio::select! {
            () = stop.cancelled() => {}
            () = clock.sleep(LONGEST_STREAM) => {}
        }
    };
    futures::StreamExt::take_until(stream, Box::pin(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_stream_ends() {
        let streams = Streams::new(StreamLimits { of_one: 2, of_all: 3 }, Arc::new(Metrics::new()));
        let status = |principal: &str| streams.open(principal).map_err(|fault| fault.problem.status);
        let (first, second) = (status("a").unwrap(), status("a").unwrap());
        assert_eq!(status("a").err(), Some(429));
        let third = status("b").unwrap();
        assert_eq!(status("c").err(), Some(503));
        drop(first);
        let fourth = status("c").unwrap();
        assert_eq!(status("a").err(), Some(503), "its own limit is not reached, that of all is");
        drop((second, third, fourth));
        let open = streams.open.lock().unwrap();
        assert_eq!((open.all, open.by_principal.len()), (0, 0));
    }
}
