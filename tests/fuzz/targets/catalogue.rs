#![no_main]

#[global_allocator]
static COUNTING: vgship_tests::fuzz::allocs::Counting = vgship_tests::fuzz::allocs::Counting;

libfuzzer_sys::fuzz_target!(|data: &[u8]| vgship_tests::fuzz::run("catalogue", data));
