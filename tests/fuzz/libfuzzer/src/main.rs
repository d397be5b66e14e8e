//! One target of `tests/fuzz`, guided by coverage: `LOOPD_FUZZ_TARGET` names it, libFuzzer takes the rest of the command line.

#![no_main]

use loopd_fuzz::{TARGETS, Target};
use std::sync::LazyLock;

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("LOOPD_FUZZ_TARGET").unwrap_or_default();
    loopd_fuzz::find(&name).unwrap_or_else(|| {
        let known: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("LOOPD_FUZZ_TARGET is `{name}`; accepted: {}", known.join(", "));
        std::process::exit(2);
    })
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET.run)(data));
