//! The kernel's generic netlink family `macsec` (<linux/if_macsec.h>): requests, and what its dump tells.
//!
//! Requests are made here, and sent from the one buffer that they are made in: it holds keys, and is wiped.

use std::collections::BTreeMap;
use std::io;

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NlaBuffer, NlasIterator,
};
use rtnetlink::sys::{Socket, SocketAddr, constants::NETLINK_GENERIC};
use zeroize::Zeroizing;

use super::sak::{KeyId, Sak};
use crate::net::namespace::Namespace;

/// Octets of a netlink header, and of a generic one behind it.
const HEADERS: usize = 16 + 4;
/// More than the longest request has, so that the buffer never moves and leaves a copy behind.
const LONGEST: usize = 512;

// <linux/genetlink.h>
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

const NLA_F_NESTED: u16 = 0x8000;

/// `enum macsec_attrs`.
mod attribute {
    pub(super) const IFINDEX: u16 = 1;
    pub(super) const RXSC_CONFIG: u16 = 2;
    pub(super) const SA_CONFIG: u16 = 3;
    pub(super) const SECY: u16 = 4;
    pub(super) const TXSA_LIST: u16 = 5;
    pub(super) const RXSC_LIST: u16 = 6;
}

/// `enum macsec_secy_attrs`.
const SECY_ENCODING_SA: u16 = 2;

/// `enum macsec_rxsc_attrs`.
mod receiver {
    pub(super) const SCI: u16 = 1;
    pub(super) const ACTIVE: u16 = 2;
    pub(super) const SA_LIST: u16 = 3;
}

/// `enum macsec_sa_attrs`.
mod association {
    pub(super) const AN: u16 = 1;
    pub(super) const ACTIVE: u16 = 2;
    pub(super) const PN: u16 = 3;
    pub(super) const KEY: u16 = 4;
    pub(super) const KEYID: u16 = 5;
    pub(super) const SSCI: u16 = 8;
    pub(super) const SALT: u16 = 9;
}

/// `enum macsec_nl_commands`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Command {
    Get = 0,
    AddReceiver = 1,
    AddSending = 4,
    DeleteSending = 5,
    ChangeSending = 6,
    AddTaking = 7,
    DeleteTaking = 8,
    ChangeTaking = 9,
}

/// A secure channel's identifier (IEEE 802.1AE, 7.1.2): a system's address and a port.
pub(super) type Sci = [u8; 8];

/// What a cipher with extended packet numbers wants besides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extended {
    /// The short identifier of the channel that sends.
    pub(super) ssci: u32,
}

/// One secure association, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Association {
    pub(super) id: KeyId,
    pub(super) active: bool,
    /// The next packet number.
    pub(super) next: u64,
}

/// What a device holds, as the kernel tells it: associations by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) encoding: u8,
    pub(super) sending: BTreeMap<u8, Association>,
    pub(super) taking: BTreeMap<u8, Association>,
}

/// A connection to the family.
#[derive(Debug)]
pub(super) struct Genl {
    socket: Socket,
    family: u16,
    sequence: u32,
}

impl Genl {
    /// Opens one in a namespace; it stays there.
    pub(super) fn open(namespace: &Namespace) -> io::Result<Self> {
        let socket = namespace.run(|| {
            let mut socket = Socket::new(NETLINK_GENERIC)?;
            socket.bind_auto()?;
            Ok::<_, io::Error>(socket)
        });
        let socket = socket.map_err(io::Error::other)??;
        socket.connect(&SocketAddr::new(0, 0))?;
        // What is refused is not sent back: it may hold a key.
        socket.set_cap_ack(true)?;
        // The kernel has answered when a request is sent; what has no answer is no wait.
        socket.set_non_blocking(true)?;
        let mut genl = Self { socket, family: GENL_ID_CTRL, sequence: 0 };
        let mut request = Request::new(GENL_ID_CTRL, NLM_F_REQUEST | NLM_F_ACK, CTRL_CMD_GETFAMILY);
        request.put(CTRL_ATTR_FAMILY_NAME, b"macsec\0");
        let mut family = None;
        genl.ask(request, |payload| {
            let found = find(payload, CTRL_ATTR_FAMILY_ID)?;
            family = found.map(|id| number(id.value()).map(|id| id as u16)).transpose()?.or(family);
            Ok(())
        })?;
        genl.family = family.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(genl)
    }

    /// Takes what comes from another channel.
    pub(super) fn add_receiver(&mut self, device: u32, from: &Sci) -> io::Result<()> {
        let mut request = self.about(device, Command::AddReceiver);
        request.nest(attribute::RXSC_CONFIG, |nest| {
            nest.put(receiver::SCI, from);
            nest.put(receiver::ACTIVE, &[1]);
        });
        self.ask(request, |_| Ok(()))
    }

    /// Adds an association that is not active: to send with, or to take what comes from a channel.
    pub(super) fn add(
        &mut self,
        device: u32,
        from: Option<&Sci>,
        an: u8,
        sak: &Sak,
        next: u64,
        extended: Option<Extended>,
    ) -> io::Result<()> {
        let mut request = self.about(device, if from.is_some() { Command::AddTaking } else { Command::AddSending });
        request.from(from);
        request.nest(attribute::SA_CONFIG, |nest| {
            nest.put(association::AN, &[an]);
            nest.put(association::ACTIVE, &[0]);
            match extended {
                Some(Extended { ssci }) => {
                    nest.put(association::PN, &next.to_ne_bytes());
                    nest.put(association::SSCI, &ssci.to_be_bytes());
                    nest.put(association::SALT, sak.salt.as_slice());
                }
                // Numbers of 32 bits: a key that has used them all is one that nothing goes under.
                None => nest.put(association::PN, &u32::try_from(next).unwrap_or(u32::MAX).to_ne_bytes()),
            }
            nest.put(association::KEYID, &sak.id.0);
            nest.put(association::KEY, sak.key.as_slice());
        });
        self.ask(request, |_| Ok(()))
    }

    /// Makes an association active, or not.
    pub(super) fn switch(&mut self, device: u32, from: Option<&Sci>, an: u8, on: bool) -> io::Result<()> {
        let mut request =
            self.about(device, if from.is_some() { Command::ChangeTaking } else { Command::ChangeSending });
        request.from(from);
        request.nest(attribute::SA_CONFIG, |nest| {
            nest.put(association::AN, &[an]);
            nest.put(association::ACTIVE, &[on.into()]);
        });
        self.ask(request, |_| Ok(()))
    }

    /// Removes an association, which must not be active.
    pub(super) fn delete(&mut self, device: u32, from: Option<&Sci>, an: u8) -> io::Result<()> {
        let mut request =
            self.about(device, if from.is_some() { Command::DeleteTaking } else { Command::DeleteSending });
        request.from(from);
        request.nest(attribute::SA_CONFIG, |nest| nest.put(association::AN, &[an]));
        self.ask(request, |_| Ok(()))
    }

    /// What a device holds.
    pub(super) fn read(&mut self, device: u32) -> io::Result<Told> {
        let request = Request::new(self.family, NLM_F_REQUEST | NLM_F_DUMP, Command::Get as u8);
        let mut told = None;
        self.ask(request, |payload| {
            let of = find(payload, attribute::IFINDEX)?.map(|index| number(index.value())).transpose()?;
            if of == Some(device.into()) {
                told = Some(parse(payload)?);
            }
            Ok(())
        })?;
        told.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    fn about(&self, device: u32, command: Command) -> Request {
        let mut request = Request::new(self.family, NLM_F_REQUEST | NLM_F_ACK, command as u8);
        request.put(attribute::IFINDEX, &device.to_ne_bytes());
        request
    }

    /// Sends a request, and hands on every answer but the last, which says how it went.
    fn ask(&mut self, request: Request, mut heard: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(&request.finish(self.sequence), 0)?;
        loop {
            let (answer, _) = self.socket.recv_from_full()?;
            let mut rest = answer.as_slice();
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest).map_err(malformed)?;
                rest = rest.get((message.length() as usize).next_multiple_of(4)..).unwrap_or_default();
                if message.sequence_number() != self.sequence {
                    continue;
                }
                let payload = message.payload();
                match message.message_type() {
                    // A dump's end tells of an error as an answer does.
                    NLMSG_ERROR | NLMSG_DONE => {
                        let code = payload.get(..4).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes);
                        return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    _ => heard(payload.get(4..).unwrap_or_default())?,
                }
            }
        }
    }
}

/// A request in the making.
struct Request(Zeroizing<Vec<u8>>);

impl Request {
    fn new(family: u16, flags: u16, command: u8) -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST));
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&family.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&[command, 1, 0, 0]);
        Self(bytes)
    }

    fn from(&mut self, sci: Option<&Sci>) {
        if let Some(sci) = sci {
            self.nest(attribute::RXSC_CONFIG, |nest| nest.put(receiver::SCI, sci));
        }
    }

    fn put(&mut self, kind: u16, value: &[u8]) {
        // Attributes are short: what is told of an association.
        let length = (4 + value.len()) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.pad();
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.put(kind | NLA_F_NESTED, &[]);
        fill(self);
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn pad(&mut self) {
        let padded = self.0.len().next_multiple_of(4);
        self.0.resize(padded, 0);
    }

    fn finish(mut self, sequence: u32) -> Zeroizing<Vec<u8>> {
        debug_assert!((HEADERS..=LONGEST).contains(&self.0.len()), "a request of {} octets", self.0.len());
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

fn parse(payload: &[u8]) -> io::Result<Told> {
    let mut told = Told::default();
    if let Some(secy) = find(payload, attribute::SECY)?
        && let Some(encoding) = find(secy.value(), SECY_ENCODING_SA)?
    {
        told.encoding = number(encoding.value())? as u8;
    }
    if let Some(list) = find(payload, attribute::TXSA_LIST)? {
        told.sending = associations(list.value())?;
    }
    if let Some(list) = find(payload, attribute::RXSC_LIST)? {
        for channel in NlasIterator::new(list.value()) {
            let channel = channel.map_err(malformed)?;
            if let Some(list) = find(channel.value(), receiver::SA_LIST)? {
                told.taking.extend(associations(list.value())?);
            }
        }
    }
    Ok(told)
}

fn associations(list: &[u8]) -> io::Result<BTreeMap<u8, Association>> {
    let mut all = BTreeMap::new();
    for each in NlasIterator::new(list) {
        let each = each.map_err(malformed)?;
        let of = |kind| find(each.value(), kind)?.ok_or_else(|| io::ErrorKind::InvalidData.into());
        let told = |kind: u16| of(kind).and_then(|value: NlaBuffer<&[u8]>| number(value.value()));
        let id = of(association::KEYID)?;
        let id = KeyId(id.value().try_into().map_err(malformed)?);
        let found = Association { id, active: told(association::ACTIVE)? != 0, next: told(association::PN)? };
        all.insert(told(association::AN)? as u8, found);
    }
    Ok(all)
}

fn find(attributes: &[u8], kind: u16) -> io::Result<Option<NlaBuffer<&[u8]>>> {
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute.map_err(malformed)?;
        if attribute.kind() == kind {
            return Ok(Some(attribute));
        }
    }
    Ok(None)
}

/// A number of as many octets as there are.
fn number(value: &[u8]) -> io::Result<u64> {
    match *value {
        [one] => Ok(one.into()),
        [a, b] => Ok(u16::from_ne_bytes([a, b]).into()),
        [a, b, c, d] => Ok(u32::from_ne_bytes([a, b, c, d]).into()),
        _ => value.try_into().map(u64::from_ne_bytes).map_err(malformed),
    }
}

fn malformed<E: std::error::Error + Send + Sync + 'static>(source: E) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_laid_out_as_the_kernel_reads_it_and_moves_no_key() {
        let sak = Sak::trial();
        let mut request = Request::new(0x1c, NLM_F_REQUEST | NLM_F_ACK, Command::AddTaking as u8);
        let at = request.0.as_ptr();
        request.put(attribute::IFINDEX, &9_u32.to_ne_bytes());
        request.from(Some(&[2; 8]));
        request.nest(attribute::SA_CONFIG, |nest| {
            nest.put(association::AN, &[3]);
            nest.put(association::KEY, sak.key.as_slice());
        });
        let bytes = request.finish(7);
        assert_eq!(bytes.as_ptr(), at, "a buffer that moves leaves keys behind");
        let message = NetlinkBuffer::new_checked(bytes.as_slice()).unwrap();
        assert_eq!(
            (message.length() as usize, message.message_type(), message.sequence_number()),
            (bytes.len(), 0x1c, 7)
        );
        assert_eq!(message.payload()[..4], [7, 1, 0, 0]);
        let attributes = &message.payload()[4..];
        assert_eq!(number(find(attributes, attribute::IFINDEX).unwrap().unwrap().value()).unwrap(), 9);
        let channel = find(attributes, attribute::RXSC_CONFIG).unwrap().unwrap();
        assert_eq!(find(channel.value(), receiver::SCI).unwrap().unwrap().value(), [2; 8]);
        let config = find(attributes, attribute::SA_CONFIG).unwrap().unwrap();
        assert_eq!(find(config.value(), association::KEY).unwrap().unwrap().value(), sak.key.as_slice());
        assert_eq!(find(config.value(), association::PN).unwrap().map(|_| ()), None);
    }

    /// A dump's message of a device with one association to send with and two to take with.
    fn dump() -> Request {
        let one = |nest: &mut Request, kind: u16, an: u8, active: u8, pn: &[u8]| {
            nest.nest(kind, |nest| {
                nest.put(association::AN, &[an]);
                nest.put(association::ACTIVE, &[active]);
                nest.put(association::PN, pn);
                nest.put(association::KEYID, &[an; 16]);
            });
        };
        let mut message = Request::new(0, 0, 0);
        message.nest(attribute::SECY, |nest| nest.put(SECY_ENCODING_SA, &[2]));
        message.nest(attribute::TXSA_LIST, |nest| one(nest, 1, 2, 1, &5_000_000_000_u64.to_ne_bytes()));
        message.nest(attribute::RXSC_LIST, |nest| {
            nest.nest(1, |nest| {
                nest.put(receiver::SCI, &[9; 8]);
                nest.nest(receiver::SA_LIST, |nest| {
                    one(nest, 1, 1, 0, &1_u32.to_ne_bytes());
                    one(nest, 2, 2, 1, &7_u32.to_ne_bytes());
                });
            });
        });
        message
    }

    #[test]
    fn a_dump_is_read_and_a_cut_one_is_an_error() {
        let message = dump().finish(0);
        let attributes = &message[HEADERS..];
        let told = parse(attributes).unwrap();
        let association = |an: u8, active, next| (an, Association { id: KeyId([an; 16]), active, next });
        assert_eq!((told.encoding, told.sending), (2, [association(2, true, 5_000_000_000)].into()));
        assert_eq!(told.taking, [association(1, false, 1), association(2, true, 7)].into());
        for length in 1..attributes.len() {
            // Whole attributes fewer are fine; half of one is not read as something else.
            let _ = parse(&attributes[..length]);
        }
        assert!(parse(&attributes[..attributes.len() - 2]).is_err());
    }
}
