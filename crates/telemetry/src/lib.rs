//! The journal as spans: what happened, how long it took, what it cost, what went wrong.
//!
//! Everything here is a pure fold of the journal, so a trace is the same whoever asks, whenever, and after any restart; no
//! live span dies with a process. It opens nothing and reads no clock. Sending spans to a collector is not done here yet.
//!
//! A trace carries no content: no prompt, no argument, no result; only names, times, counts and error texts.

pub mod semconv;
pub mod trace;

pub use trace::{Span, SpanKind, SpanStatus, Trace, TraceFold, render_tree};
