#![no_main]

#[path = "../../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| drop(targets::named("queries")(input)));
