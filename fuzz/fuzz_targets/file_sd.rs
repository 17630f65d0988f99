//! Files that name targets.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| snapedge_fuzz::file_sd(data));
