//! Segmentation and coalescing of inner packets: what lets one system call and one walk through the kernel carry 64 KiB.
//!
//! Outbound, the TUN device hands over super-packets with a [`vnet::VnetHeader`]; [`split::Split`] cuts them into packets,
//! each in the place where its payload stands already. Inbound, [`coalesce::Coalescer`] finds runs of packets that the
//! kernel may take as one, and says which bytes to write; payloads stay where they were decrypted.

pub mod checksum;
pub mod coalesce;
pub mod ecn;
pub mod headers;
pub mod split;
#[cfg(test)]
mod tests;
pub mod vnet;

/// Packets in one super-packet or one batch of datagrams. Linux: `UDP_MAX_SEGMENTS` was 64 before it became 128 (6.9).
pub const MAX_SEGMENTS: usize = 64;
