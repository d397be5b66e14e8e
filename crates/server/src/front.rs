//! The outermost layers: every request gets an id and an answer, whatever happens to its handler.

use crate::error::ApiError;
use crate::state::ServerState;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use loopd_domain::{RequestId, limits};
use std::any::Any;
use std::panic::AssertUnwindSafe;

/// Longest plain-text rejection of the framework that is worth repeating, in bytes.
const REJECTION_BYTES_MAX: usize = 4 << 10;

/// Gives the request an id, puts it on the answer, and writes errors as the envelope.
pub async fn number(State(state): State<ServerState>, mut request: Request, next: Next) -> Response {
    let id = RequestId::generate(state.ids.as_ref());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    request.extensions_mut().insert(id.clone());
    let mut response = enveloped(next.run(request).await, &id).await;
    let error = response.extensions_mut().remove::<ApiError>();
    let status = response.status().as_u16();
    match error.and_then(|e| e.internal) {
        Some(cause) => tracing::error!(request_id = %id, %method, path, status, cause, "request failed"),
        None => tracing::debug!(request_id = %id, %method, path, status, "request"),
    }
    let value = HeaderValue::from_str(id.as_str()).expect("an id is ASCII letters and digits");
    response.headers_mut().insert("request-id", value);
    response
}

/// The envelope in place of an error's empty body, or of a rejection that the framework wrote as plain text.
async fn enveloped(mut response: Response, id: &RequestId) -> Response {
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let mut written = error.envelope(id);
        if let Some(allow) = response.headers_mut().remove("allow") {
            written.headers_mut().insert("allow", allow);
        }
        written.extensions_mut().insert(error);
        return written;
    }
    let status = response.status();
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/json"));
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let text = to_bytes(response.into_body(), REJECTION_BYTES_MAX).await.unwrap_or_default();
    let message = match text.is_empty() {
        true => status.canonical_reason().unwrap_or("refused").to_lowercase(),
        false => String::from_utf8_lossy(&text).into_owned(),
    };
    ApiError::of_status(status, message).envelope(id)
}

/// Bounds what comes in, and turns a handler's panic into an answer.
pub async fn guard(request: Request, next: Next) -> Response {
    let bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > limits::HEADER_BYTES_MAX {
        let message = format!("the headers have `{bytes}` bytes; accepted: up to {}", limits::HEADER_BYTES_MAX);
        return ApiError::headers_too_large(message).into_response();
    }
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => ApiError::internal(format!("a handler panicked: {}", panic_text(&*panic))).into_response(),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("not a text")
}
