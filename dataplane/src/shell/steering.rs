//! Which queue of the TUN device a flow goes to, by a small eBPF program (TUNSETSTEERINGEBPF, Linux 4.16).
//!
//! Left to itself the device follows the queue that a flow's packets were last written to. When both ends of a tunnel begin
//! to send at once on different lanes, each follows the other and the flow changes lanes for ever, out of order. The program
//! hashes addresses and ports, in the same way for both directions and at both ends, so a flow has one lane.

use std::{io, os::fd::AsRawFd};

use super::bpf::{ProgramType, instruction, load};

const CONTEXT: u8 = 6;
const HASH: u8 = 7;
const OFFSET: u8 = 8;

// Loads from the packet into register 0; beyond its end they end the program with 0 (RFC 9669, section 5.5).
const fn byte(at: i32) -> u64 {
    instruction(0x30, 0, 0, 0, at)
}

const fn half(at: i32) -> u64 {
    instruction(0x28, 0, 0, 0, at)
}

const fn word(at: i32) -> u64 {
    instruction(0x20, 0, 0, 0, at)
}

const fn half_after(register: u8, at: i32) -> u64 {
    instruction(0x48, 0, register, 0, at)
}

const fn copy(dst: u8, src: u8) -> u64 {
    instruction(0xbf, dst, src, 0, 0)
}

/// Adds register 0 to the hash.
const MIX: u64 = instruction(0x0f, HASH, 0, 0, 0);

/// XORs the hash, as 32 bits, with itself shifted right.
const fn fold(by: i32) -> [u64; 3] {
    [instruction(0xbc, 0, HASH, 0, 0), instruction(0x74, 0, 0, 0, by), instruction(0xac, HASH, 0, 0, 0)]
}

const fn jump_equal(value: i32, over: i16) -> u64 {
    instruction(0x15, 0, 0, over, value)
}

const fn jump(over: i16) -> u64 {
    instruction(0x05, 0, 0, over, 0)
}

/// Addresses of both ends, and ports where the packet is no fragment, added up, since a sum does not know directions.
const PROGRAM: [u64; 61] = [
    copy(CONTEXT, 1),
    instruction(0xb7, HASH, 0, 0, 0),
    byte(0),
    instruction(0x77, 0, 0, 0, 4),
    jump_equal(6, 20), // to the word at 8
    // IPv4.
    word(12),
    MIX,
    word(16),
    MIX,
    half(6),
    instruction(0x57, 0, 0, 0, 0x3fff),
    instruction(0x55, 0, 0, 36, 0), // a fragment: to the end
    byte(9),
    jump_equal(6, 2),
    jump_equal(17, 1),
    jump(32),
    byte(0),
    instruction(0x57, 0, 0, 0, 0x0f),
    instruction(0x67, 0, 0, 0, 2),
    copy(OFFSET, 0),
    half_after(OFFSET, 0),
    MIX,
    half_after(OFFSET, 2),
    MIX,
    jump(23),
    // IPv6.
    word(8),
    MIX,
    word(12),
    MIX,
    word(16),
    MIX,
    word(20),
    MIX,
    word(24),
    MIX,
    word(28),
    MIX,
    word(32),
    MIX,
    word(36),
    MIX,
    byte(6),
    jump_equal(6, 1),
    instruction(0x55, 0, 0, 4, 17), // neither: to the end
    half(40),
    MIX,
    half(42),
    MIX,
    // The end: the finalizer of MurmurHash3, after which each bit depends on all.
    fold(16)[0],
    fold(16)[1],
    fold(16)[2],
    instruction(0x24, HASH, 0, 0, 0x85eb_ca6b_u32 as i32),
    fold(13)[0],
    fold(13)[1],
    fold(13)[2],
    instruction(0x24, HASH, 0, 0, 0xc2b2_ae35_u32 as i32),
    fold(16)[0],
    fold(16)[1],
    fold(16)[2],
    copy(0, HASH),
    instruction(0x95, 0, 0, 0, 0),
];

mod ioctl {
    // <linux/if_tun.h>: _IOR('T', 224, int), although it reads the descriptor from where the pointer says.
    nix::ioctl_write_ptr_bad!(set_steering, nix::request_code_read!(b'T', 224, size_of::<libc::c_int>()), libc::c_int);
}

/// Makes a TUN device choose queues by the program, which it keeps for as long as it needs it.
pub(super) fn steer(tun: &impl AsRawFd) -> io::Result<()> {
    let program = load(ProgramType::SocketFilter, &PROGRAM)?;
    let fd = program.as_raw_fd();
    // SAFETY: the descriptor is that of a TUN device, and the pointer is to a live int.
    unsafe { ioctl::set_steering(tun.as_raw_fd(), &raw const fd) }?;
    Ok(())
}
