//! The body of a request: bounded, JSON, and an empty one is `{}` (official clients send `Content-Type` without a body).

use crate::error::ApiError;
use crate::strict;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyExt;
use loopd_domain::limits::BODY_BYTES_MAX;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Bytes of a body that is too large that are read and thrown away before it is refused.
const DISCARDED_BYTES_MAX: usize = 2 * BODY_BYTES_MAX;

/// A JSON body and the digest that tells one request from another.
pub struct JsonBody {
    pub value: Value,
    /// SHA-256 of method, path and body, hex.
    pub digest: String,
}

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let mut digest = Sha256::new();
        for part in [request.method().as_str(), request.uri().path()] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        }
        let headers = request.headers().clone();
        let bytes = read(request, &headers).await?;
        digest.update(&bytes);
        let digest = loopd_domain::chain::hex(&digest.finalize());
        Ok(JsonBody { value: parse(&bytes, &headers)?, digest })
    }
}

/// Reads on for a while when a body is too large: a caller that writes before it reads would meet a broken connection
/// instead of the answer.
async fn read(request: Request, headers: &HeaderMap) -> Result<Bytes, ApiError> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
    if announced.is_some_and(|n| n > DISCARDED_BYTES_MAX) {
        return Err(too_large());
    }
    let mut body = request.into_body();
    let (mut kept, mut size) = (Vec::new(), 0usize);
    while let Some(frame) = body.frame().await {
        let cut = |fault| ApiError::invalid(format!("the body could not be read to its end: {fault}"));
        let Ok(data) = frame.map_err(cut)?.into_data() else { continue };
        size += data.len();
        match size {
            0..=BODY_BYTES_MAX => kept.extend_from_slice(&data),
            _ if size <= DISCARDED_BYTES_MAX => kept = Vec::new(),
            _ => return Err(too_large()),
        }
    }
    match size.max(announced.unwrap_or(0)) {
        0..=BODY_BYTES_MAX => Ok(kept.into()),
        _ => Err(too_large()),
    }
}

fn too_large() -> ApiError {
    ApiError::too_large(format!("the body is too large; accepted: up to {BODY_BYTES_MAX} bytes"))
}

fn parse(bytes: &[u8], headers: &HeaderMap) -> Result<Value, ApiError> {
    if bytes.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    // A form or a plain text is what a foreign web page can make a browser send without asking; JSON it cannot.
    let kind = headers.get(CONTENT_TYPE).map_or("", |v| v.to_str().unwrap_or("not ASCII"));
    let essence = kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if essence != "application/json" && !essence.ends_with("+json") {
        let shown: String = kind.chars().take(80).collect();
        return Err(ApiError::media_type(format!("`content-type` is `{shown}`; accepted: `application/json`")));
    }
    strict::parse(bytes).map_err(ApiError::invalid)
}
