//! The owner of a living session.
//!
//! [`SessionService`] is the door: the server asks it to create, feed, follow, change and end sessions. Behind it stands one
//! *driver* task per living session, which alone writes that session's journal, holds its room and calls its model.
//!
//! - `requests`, `service`: what may be asked.
//! - `slots`, `drivers`: how a request finds its session's driver, and what becomes of a driver that ends.
//! - `admission`: what a client's inputs do to a session in its present state. Pure.
//! - `driver`: one task, one session: the cell's wishes become journal entries and model calls.
//! - `requirement`: which rooms a workspace allows.
//! - `ledger`: the pen: drafts of legal events, written in one transaction.
//! - [`replay`]: the loop run again over what a journal has.
//! - `fork`, [`archive`], `verify`: a session copied, carried away and back, and proved.
//! - `recovery`: what was in flight when somebody vanished.
//! - `outlet`, `connections`, `masking`: the room's way out, and what must not come back on it.
//! - `keeper`: leases, and sessions that have lost their owner. `sweep`: what has lost its session.
//! - [`follow`]: journal and previews, for those who watch.

mod admission;
mod answer;
pub mod archive;
mod asking;
mod census;
mod connections;
mod driver;
mod drivers;
pub mod follow;
mod fork;
mod history;
mod hub;
mod installing;
mod keeper;
mod ledger;
mod link;
mod masking;
mod outlet;
pub mod output;
mod recovery;
pub mod replay;
mod replaying;
mod request;
mod requests;
mod requirement;
mod resume;
mod service;
mod slots;
mod sweep;
mod tokens;
mod turn;
mod verify;

pub use census::Share;
pub use connections::ConnectionReports;
pub use follow::Follower;
pub use fork::{Fork, Forked};
pub use replaying::ReplayReport;
pub use requests::*;
pub use service::SessionService;
pub use sweep::SweepReport;
pub use verify::{Breach, RedactedEntry, Verification};
