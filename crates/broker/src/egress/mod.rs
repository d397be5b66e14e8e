//! The only way out of a room: an HTTP proxy that knows for whom it works.
//!
//! ```text
//!  stream ─► proxy: how many? ─► connect: what is asked? ─┬─ CONNECT ─► tunnel ─┬─ blind
//!                                                         │                     └─ opened: TLS by `leaf` and `authority`
//!                                                         └─ http:// ─► forward         │
//!                                                                          └────────► exchange: one request, one answer
//!                                                                                       credentials, audit, `replace`, `sigv4`
//! ```
//!
//! What may be reached is decided in `policy`, from what the driver says of the session; nothing that the room says is believed.
//! The addresses of a name are resolved here, judged here, and dialled as they were judged (`resolve`). There is one report for each
//! `CONNECT` and for each request in the clear.
//!
//! What is not read: a blind tunnel, what follows a change of protocol, a body with a `Content-Encoding`, and a placeholder or a
//! secret in another form than its own, in `Basic` authentication, or in the target of a request. A TLS connection that is opened
//! must carry HTTP.

mod addressed;
mod answer;
mod authority;
mod body;
mod connect;
mod exchange;
mod forward;
#[doc(hidden)]
pub mod fuzzing;
mod hop;
mod leaf;
mod opening;
mod outgoing;
mod passage;
mod proxy;
mod refusal;
mod replace;
mod resolve;
mod room;
mod serving;
mod sigv4;
mod tasks;
mod tunnel;
mod upgrade;
mod upstream;
mod visit;

pub use authority::{Authority, AuthorityError};
pub use leaf::LeafError;
pub use proxy::{Neighbours, Proxy, ProxyError, Rules, roots_of};
pub use resolve::{Resolver, SystemResolver};

use crate::client::Client;
use async_trait::async_trait;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection from a room, on which the room speaks first.
pub trait RoomStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> RoomStream for S {}

/// What a session's driver needs of egress.
#[async_trait]
pub trait Egress: Send + Sync {
    /// Serves one connection to its end. Whatever happens on it is told there and reported; dropping the future cuts it.
    async fn serve(&self, client: Arc<Client>, stream: Box<dyn RoomStream>);
}
