//! Traffic from one namespace to the other, and what arrives of it.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::{Ends, ground::Ground};
use crate::shell::clock;

pub(super) const PORT: u16 = 7_007;
/// Before anything is counted: the window opens, and sessions warm up.
const WARM: Duration = Duration::from_millis(500);
/// Longest wait for a connection, and for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of one write.
const BLOCK: usize = 128 << 10;
/// Between two datagrams whose way is timed.
const PACE: Duration = Duration::from_millis(1);

/// What receivers count, and when all are to stop.
#[derive(Default)]
struct Counted {
    got: AtomicU64,
    stop: AtomicBool,
}

impl Counted {
    /// What is counted in `time`, a second, after the beginning.
    fn rate(&self, time: Duration) -> f64 {
        std::thread::sleep(WARM);
        let (before, started) = (self.got.load(Ordering::Relaxed), clock::now());
        std::thread::sleep(time);
        let got = self.got.load(Ordering::Relaxed) - before;
        let rate = got as f64 / started.elapsed().as_secs_f64();
        self.stop.store(true, Ordering::Relaxed);
        rate
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

type Thread = JoinHandle<io::Result<io::Result<()>>>;

fn end(threads: Vec<Thread>) -> io::Result<()> {
    for thread in threads {
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))??;
    }
    Ok(())
}

/// Bytes a second that arrive by so many TCP connections.
pub(super) fn tcp(ground: &Ground, ends: Ends, streams: usize, time: Duration) -> io::Result<f64> {
    let listener = ground.within(1, move || TcpListener::bind(ends.to))?;
    let counted = Arc::new(Counted::default());
    let mut threads: Vec<Thread> = Vec::new();
    for _ in 0..streams {
        let mut from = ground.within(0, move || TcpStream::connect_timeout(&ends.to, PATIENCE))?;
        let (mut to, _) = listener.accept()?;
        from.set_write_timeout(Some(PATIENCE))?;
        to.set_read_timeout(Some(PATIENCE))?;
        let count = Arc::clone(&counted);
        threads.push(ground.0[1].spawn("bench-to", move || {
            let mut block = vec![0; BLOCK];
            loop {
                match to.read(&mut block)? {
                    0 => return Ok(()),
                    length => count.got.fetch_add(length as u64, Ordering::Relaxed),
                };
            }
        })?);
        let count = Arc::clone(&counted);
        threads.push(ground.0[0].spawn("bench-from", move || {
            let block = vec![0; BLOCK];
            while !count.stopped() {
                from.write_all(&block)?;
            }
            Ok(())
        })?);
    }
    let rate = counted.rate(time);
    end(threads).map(|()| rate)
}

fn sockets(ground: &Ground, ends: Ends) -> io::Result<(UdpSocket, UdpSocket)> {
    let to = ground.within(1, move || UdpSocket::bind(ends.to))?;
    let from = ground.within(0, move || {
        let socket = UdpSocket::bind(ends.from)?;
        socket.connect(ends.to)?;
        Ok(socket)
    })?;
    to.set_read_timeout(Some(Duration::from_millis(100)))?;
    from.set_read_timeout(Some(Duration::from_millis(100)))?;
    Ok((from, to))
}

/// Datagrams a second that arrive, when they are sent as fast as one thread can.
pub(super) fn udp(ground: &Ground, ends: Ends, length: usize, time: Duration) -> io::Result<f64> {
    let (from, to) = sockets(ground, ends)?;
    let counted = Arc::new(Counted::default());
    let count = Arc::clone(&counted);
    let receiver = ground.0[1].spawn("bench-to", move || {
        let mut bytes = [0; 2_048];
        while !count.stopped() {
            // An error is the timeout.
            if to.recv(&mut bytes).is_ok() {
                count.got.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    })?;
    let count = Arc::clone(&counted);
    let sender = ground.0[0].spawn("bench-from", move || {
        let bytes = vec![0; length];
        while !count.stopped() {
            // What is not taken is lost, as on any network.
            let _ = from.send(&bytes);
        }
        Ok(())
    })?;
    let rate = counted.rate(time);
    end(vec![receiver, sender]).map(|()| rate)
}

/// Round trips in microseconds, the median and the 99th percentile, with nothing else on the way.
pub(super) fn latency(ground: &Ground, ends: Ends, time: Duration) -> io::Result<(f64, f64)> {
    let (from, to) = sockets(ground, ends)?;
    let counted = Arc::new(Counted::default());
    let count = Arc::clone(&counted);
    let echo = ground.0[1].spawn("bench-to", move || {
        let mut bytes = [0; 64];
        while !count.stopped() {
            if let Ok((length, from)) = to.recv_from(&mut bytes) {
                let _ = to.send_to(&bytes[..length], from);
            }
        }
        Ok(())
    })?;
    let mut trips = Vec::new();
    let (started, mut bytes) = (clock::now(), [0; 64]);
    let mut number = 0_u64;
    while started.elapsed() < time {
        let sent = clock::now();
        number += 1;
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        from.send(&bytes)?;
        while from.recv(&mut bytes).is_ok() {
            if bytes[..8] == number.to_be_bytes() {
                trips.push(sent.elapsed().as_secs_f64() * 1e6);
                break;
            }
        }
        std::thread::sleep((sent + PACE).saturating_duration_since(clock::now()));
    }
    counted.stop.store(true, Ordering::Relaxed);
    end(vec![echo])?;
    trips.sort_by(f64::total_cmp);
    let at = |hundredths: usize| trips.get(trips.len() * hundredths / 100).copied();
    at(50).zip(at(99)).ok_or_else(|| io::Error::from(io::ErrorKind::TimedOut))
}
