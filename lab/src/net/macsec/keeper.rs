//! Who makes routers do what they were told of MACsec, and asks them what they do.

use std::collections::BTreeMap;
use std::sync::Arc;

use tieline_openapi::coordinator::Sensitive;

use super::device::{Held, NUMBERS};
use super::sak::{KeyId, Sak};
use super::{MacSecError, MacSecHeld, MacSecKey, MacSecStatus, MacSecWanted, Trunks, is};
use crate::net::error::NetError;
use crate::net::router::{Router, trunk};
use crate::net::spec::{End, MacSecWay};
use crate::net::wire::Wire;

/// The MACsec of both routers.
#[derive(Debug)]
pub(in crate::net) struct Keeper {
    /// `None` until it is known what this machine can.
    way: Option<MacSecWay>,
    /// What this lab's keys are derived with.
    drawn: [u8; 32],
    trunks: Trunks,
    numbers: BTreeMap<usize, Numbers>,
}

impl Keeper {
    /// Takes the given way, or with `None` finds the best one with the first keys.
    #[expect(clippy::disallowed_methods, reason = "a lab that is played again must not use its keys again")]
    pub(in crate::net) fn new(forced: Option<MacSecWay>) -> Self {
        Self { way: forced, drawn: rand::random(), trunks: Trunks::default(), numbers: BTreeMap::new() }
    }

    /// Makes the keys of one end of a trunk what is wanted; how it is then.
    pub(in crate::net) async fn put(
        &mut self,
        routers: &[Arc<Router>; 2],
        wire: &Wire,
        channel: usize,
        end: End,
        wanted: &MacSecWanted,
    ) -> Result<MacSecHeld, NetError> {
        let refused = |source| NetError::MacSec { trunk: trunk(channel), source };
        wanted.check().map_err(refused)?;
        match self.way(&routers[end as usize], channel).await? {
            MacSecWay::Kernel => self.put_into_kernel(routers, channel, end, wanted).await,
            MacSecWay::StandIn => {
                let (held, arrives) = self.trunks.put(channel, end, wanted).map_err(refused)?;
                wire.key(arrives);
                Ok(held)
            }
        }
    }

    async fn way(&mut self, router: &Router, channel: usize) -> Result<MacSecWay, NetError> {
        if let Some(way) = self.way {
            return Ok(way);
        }
        let way = match router.secure(channel).await {
            Ok(()) => MacSecWay::Kernel,
            Err(error) if cannot(&error) => {
                tracing::debug!(%error, "this machine has no MACsec for a lab");
                MacSecWay::StandIn
            }
            Err(other) => return Err(other),
        };
        self.way = Some(way);
        Ok(way)
    }

    /// New keys first, then what each end uses, then old keys go: no step takes away what another end still sends under. What
    /// fails is told when the rest is done, and stays as the devices say.
    async fn put_into_kernel(
        &mut self,
        routers: &[Arc<Router>; 2],
        channel: usize,
        end: End,
        wanted: &MacSecWanted,
    ) -> Result<MacSecHeld, NetError> {
        let router = &routers[end as usize];
        let saks = self.number(channel, wanted)?;
        router.secure(channel).await?;
        self.trunks.tell(channel, end, wanted);
        let mut done = router.install(channel, &saks).await;
        let held = router.macsec(channel).await?;
        let ids = self.ids(channel, wanted);
        self.trunks.install(channel, end, |key| ids.iter().any(|(ckn, id)| is(ckn, &key.ckn) && held.has(id)));
        self.trunks.settle(channel);
        for (end, router) in [End::A, End::B].into_iter().zip(routers) {
            if self.trunks.end(channel, end).is_some() {
                let used = self.trunks.to_use(channel, end).cloned();
                let id = used.and_then(|ckn| self.id(channel, end, &ckn));
                done = done.and(router.send_under(channel, id).await);
            }
        }
        done = done.and(router.keep_only(channel, &ids.iter().map(|(_, id)| *id).collect()).await);
        for (end, router) in [End::A, End::B].into_iter().zip(routers) {
            if self.trunks.end(channel, end).is_some() {
                let held = router.macsec(channel).await;
                let active = held.as_ref().ok().and_then(|held| self.name(channel, end, held.active?));
                self.trunks.report(channel, end, active);
                done = done.and(held.map(drop));
            }
        }
        done.map(|()| self.trunks.held(channel, end))
    }

    /// What is wanted, derived and numbered.
    fn number(&mut self, channel: usize, wanted: &MacSecWanted) -> Result<Vec<(u8, Sak)>, NetError> {
        let name = trunk(channel);
        let numbers = self.numbers.entry(channel).or_default();
        numbers.keep(|ckn| self.trunks.knows(channel, ckn));
        let number = |key: &MacSecKey| {
            let an = numbers.give(&key.ckn).ok_or(MacSecError::Numbers)?;
            Ok((an, Sak::derive(&self.drawn, &name, key)?))
        };
        let numbered: Result<_, MacSecError> = wanted.keys.iter().map(number).collect();
        numbered.map_err(|source| NetError::MacSec { trunk: name.clone(), source })
    }

    /// What a trunk's keys are known by in the kernel.
    fn ids(&self, channel: usize, wanted: &MacSecWanted) -> Vec<(Sensitive, KeyId)> {
        let name = trunk(channel);
        let id = |key: &MacSecKey| Sak::derive(&self.drawn, &name, key).ok().map(|sak| (key.ckn.clone(), sak.id));
        wanted.keys.iter().filter_map(id).collect()
    }

    fn end_ids(&self, channel: usize, end: End) -> Vec<(Sensitive, KeyId)> {
        self.trunks.end(channel, end).map(|keyed| self.ids(channel, &keyed.wanted)).unwrap_or_default()
    }

    fn id(&self, channel: usize, end: End, ckn: &Sensitive) -> Option<KeyId> {
        self.end_ids(channel, end).into_iter().find(|(name, _)| is(name, ckn)).map(|(_, id)| id)
    }

    fn name(&self, channel: usize, end: End, id: KeyId) -> Option<Sensitive> {
        self.end_ids(channel, end).into_iter().find(|(_, known)| *known == id).map(|(name, _)| name)
    }

    /// What there is to tell of one router's trunks: of the kernel's, what it says now.
    pub(in crate::net) async fn status(&self, end: End, router: &Router) -> BTreeMap<String, MacSecStatus> {
        let mut all = BTreeMap::new();
        let way = self.way.unwrap_or_default();
        for (channel, changes) in self.trunks.run(end) {
            let (installed, active) = match way {
                MacSecWay::StandIn => {
                    let held = self.trunks.held(channel, end);
                    (held.installed.len(), held.active.is_some())
                }
                MacSecWay::Kernel => {
                    let held = router.macsec(channel).await.unwrap_or_else(|error| {
                        tracing::warn!(%error, "a router does not tell of its MACsec");
                        Held::default()
                    });
                    (held.installed.len(), held.active.is_some())
                }
            };
            all.insert(trunk(channel), MacSecStatus { installed, active, changes, way });
        }
        all
    }
}

/// Whether the machine lacks MACsec, or keeps it from this process: no such kind of link, no such family or cipher, no right.
fn cannot(error: &NetError) -> bool {
    let lacking = [
        libc::EOPNOTSUPP,
        libc::EPERM,
        libc::EACCES,
        libc::EINVAL,
        libc::ENOENT,
        libc::ENOSYS,
        libc::EPROTONOSUPPORT,
        libc::EAFNOSUPPORT,
    ];
    lacking.iter().any(|errno| error.is_errno(*errno))
}

/// Association numbers of a trunk's keys. Between real devices one end gives them and tells the other; a number comes again as
/// late as may be, for what was sent under its last key may still be on its way.
#[derive(Debug)]
struct Numbers {
    names: [Option<Sensitive>; NUMBERS],
    last: usize,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { names: [const { None }; NUMBERS], last: NUMBERS - 1 }
    }
}

impl Numbers {
    /// Frees the numbers of all other keys.
    fn keep(&mut self, known: impl Fn(&Sensitive) -> bool) {
        for name in &mut self.names {
            if name.as_ref().is_some_and(|ckn| !known(ckn)) {
                *name = None;
            }
        }
    }

    /// The number of a key, which may be a new one.
    fn give(&mut self, ckn: &Sensitive) -> Option<u8> {
        let given = self.names.iter().position(|name| name.as_ref().is_some_and(|name| is(name, ckn)));
        let mut turn = (1..=NUMBERS).map(|step| (self.last + step) % NUMBERS);
        let an = match given {
            Some(an) => an,
            None => {
                let free = turn.find(|an| self.names[*an].is_none())?;
                self.names[free] = Some(ckn.clone());
                self.last = free;
                free
            }
        };
        u8::try_from(an).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_number_and_a_number_rests_for_as_long_as_may_be() {
        let name = |n: u8| Sensitive::new(format!("{n:02x}"));
        let mut numbers = Numbers::default();
        let mut give = |known: &[u8], n: u8| {
            numbers.keep(|ckn| known.iter().any(|n| name(*n) == *ckn));
            numbers.give(&name(n))
        };
        assert_eq!((give(&[], 0xa), give(&[0xa], 0xb), give(&[0xa, 0xb], 0xa)), (Some(0), Some(1), Some(0)));
        assert_eq!((give(&[0xb], 0xc), give(&[0xc], 0xd), give(&[0xd], 0xe)), (Some(2), Some(3), Some(0)));
        // Four at once, and no fifth; one that is known has its number in either case.
        assert_eq!((give(&[0xd, 0xe], 1), give(&[0xd, 0xe, 1], 2)), (Some(1), Some(2)));
        assert_eq!((give(&[0xd, 0xe, 1, 2], 3), give(&[0xd, 0xe, 1, 2], 0xd)), (None, Some(3)));
        assert_eq!(numbers.give(&Sensitive::new("0D")), Some(3));
    }
}
