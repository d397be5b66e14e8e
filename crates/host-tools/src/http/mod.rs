//! HTTP tools: the input is posted as JSON, the body of the answer is the result; every status but 2xx is an error.

mod exchange;

use crate::attempt;
use crate::client::Clients;
use crate::port::{HostCall, HostResult};
use exchange::Request;
use std::time::Duration;
use url::Url;

pub(crate) async fn call(clients: &Clients, url: Url, timeout_ms: u64, call: &HostCall) -> HostResult {
    let request = Request {
        client: clients.of(&url),
        url,
        timeout: Duration::from_millis(timeout_ms),
        body: call.input.to_string().into_bytes(),
        key: &call.key,
        traceparent: call.traceparent.as_deref(),
    };
    attempt::repeat(call, &request).await
}
