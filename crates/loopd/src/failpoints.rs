//! Places at which this process can be told to abort, for the crash harness (`cargo xtask crash`, docs/reliability.md).
//!
//! A place is one line, `fail::fail_point!("store::before_commit");`, and nothing at all without the feature `failpoints`.
//! `FAILPOINTS=store::before_commit=3*off->panic` makes the process abort at the fourth time that it passes there: in the
//! midst of whatever else it does, as a power cut would.

use fail::FailScenario;
use std::panic::{PanicHookInfo, set_hook, take_hook};

/// Reads `FAILPOINTS`. From here on an armed place aborts the process.
pub fn arm() {
    let usual = take_hook();
    set_hook(Box::new(move |panic| {
        usual(panic);
        // No task may outlive it and no destructor run, so unwinding must not begin.
        if is_armed_place(panic) {
            std::process::abort();
        }
    }));
    // Its end would disarm every place.
    std::mem::forget(FailScenario::setup());
}

fn is_armed_place(panic: &PanicHookInfo<'_>) -> bool {
    panic.payload_as_str().is_some_and(|text| text.starts_with("failpoint "))
}
