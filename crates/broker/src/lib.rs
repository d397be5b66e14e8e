//! The broker: the only place that opens a secret, and the only way out of a room.
//!
//! ```text
//!  program in a room ─► outlet ─► egress: who? where? may it? ─► TLS opened only where a credential is placed ─► world
//!                                    │                 │
//!                                    ├─ credentials ◄──┴── vault (sealed at rest) ◄── server: the vaults' interface
//!                                    └─ reports ─► session: journal, trace      audit ─► store
//! ```
//!
//! Plaintext secrets live in [`Secret`], nowhere else, and never leave this crate but on a connection to a host that their
//! credential names. `vault` knows nothing of connections, `egress` nothing of how secrets are kept: they meet in
//! [`credentials`].

pub mod audit;
pub mod client;
pub mod credentials;
pub mod egress;
pub mod placeholders;
pub mod report;
pub mod seal;
pub mod secret;
pub mod vault;

pub use audit::{Audit, AuditedBearers, Trail, TrailParts};
pub use client::{Client, RunningCalls};
pub use credentials::{Bearer, Bearers, BoundCredential, Credentials, CredentialsError, Placement};
pub use egress::Egress;
pub use placeholders::{Mask, NoCredentials, Placeholders};
pub use report::Reports;
pub use seal::Sealer;
pub use secret::Secret;
pub use vault::Vaults;
