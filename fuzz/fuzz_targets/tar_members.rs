//! Tar files of archives.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| snapedge_fuzz::tar_members(data));
