//! Wires: what lies between two TAPs, with delay, jitter, loss, rate, cuts and light.
//!
//! Each direction is a thread that reads one TAP, keeps frames until they are due, and writes the other: no kernel
//! module (`netem`, `fq`) is needed, and it works in a user namespace. Frames of 64 KiB pass whole (`virtio_net_hdr`).

mod line;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

pub use line::{Fate, Line};

use super::error::NetError;
use super::priority::prefer_this_thread;
use super::spec::Impairment;
use super::tap::{HEADER, MAX_FRAME, Tap};

/// Frames read in a row before those that are due get their turn.
const BATCH: usize = 64;

/// Which directions of a wire lose everything, silently: the light stays on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cut {
    /// Neither.
    #[default]
    None,
    /// Both.
    Both,
    /// Only from the first end to the second.
    AToB,
    /// Only from the second end to the first.
    BToA,
}

/// A change of a wire; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WireChange {
    /// Silent cut.
    pub cut: Option<Cut>,
    /// Light at both ends.
    pub carrier: Option<bool>,
    /// One-way delay in microseconds.
    pub delay_us: Option<u64>,
    /// Greatest deviation from the delay, in microseconds.
    pub jitter_us: Option<u64>,
    /// Frames lost at random, in millionths.
    pub loss_ppm: Option<u32>,
    /// Line rate in bits per second; 0 is no limit.
    pub rate_bps: Option<u64>,
    /// Depth of the queue in microseconds at the line rate.
    pub queue_us: Option<u64>,
}

/// What one direction of a wire has done with frames so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    /// Frames handed to the far end.
    pub frames: u64,
    /// Bytes of them, without the TAP's own header.
    pub bytes: u64,
    /// Frames lost at random or by a cut.
    pub lost: u64,
    /// Frames that found the queue full.
    pub overflowed: u64,
    /// Frames that the far end's kernel refused, as where its interface is down.
    pub refused: u64,
    /// Frames put on the wire by their 802.1Q tag, as it stands in their bytes.
    pub tags: BTreeMap<u16, u64>,
}

/// A wire as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WireStatus {
    /// Parameters, in both directions.
    pub wire: Impairment,
    /// Silent cut.
    pub cut: Cut,
    /// Light at both ends.
    pub carrier: bool,
    /// Whether what each end sends is read by the other: not where the stand-in for MACsec is run and they share no key.
    /// Where the kernel encrypts the wire carries all.
    pub keyed: [bool; 2],
    /// From the first end to the second.
    pub a_to_b: Counters,
    /// From the second end to the first.
    pub b_to_a: Counters,
}

#[derive(Debug)]
struct Settings {
    wire: Impairment,
    cut: Cut,
    carrier: bool,
    keyed: [bool; 2],
}

#[derive(Debug, Default)]
struct Direction {
    cut: AtomicBool,
    frames: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
    overflowed: AtomicU64,
    refused: AtomicU64,
    tags: Mutex<BTreeMap<u16, u64>>,
}

impl Direction {
    fn counters(&self) -> Counters {
        Counters {
            frames: self.frames.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            lost: self.lost.load(Relaxed),
            overflowed: self.overflowed.load(Relaxed),
            refused: self.refused.load(Relaxed),
            tags: self.tags.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// A wire between two TAPs. Dropping it takes both away.
#[derive(Debug)]
pub struct Wire {
    name: String,
    taps: [Arc<Tap>; 2],
    settings: Arc<Mutex<Settings>>,
    directions: [Arc<Direction>; 2],
    stop: Arc<EventFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Wire {
    /// Joins two TAPs that were made with [`super::tap::Offload::Full`].
    ///
    /// # Errors
    /// [`NetError::Wire`] where a thread or timer cannot be had.
    pub fn join(name: &str, a: Tap, b: Tap, wire: Impairment, seed: u64) -> Result<Self, NetError> {
        let fail = |operation| move |source| NetError::Wire { wire: name.to_owned(), operation, source };
        let taps = [Arc::new(a), Arc::new(b)];
        let settings = Arc::new(Mutex::new(Settings { wire, cut: Cut::None, carrier: true, keyed: [true; 2] }));
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let stop = EventFd::from_flags(flags).map_err(|e| fail("make its stop signal")(e.into()))?;
        let mut joined = Self {
            name: name.to_owned(),
            taps,
            settings,
            directions: Default::default(),
            stop: Arc::new(stop),
            threads: Vec::new(),
        };
        for (i, direction) in joined.directions.iter().enumerate() {
            let timer = TimerFd::new(TimerClock::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)
                .map_err(|e| fail("make its timer")(e.into()))?;
            let carrier = Carrier {
                from: Arc::clone(&joined.taps[i]),
                to: Arc::clone(&joined.taps[1 - i]),
                settings: Arc::clone(&joined.settings),
                direction: Arc::clone(direction),
                stop: Arc::clone(&joined.stop),
                timer,
                line: Line::new(seed.wrapping_mul(2).wrapping_add(i as u64)),
            };
            let thread = std::thread::Builder::new()
                .name(format!("wire-{name}-{i}"))
                .spawn(move || carrier.run())
                .map_err(fail("start its thread"))?;
            joined.threads.push(thread);
        }
        Ok(joined)
    }

    /// The wire's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Changes the wire at once.
    ///
    /// # Errors
    /// [`NetError::Tap`] where the light cannot be switched, [`NetError::Spec`] where the parameters cannot hold.
    pub fn change(&self, change: &WireChange) -> Result<(), NetError> {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wire = settings.wire;
        wire.delay_us = change.delay_us.unwrap_or(wire.delay_us);
        wire.jitter_us = change.jitter_us.unwrap_or(wire.jitter_us);
        wire.loss_ppm = change.loss_ppm.unwrap_or(wire.loss_ppm);
        wire.rate_bps = change.rate_bps.unwrap_or(wire.rate_bps);
        wire.queue_us = change.queue_us.unwrap_or(wire.queue_us);
        wire.validate()?;
        if let Some(on) = change.carrier {
            for tap in &self.taps {
                tap.set_carrier(on)?;
            }
            settings.carrier = on;
        }
        settings.wire = wire;
        settings.cut = change.cut.unwrap_or(settings.cut);
        self.switch(&settings);
        Ok(())
    }

    /// Tells whether what each end sends is read by the other, where no kernel sees to it.
    pub(super) fn key(&self, keyed: [bool; 2]) {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        settings.keyed = keyed;
        self.switch(&settings);
    }

    fn switch(&self, settings: &Settings) {
        // No light carries nothing, even where an end has not seen it go yet.
        let dark = !settings.carrier;
        let [a_to_b, b_to_a] = settings.keyed;
        self.directions[0].cut.store(dark || !a_to_b || matches!(settings.cut, Cut::Both | Cut::AToB), Relaxed);
        self.directions[1].cut.store(dark || !b_to_a || matches!(settings.cut, Cut::Both | Cut::BToA), Relaxed);
    }

    /// The wire as it is now.
    #[must_use]
    pub fn status(&self) -> WireStatus {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        WireStatus {
            wire: settings.wire,
            cut: settings.cut,
            carrier: settings.carrier,
            keyed: settings.keyed,
            a_to_b: self.directions[0].counters(),
            b_to_a: self.directions[1].counters(),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // An eventfd refuses a write only when its counter is full, and then it is readable all the same.
        let _ = self.stop.write(1);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

struct Carrier {
    from: Arc<Tap>,
    to: Arc<Tap>,
    settings: Arc<Mutex<Settings>>,
    direction: Arc<Direction>,
    stop: Arc<EventFd>,
    timer: TimerFd,
    line: Line,
}

impl Carrier {
    fn run(mut self) {
        prefer_this_thread();
        let mut buffer = vec![0; HEADER + MAX_FRAME];
        loop {
            match self.turn(&mut buffer) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(tap = self.from.name(), %error, "a direction of a wire ends");
                    return;
                }
            }
        }
    }

    /// Waits for a frame, for one that is due, or for the end; `false` is the end.
    fn turn(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut events = [
            PollFd::new(self.from.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.stop.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut events, PollTimeout::NONE) {
            Err(Errno::EINTR) => return Ok(true),
            done => done?,
        };
        let ready = |event: &PollFd<'_>| event.revents().is_some_and(|r| !r.is_empty());
        let [frames, timer, stop] = events.each_ref().map(ready);
        if stop {
            return Ok(false);
        }
        if timer {
            self.timer.wait()?;
        }
        if frames {
            self.read(buffer)?;
        }
        self.write()?;
        Ok(true)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let wire = self.settings.lock().unwrap_or_else(PoisonError::into_inner).wire;
        for _ in 0..BATCH {
            let length = match self.from.receive(buffer) {
                Ok(length) => length,
                // EIO: the interface is down; EBADFD never happens to an attached TAP.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock || e.raw_os_error() == Some(libc::EIO) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let frame = &buffer[..length];
            if let Some(tag) = tag(&frame[HEADER.min(length)..]) {
                *self.direction.tags.lock().unwrap_or_else(PoisonError::into_inner).entry(tag).or_default() += 1;
            }
            let cut = self.direction.cut.load(Relaxed);
            let counter = match self.line.offer(monotonic()?, &wire, cut, frame) {
                Fate::Carried => continue,
                Fate::Lost => &self.direction.lost,
                Fate::Overflowed => &self.direction.overflowed,
            };
            counter.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        if self.direction.cut.load(Relaxed) {
            // What is under way when the fibre is cut is lost too.
            self.direction.lost.fetch_add(self.line.clear() as u64, Relaxed);
        }
        while let Some(frame) = self.line.arrived(monotonic()?) {
            // Counted before it is handed over: who has received a frame finds it in the counters.
            let bytes = frame.len().saturating_sub(HEADER) as u64;
            self.direction.frames.fetch_add(1, Relaxed);
            self.direction.bytes.fetch_add(bytes, Relaxed);
            if self.to.send(&frame).is_err() {
                self.direction.frames.fetch_sub(1, Relaxed);
                self.direction.bytes.fetch_sub(bytes, Relaxed);
                self.direction.refused.fetch_add(1, Relaxed);
            }
        }
        if let Some(due) = self.line.next_due() {
            let at = Expiration::OneShot(TimeSpec::from_duration(Duration::from_nanos(due)));
            self.timer.set(at, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
        }
        Ok(())
    }
}

/// The 802.1Q tag of an Ethernet frame.
fn tag(frame: &[u8]) -> Option<u16> {
    match frame {
        [_, _, _, _, _, _, _, _, _, _, _, _, 0x81, 0x00, high, low, ..] => {
            Some(u16::from_be_bytes([*high, *low]) & 0x0fff)
        }
        _ => None,
    }
}

fn monotonic() -> io::Result<u64> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    Ok(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_from_the_bytes() {
        let mut frame = vec![0u8; 60];
        assert_eq!(tag(&frame), None);
        frame[12..16].copy_from_slice(&[0x81, 0x00, 0xe0, 0x64]);
        assert_eq!(tag(&frame), Some(100));
        assert_eq!(tag(&frame[..15]), None);
    }
}
