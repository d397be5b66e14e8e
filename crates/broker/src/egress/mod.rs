//! The only way out of a room: an HTTP proxy that knows for whom it works.

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
