//! Anthropic's Messages wire (`POST /v1/messages`, version 2023-06-01), streaming.
//!
//! `request` and `stream` are pure; this file only joins them to the transport.

mod blocks;
mod effort;
mod request;
mod stream;

use crate::provider::{Answer, Delta, ModelError, ModelRequest, Provider};
use crate::transport::{Client, Endpoint, Exchange};
use async_trait::async_trait;

pub(crate) use stream::MessageStream;

pub(crate) const DIALECT: &str = "anthropic";

pub(crate) struct Anthropic {
    client: Client,
    endpoint: Endpoint,
}

impl Anthropic {
    pub(crate) fn new(client: Client, endpoint: Endpoint) -> Self {
        Anthropic { client, endpoint }
    }
}

#[async_trait]
impl Provider for Anthropic {
    async fn call(
        &self,
        _request: &ModelRequest,
        body: Vec<u8>,
        deltas: &mut (dyn FnMut(Delta) + Send),
    ) -> Result<Answer, ModelError> {
        let key = self.endpoint.key.as_ref().map(|key| ("x-api-key", key.header("")));
        let exchange = Exchange {
            endpoint: &self.endpoint,
            headers: vec![("anthropic-version", "2023-06-01")],
            credential: key,
            body,
        };
        self.client.exchange(exchange, stream::MessageStream::default(), deltas).await
    }

    fn body(&self, request: &ModelRequest) -> Result<Vec<u8>, ModelError> {
        request::body(request)
    }
}
