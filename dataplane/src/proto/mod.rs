//! State machines without input, output, clock or randomness: what happens is passed in, what to do comes out.

pub mod clamp;
mod generations;
pub mod offload;
pub mod path;
pub mod pmtu;
pub mod probe;
pub mod table;
pub mod tunnel;
pub mod uapi;
