//! Names of archives, and paths that lead to them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| snapedge_fuzz::archive_name(data));
