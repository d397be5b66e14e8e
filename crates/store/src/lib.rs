//! Where sessions live: the journal port, one repository trait per noun, their backends, and the conformance suite that
//! every backend passes.
//!
//! To add a backend: a directory beside `sqlite/` that implements [`Store`], and a test that calls
//! [`conformance`]. Nothing outside the composition root names a backend.

pub mod port;

pub use port::*;
