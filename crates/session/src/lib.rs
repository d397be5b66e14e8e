//! The owner of a living session.
//!
//! [`SessionService`] is the door: the server asks it to create, feed, follow, change and end sessions. Behind it stands one
//! *driver* task per living session, which alone writes that session's journal, holds its room and calls its model.
//!
//! - `service`: admission; what a caller's request may do to a session in its present state.
//! - `driver`: one task, one session: the cell's wishes become journal entries and model calls.
//! - `follow`: journal and previews, for those who watch.
//! - `output`: does a final answer satisfy the turn's output schema?
//! - `recovery`: claims what has lost its owner and settles what was in flight.

pub mod output;
pub mod service;

pub use service::*;
