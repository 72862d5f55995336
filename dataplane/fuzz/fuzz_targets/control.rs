#![no_main]

#[path = "../entries.rs"]
#[allow(dead_code, reason = "the other targets call the others")]
mod entries;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entries::control(bytes));
