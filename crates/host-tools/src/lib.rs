//! Tools that the host runs for a session: services that it calls over the network.
//!
//! Owns connections, time limits, bounds, re-sending of `keyed` calls, and what a call came to: [`port`] is what the session
//! sees of it. It decides nothing: policy has said yes, and the intent is durable, before a call comes here. It knows no
//! journal and no session but by the key that a call carries.
//!
//! Where a call may go is the operator's to say ([`AllowHosts`]), and is checked at every call.

mod allow;
mod attempt;
mod bounded;
mod client;
mod http;
mod mcp;
mod port;
mod remote;
mod tokens;

pub use allow::AllowHosts;
pub use client::ClientError;
pub use loopd_policy::network::HostPattern;
pub use port::{HostCall, HostResult, HostTools, ListFault, SessionTools};
pub use remote::RemoteTools;
pub use tokens::{NoToken, NoTokens, Token, Tokens};
