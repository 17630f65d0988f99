//! The YAML of the configuration.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| snapedge_fuzz::config(data));
