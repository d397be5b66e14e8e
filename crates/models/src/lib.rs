//! Model providers: one file per wire format, behind one port.
//!
//! - [`provider`]: the port ([`Provider`]), a request, an answer, an error and its class.
//! - [`registry`]: which provider a model id belongs to, what is configured, what a model costs.
//! - `anthropic`, `openai`: pure codecs (request to JSON, stream events to an answer) over the shared HTTP transport.
//! - `builtin`: scripted models that need no key and no network.
//!
//! To add a provider: a file with its codec, its line in [`registry`], a fake of its wire in `testing`.

pub mod provider;
pub mod registry;
pub mod retry;

pub use provider::{Answer, Delta, ErrorClass, ModelError, ModelRequest, Provider};
pub use registry::{ModelInfo, Registry, ResolveError, Resolved};
