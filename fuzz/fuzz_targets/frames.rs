//! Bodies of zstd frames.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| snapedge_fuzz::frames(data));
