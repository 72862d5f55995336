//! Round trips of small datagrams through a tunnel, a thousand a second.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    contender::{Pair, inner},
    measure::Measured,
};

const PORT: u16 = 7_007;
const EVERY: Duration = Duration::from_millis(1);
/// A later answer is a lost one.
const LATE: Duration = Duration::from_millis(500);

fn bind(pair: &Pair, n: usize) -> Result<UdpSocket, String> {
    let address = SocketAddr::new(inner(n), PORT);
    let made = pair.0[n].run(move || UdpSocket::bind(address)).join().map_err(|_| "no thread".to_owned())?;
    made.and_then(|made| made).map_err(|error| error.to_string())
}

pub(crate) fn take(pair: &Pair, seconds: u32) -> Result<Measured, String> {
    let (echo, socket) = (bind(pair, 1)?, bind(pair, 0)?);
    for socket in [&echo, &socket] {
        socket.set_read_timeout(Some(LATE)).map_err(|error| error.to_string())?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let answers = std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while !stopped.load(Ordering::Relaxed) {
            if let Ok((length, from)) = echo.recv_from(&mut bytes) {
                let _ = echo.send_to(&bytes[..length], from);
            }
        }
    });
    let to = SocketAddr::new(inner(1), PORT);
    let (mut trips, mut bytes) = (Vec::new(), [0; 64]);
    let started = Instant::now();
    for number in 0..u64::from(seconds) * 1_000 {
        let sent = Instant::now();
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        if socket.send_to(&bytes, to).is_ok() {
            while let Ok(length) = socket.recv(&mut bytes) {
                if length >= 8 && bytes[..8] == number.to_be_bytes() {
                    trips.push(sent.elapsed().as_secs_f64() * 1e6);
                    break;
                }
            }
        }
        if started.elapsed() > Duration::from_secs(u64::from(seconds)) {
            break;
        }
        std::thread::sleep((sent + EVERY).saturating_duration_since(Instant::now()));
    }
    stop.store(true, Ordering::Relaxed);
    let _ = answers.join();
    trips.sort_by(f64::total_cmp);
    let at = |share: f64| trips.get((trips.len() as f64 * share) as usize).copied();
    let rtt_us = at(0.5).zip(at(0.99)).ok_or("no answer came back")?;
    Ok(Measured { rtt_us, ..Measured::default() })
}
