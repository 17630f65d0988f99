//! Listings of sidecars, trackers and edges.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| snapedge_fuzz::listing(data));
