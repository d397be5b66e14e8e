//! The reason-act loop of one session as a pure state machine: [`Input`] in, [`Command`]s out.
//!
//! ```text
//!  resume ─► CallModel ─► [asking] ── Answer without calls ──► EndTurn
//!                ▲            │
//!                │            └── Answer with calls ──► RunTool*/Settle* ─► [acting]
//!                └──────────── every call settled ◄──────────┘  │ only the client can go on
//!                                                               └─► EndTurn(requires_action); client's answers resume it
//! ```
//!
//! It opens nothing and reads no clock: time comes with each input. It holds no text of the conversation: the host folds
//! that from the journal. What it decides is what happens next: which calls run and how many at a time, what a bad call is
//! told, when queued inputs are taken up, when the turn is over and why.
//!
//! Every start is a resumption: a new turn is one with no step done yet ([`Resume`]).

mod calls;
mod limits;
mod machine;
pub mod messages;
mod types;

pub use machine::AgentLoop;
pub use types::*;
