//! eBPF programs that are written down instruction by instruction, loaded with bpf(2) alone.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

// <linux/bpf.h>
const BPF_PROG_LOAD: libc::c_int = 5;

/// What a program is for (`enum bpf_prog_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ProgramType {
    /// Looks at packets of sockets and TUN devices.
    SocketFilter = 1,
    /// Changes and redirects packets of interfaces.
    SchedCls = 3,
}

/// One instruction (RFC 9669, section 3): opcode, registers, offset and immediate.
#[must_use]
pub const fn instruction(op: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> u64 {
    (op as u64)
        | ((dst as u64) << 8)
        | ((src as u64) << 12)
        | ((offset as u16 as u64) << 16)
        | ((immediate as u32 as u64) << 32)
}

/// The first fields of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
}

/// Loads a program. It lives for as long as the descriptor, or something that it was given to, does.
///
/// # Errors
/// The kernel's own: without the right to load it, or where its verifier refuses the program.
pub fn load(program_type: ProgramType, program: &[u64]) -> io::Result<OwnedFd> {
    let attributes = LoadAttributes {
        program_type: program_type as u32,
        instruction_count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr() as u64,
        // No helper that these programs call asks for a licence; the name is the crate's.
        licence: c"Apache-2.0".as_ptr() as u64,
        ..LoadAttributes::default()
    };
    // SAFETY: the program and the licence are live for the call, and the kernel only reads them.
    unsafe { call(BPF_PROG_LOAD, &attributes) }
}

/// Calls bpf(2) with a command that answers with a descriptor.
///
/// # Errors
/// The kernel's own.
///
/// # Safety
/// `attributes` must be laid out as the first fields of `union bpf_attr` for the command, and every pointer in it must be
/// valid for what the command does with it.
pub unsafe fn call<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attributes` is a live value of that size; the caller vouches for its layout and the pointers inside.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    let fd = RawFd::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
