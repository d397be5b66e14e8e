//! The Chat Completions wire (`POST …/chat/completions`), streaming: OpenAI's own and the many servers that speak it.
//!
//! `request`, `stream` and `calls` are pure; this file only joins them to the transport and knows the two flavours.

mod calls;
mod parts;
mod reasoning;
mod request;
mod stream;

use crate::provider::{Answer, Delta, ModelError, ModelRequest, Provider};
use crate::transport::{Client, Endpoint, Exchange};
use async_trait::async_trait;

pub(crate) use stream::ChatStream;

pub(crate) const DIALECT: &str = "openai";

/// Who reads the request. The wire is one, its dialects are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// api.openai.com: newer field names, no foreign fields.
    OpenAi,
    /// Everybody else: the names that all of them know, reasoning sent back.
    Compatible,
}

impl Flavour {
    pub fn of(url: &url::Url) -> Self {
        match url.host_str() {
            Some("api.openai.com") => Flavour::OpenAi,
            _ => Flavour::Compatible,
        }
    }
}

pub(crate) struct OpenAi {
    client: Client,
    endpoint: Endpoint,
    flavour: Flavour,
}

impl OpenAi {
    pub(crate) fn new(client: Client, endpoint: Endpoint) -> Self {
        let flavour = Flavour::of(&endpoint.url);
        OpenAi { client, endpoint, flavour }
    }
}

#[async_trait]
impl Provider for OpenAi {
    async fn call(
        &self,
        request: &ModelRequest,
        body: Vec<u8>,
        deltas: &mut (dyn FnMut(Delta) + Send),
    ) -> Result<Answer, ModelError> {
        let credential = self.endpoint.key.as_ref().map(|key| ("authorization", key.header("Bearer ")));
        let exchange = Exchange { endpoint: &self.endpoint, headers: Vec::new(), credential, body };
        self.client.exchange(exchange, stream::ChatStream::new(request.messages.len()), deltas).await
    }

    fn body(&self, request: &ModelRequest) -> Result<Vec<u8>, ModelError> {
        request::body(request, self.flavour)
    }
}
