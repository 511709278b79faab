#![no_main]

isqrt_cov_libfuzzer::fuzz!("arrays");
