//! Where sessions live: the journal port, one repository trait per noun, their backends, and the conformance suite that
//! every backend passes.
//!
//! To add a backend: a directory beside `sqlite/` that implements [`Store`], and a test file that calls
//! `conformance_suite!` (feature `testing`) with a way to make it. Nothing outside the composition root names a backend.

pub mod chain;
#[cfg(feature = "testing")]
pub mod conformance;
pub mod hold;
pub mod port;
pub mod sqlite;
pub mod vaults;

pub use port::*;
pub use vaults::*;
