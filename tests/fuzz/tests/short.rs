//! Every target over its corpus and a second of mutations.

use loopd_fuzz::{Target, find, short};
use std::time::Duration;

macro_rules! short {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            let count = short::run(find(stringify!($name)).expect("a target"), Duration::from_secs(1));
            println!("{count} inputs");
        })*
    };
}

loopd_fuzz::for_all_targets!(short);

/// What would find nothing is worthless: a planted fault is found from seeds that do not have it.
#[test]
fn a_planted_fault_is_found_and_its_input_kept() {
    fn planted(bytes: &[u8]) {
        assert!(bytes.first() != Some(&0x17), "planted");
    }
    let target = Target { name: "tls_hello", run: planted };
    let found = std::panic::catch_unwind(|| short::run(&target, Duration::from_secs(60))).is_err();
    assert!(found);
    let kept =
        std::fs::read_dir(short::failures()).expect("failures are kept").filter_map(|entry| Some(entry.ok()?.path()));
    assert!(kept.map(|path| std::fs::read(path).expect("readable")).any(|bytes| bytes.first() == Some(&0x17)));
}
