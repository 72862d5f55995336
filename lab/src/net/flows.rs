//! Traffic between two hosts, and what became of it: what tests assert and the demo shows.
//!
//! Each half takes a bound socket, so that it runs in whatever namespace the socket was made in, and calls back with
//! serialisable reports (a line of JSON each, where a command prints them).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Head of every datagram: who speaks, so that strangers' packets are not counted.
const MAGIC: [u8; 4] = *b"TLfl";
/// Bytes of a datagram's fields: magic, sequence number, time of sending.
const FIELDS: usize = 4 + 8 + 8;
/// Bytes that a receiver's socket may hold.
const ROOM: usize = 8 << 20;
/// Datagrams received after which a report is made, where time does not say so first.
const BLOCK: usize = 16 << 10;

/// How a UDP flow is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UdpFlow {
    /// Datagrams in a second.
    pub rate_pps: u32,
    /// Payload of a datagram in bytes, at least 20.
    pub payload_bytes: u16,
}

impl Default for UdpFlow {
    /// 1000 datagrams of 200 bytes in a second.
    fn default() -> Self {
        Self { rate_pps: 1_000, payload_bytes: 200 }
    }
}

/// What a UDP sender has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UdpSent {
    /// Datagrams sent: sequence numbers 0 to this, less one.
    pub sent: u64,
    /// Datagrams that this host's own kernel refused; they count as sent.
    pub refused: u64,
}

/// What a UDP receiver has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UdpReceived {
    /// Different datagrams received.
    pub received: u64,
    /// Datagrams that are missing up to the highest number seen.
    pub lost: u64,
    /// Datagrams that arrived behind one with a higher number.
    pub reordered: u64,
    /// Datagrams that arrived again.
    pub duplicated: u64,
    /// Longest time between two arrivals, in microseconds.
    pub longest_gap_us: u64,
    /// Most datagrams missing in a row, when the next one arrived.
    pub longest_loss: u64,
    /// Least one-way delay in microseconds, where both hosts share a clock, as those of a lab do.
    pub least_delay_us: u64,
    /// Greatest one-way delay in microseconds.
    pub greatest_delay_us: u64,
}

/// Counts what arrives of a numbered flow. Times are nanoseconds of one monotonic clock.
#[derive(Debug, Default)]
pub struct Tally {
    report: UdpReceived,
    next: u64,
    last_arrival: Option<u64>,
    /// Numbers below `next` that have not arrived.
    missing: std::collections::BTreeSet<u64>,
}

/// Missing numbers that are remembered; older ones are lost for good.
const REMEMBERED: usize = 1 << 16;

impl Tally {
    /// Counts a datagram.
    pub fn arrived(&mut self, sequence: u64, sent_ns: u64, now_ns: u64) {
        let report = &mut self.report;
        if let Some(last) = self.last_arrival.replace(now_ns) {
            report.longest_gap_us = report.longest_gap_us.max(now_ns.saturating_sub(last) / 1_000);
        }
        let delay = now_ns.saturating_sub(sent_ns) / 1_000;
        report.least_delay_us = if report.received == 0 { delay } else { report.least_delay_us.min(delay) };
        report.greatest_delay_us = report.greatest_delay_us.max(delay);
        if sequence >= self.next {
            let gap = sequence - self.next;
            report.longest_loss = report.longest_loss.max(gap);
            report.lost += gap;
            let oldest = sequence.saturating_sub(REMEMBERED as u64).max(self.next);
            self.missing.extend(oldest..sequence);
            while self.missing.len() > REMEMBERED {
                self.missing.pop_first();
            }
            self.next = sequence + 1;
        } else if self.missing.remove(&sequence) {
            report.lost -= 1;
            report.reordered += 1;
        } else {
            report.duplicated += 1;
            return;
        }
        report.received += 1;
    }

    /// What has been counted so far.
    #[must_use]
    pub fn report(&self) -> UdpReceived {
        self.report
    }
}

/// Sends a numbered flow until it is stopped.
///
/// # Errors
/// Where the clock cannot be read. A kernel that refuses a datagram is counted, not an error: that is what an outage
/// looks like to a host.
pub async fn udp_send(
    socket: &UdpSocket,
    to: SocketAddr,
    flow: UdpFlow,
    stop: CancellationToken,
) -> io::Result<UdpSent> {
    let mut report = UdpSent::default();
    let mut datagram = vec![0; usize::from(flow.payload_bytes).max(FIELDS)];
    datagram[..4].copy_from_slice(&MAGIC);
    let mut pace = tokio::time::interval(Duration::from_secs(1) / flow.rate_pps.max(1));
    // A sender that was held up catches up: the rate holds over any second, and numbers stand for time.
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(report),
            _ = pace.tick() => {}
        }
        datagram[4..12].copy_from_slice(&report.sent.to_be_bytes());
        datagram[12..20].copy_from_slice(&monotonic()?.to_be_bytes());
        if socket.send_to(&datagram, to).await.is_err() {
            report.refused += 1;
        }
        report.sent += 1;
    }
}

/// Receives a numbered flow until it is stopped, and reports at every interval and at the end.
///
/// # Errors
/// Where the socket or the clock fails.
pub async fn udp_receive(
    socket: &UdpSocket,
    every: Duration,
    stop: CancellationToken,
    mut report: impl FnMut(UdpReceived),
) -> io::Result<UdpReceived> {
    make_room(socket);
    let mut tally = Tally::default();
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let mut due = tokio::time::interval(every.max(Duration::from_millis(1)));
    due.tick().await;
    loop {
        let received = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(tally.report()),
            _ = due.tick() => {
                report(tally.report());
                continue;
            }
            received = socket.recv_from(&mut buffer) => received,
        };
        let length = match received {
            Ok((length, _)) => length,
            // An ICMP error that an earlier datagram of this socket has earned.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(e) => return Err(e),
        };
        if let Some((sequence, sent)) = fields(&buffer[..length]) {
            tally.arrived(sequence, sent, monotonic()?);
        }
    }
}

/// Room for seconds of datagrams, so that what a busy machine does not read at once is not lost at the last step. Where the
/// kernel grants less, that is what there is.
fn make_room(socket: &UdpSocket) {
    use nix::sys::socket::{setsockopt, sockopt};
    if setsockopt(socket, sockopt::RcvBufForce, &ROOM).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &ROOM);
    }
}

/// Sequence number and time of sending.
fn fields(datagram: &[u8]) -> Option<(u64, u64)> {
    let (magic, rest) = datagram.split_first_chunk::<4>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (sent, _) = rest.split_first_chunk::<8>()?;
    (*magic == MAGIC).then(|| (u64::from_be_bytes(*sequence), u64::from_be_bytes(*sent)))
}

/// What a TCP client has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpReport {
    /// Bytes that came back as they were sent.
    pub echoed_bytes: u64,
    /// Longest time between two arrivals, in microseconds.
    pub longest_stall_us: u64,
}

/// What ended a TCP flow before it was stopped.
#[derive(Debug, thiserror::Error)]
pub enum TcpError {
    /// The connection failed.
    #[error("the connection failed after {echoed_bytes} bytes")]
    Connection {
        /// Bytes that had come back.
        echoed_bytes: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A byte came back that was not sent.
    #[error("byte {at} came back as {got:#04x} instead of {sent:#04x}")]
    Corrupted {
        /// Its place in the flow.
        at: u64,
        /// What was sent there.
        sent: u8,
        /// What came back.
        got: u8,
    },
}

/// The byte at a place of every TCP flow: it repeats only after 2^64 bytes, so a shifted or doubled part is seen.
fn pattern(at: u64) -> u8 {
    let word = (at / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word.to_be_bytes()[(at % 8) as usize]
}

/// Sends back whatever arrives on any connection, until it is stopped.
///
/// # Errors
/// Where no more connections can be accepted.
pub async fn tcp_echo(listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let (mut stream, _) = accepted?;
                connections.spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        }
    }
}

/// Sends a known flow over a connection to [`tcp_echo`] and checks every byte that comes back, until it is stopped;
/// reports at every interval.
///
/// # Errors
/// [`TcpError`] with the place where the flow ended or was corrupted.
pub async fn tcp_check(
    stream: TcpStream,
    rate_bps: u64,
    every: Duration,
    stop: CancellationToken,
    mut report: impl FnMut(TcpReport),
) -> Result<TcpReport, TcpError> {
    let (mut from, to) = stream.into_split();
    let sender = tokio::spawn(tcp_send(to, rate_bps, stop.clone()));
    let mut done = TcpReport::default();
    let mut buffer = vec![0; BLOCK];
    let mut due = tokio::time::interval(every.max(Duration::from_millis(1)));
    due.tick().await;
    let failed = |done: &TcpReport, source| TcpError::Connection { echoed_bytes: done.echoed_bytes, source };
    let mut last = monotonic().map_err(|e| failed(&done, e))?;
    let outcome = loop {
        let read = tokio::select! {
            biased;
            () = stop.cancelled() => break Ok(()),
            _ = due.tick() => {
                // A stall that has not ended yet counts as it is.
                let waiting = monotonic().map_err(|e| failed(&done, e))?.saturating_sub(last) / 1_000;
                report(TcpReport { longest_stall_us: done.longest_stall_us.max(waiting), ..done });
                continue;
            }
            read = from.read(&mut buffer) => read,
        };
        let length = match read {
            Ok(0) => break Err(failed(&done, io::ErrorKind::UnexpectedEof.into())),
            Ok(length) => length,
            Err(e) => break Err(failed(&done, e)),
        };
        let now = monotonic().map_err(|e| failed(&done, e))?;
        done.longest_stall_us = done.longest_stall_us.max(now.saturating_sub(last) / 1_000);
        last = now;
        let wrong = buffer[..length].iter().zip(done.echoed_bytes..).find(|(got, at)| **got != pattern(*at));
        if let Some((got, at)) = wrong {
            break Err(TcpError::Corrupted { at, sent: pattern(at), got: *got });
        }
        done.echoed_bytes += length as u64;
    };
    sender.abort();
    outcome.map(|()| done)
}

/// Sends the known flow at a rate, in as many parts a second as it takes for parts to be small.
async fn tcp_send(mut to: tokio::net::tcp::OwnedWriteHalf, rate_bps: u64, stop: CancellationToken) -> io::Result<()> {
    let part = usize::try_from(rate_bps / 8 / 200).unwrap_or(BLOCK).clamp(1, BLOCK);
    let parts_per_second = (rate_bps / 8).div_ceil(part as u64).max(1);
    let mut pace = tokio::time::interval(Duration::from_nanos(1_000_000_000 / parts_per_second));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut at = 0;
    let mut bytes = vec![0; part];
    while !stop.is_cancelled() {
        pace.tick().await;
        for (byte, place) in bytes.iter_mut().zip(at..) {
            *byte = pattern(place);
        }
        to.write_all(&bytes).await?;
        at += part as u64;
    }
    Ok(())
}

fn monotonic() -> io::Result<u64> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    Ok(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
#[path = "flows_tests.rs"]
mod tests;
