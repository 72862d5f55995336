//! 802.1Q by two eBPF programs on the kernel's tcx hooks, loaded with bpf(2) alone.
//!
//! Frames that arrive on the trunk with the tag lose it and enter the child; frames that leave through the child get the
//! tag and leave through the trunk. The programs go when their links' descriptors are closed.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use tieline_dataplane::shell::bpf::{self, ProgramType, instruction};

// <linux/bpf.h>
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
const BPF_F_INGRESS: i32 = 1;
const TCX_NEXT: i32 = -1;

// Helpers, by their numbers in <linux/bpf.h>.
const SKB_VLAN_PUSH: i32 = 18;
const SKB_VLAN_POP: i32 = 19;
const REDIRECT: i32 = 23;

// Offsets in `struct __sk_buff`.
const VLAN_PRESENT: i16 = 20;
const VLAN_TCI: i16 = 24;

const fn move_immediate(dst: u8, value: i32) -> u64 {
    instruction(0xb7, dst, 0, 0, value)
}

const fn load_word(dst: u8, src: u8, offset: i16) -> u64 {
    instruction(0x61, dst, src, offset, 0)
}

const fn call(helper: i32) -> u64 {
    instruction(0x85, 0, 0, 0, helper)
}

const EXIT: u64 = instruction(0x95, 0, 0, 0, 0);

fn arriving(vlan: u16, child: u32) -> [u64; 12] {
    [
        load_word(2, 1, VLAN_PRESENT),
        instruction(0x15, 2, 0, 8, 0), // untagged: to TCX_NEXT
        load_word(2, 1, VLAN_TCI),
        instruction(0x57, 2, 0, 0, 0xfff),
        instruction(0x55, 2, 0, 5, vlan.into()), // another tag: to TCX_NEXT
        call(SKB_VLAN_POP),
        move_immediate(1, child as i32),
        move_immediate(2, BPF_F_INGRESS),
        call(REDIRECT),
        EXIT,
        move_immediate(0, TCX_NEXT),
        EXIT,
    ]
}

fn leaving(vlan: u16, trunk: u32) -> [u64; 7] {
    [
        move_immediate(2, i32::from(0x8100_u16.to_be())),
        move_immediate(3, vlan.into()),
        call(SKB_VLAN_PUSH),
        move_immediate(1, trunk as i32),
        move_immediate(2, 0),
        call(REDIRECT),
        EXIT,
    ]
}

/// The first fields of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
#[derive(Default)]
struct LinkAttributes {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

fn link(program: &OwnedFd, interface: u32, attach_type: u32) -> io::Result<OwnedFd> {
    let program = program.as_raw_fd() as u32;
    let attributes = LinkAttributes { program, interface, attach_type, flags: 0 };
    // SAFETY: the attributes are those of the command, and hold no pointer.
    unsafe { bpf::call(BPF_LINK_CREATE, &attributes) }
}

/// Joins `child` to the trunk with a tag, in the thread's network namespace. The descriptors keep it joined.
pub(super) fn attach(trunk: u32, child: u32, vlan: u16) -> io::Result<[OwnedFd; 2]> {
    let ingress = bpf::load(ProgramType::SchedCls, &arriving(vlan, child))?;
    let egress = bpf::load(ProgramType::SchedCls, &leaving(vlan, trunk))?;
    Ok([link(&ingress, trunk, BPF_TCX_INGRESS)?, link(&egress, child, BPF_TCX_EGRESS)?])
}
