//! Bodies of JSON-RPC calls.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| snapedge_fuzz::rpc_body(data));
