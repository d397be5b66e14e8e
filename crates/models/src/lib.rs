//! Model providers: one module per wire format, behind one port.
//!
//! - [`provider`]: the port ([`Provider`]), a request, an answer, an error and its class.
//! - [`registry`]: which provider a model id belongs to, what is configured, what a model costs.
//! - `anthropic`, `openai`: pure codecs (request to JSON, stream events to an answer) over the shared HTTP `transport`.
//! - [`builtin`]: scripted models that need no key and no network.
//! - [`retry`]: when to ask again; the session does the asking, so that every attempt is in the journal.
//! - `testing` (feature): a fake provider that speaks both wires.
//!
//! Nothing here stores anything, retries anything or knows of sessions.
//!
//! To add a provider that speaks one of the two wires: a [`ProviderConfig`], or its row in `known`. To add a wire: a
//! module with its codec (a request writer and a `wire::Decoder`) its kind in [`config`], and a
//! fake of it in `testing`.

mod anthropic;
pub mod builtin;
pub mod config;
mod draft;
#[doc(hidden)]
pub mod fuzzing;
mod known;
mod openai;
mod prices;
pub mod provider;
pub mod registry;
pub mod retry;
mod sse;
#[cfg(feature = "testing")]
pub mod testing;
mod transport;
mod wire;

pub use config::{ConfigError, ModelsConfig, ProviderConfig, WireKind};
pub use provider::{Answer, Delta, ErrorClass, ModelError, ModelRequest, Provider};
pub use registry::{ModelInfo, Registry, ResolveError, Resolved};
pub use transport::ClientError;
