//! Everything that reads what a stranger wrote, given what nobody would write.
//!
//! A target is a function of bytes that panics when an invariant breaks: what is read is written back and read the same,
//! pieces say what the whole says, nothing is written outside. It runs in two ways: [`short`], a part of the tests, over the corpus
//! and about a second of mutations with a fixed seed; and guided by coverage, in `libfuzzer/`, a package of its own because
//! it is built with other flags.
//!
//! To add a target: its file in `targets/`, its name in [`for_all_targets`], its seeds in `corpus/<name>/`.

pub mod short;

mod pieces;
mod targets;

/// Something that reads.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// The names of all targets, for a macro that makes something of each.
#[macro_export]
macro_rules! for_all_targets {
    ($macro:ident) => {
        $macro!(
            archive,
            aws_signature,
            bodies,
            body_replacement,
            connect,
            dns,
            files_stream,
            frames,
            hosts,
            jail_wire,
            journal,
            layer,
            link,
            proxied,
            provider_stream,
            tls_hello,
        );
    };
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        /// All of them, by name.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: targets::$name::target }),*];
    };
}

for_all_targets!(targets);

/// The target of this name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
