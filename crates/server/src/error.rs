//! Every refusal: what the caller may know, and what only the log is told.
//!
//! A handler returns an [`ApiError`]; `front::number` writes it as the envelope
//! `{"type":"error","error":{"type","message","details"?},"request_id"}`, because only it knows the request's id.

use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use loopd_broker::vault::VaultError;
use loopd_domain::{Invalid, RequestId};
use loopd_session::ServiceError;
use loopd_store::{AppendError, StoreError, UpdateError};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

/// How long a caller is asked to wait when the server is busy or its store is away, in seconds.
const RETRY_AFTER_S: u64 = 1;

pub type Answer<T> = Result<T, ApiError>;

#[derive(Debug, Clone)]
pub struct ApiError {
    pub status: StatusCode,
    /// The wire's error type, e.g. `not_found_error`.
    pub kind: &'static str,
    /// For the caller.
    pub message: String,
    /// `error.details.error_code`.
    pub code: Option<&'static str>,
    /// Header `x-should-retry`: official clients retry every 409, 429 and 5xx unless told otherwise.
    pub retry: Option<bool>,
    pub retry_after_s: Option<u64>,
    /// For the log only.
    pub internal: Option<String>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        ApiError { status, kind, message, code: None, retry: None, retry_after_s: None, internal: None }
    }
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }
    /// `noun` as in "no agent `agent_1`".
    pub fn absent(noun: &str, id: &str) -> Self {
        let shown: String = id.chars().take(loopd_domain::ids::ID_BYTES_MAX).collect();
        Self::new(StatusCode::NOT_FOUND, "not_found_error", format!("no {noun} `{shown}`"))
    }
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found_error", message)
    }
    /// A conflict that another try would only meet again.
    pub fn conflict(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::CONFLICT, "conflict_error", message);
        ApiError { retry: Some(false), ..error }
    }
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "authentication_error", message)
    }
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_error", message)
    }
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
    }
    pub fn headers_too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "request_too_large", message)
    }
    pub fn media_type(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", message)
    }
    pub fn unavailable(message: impl Into<String>, internal: Option<String>) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "api_error", message);
        ApiError { retry_after_s: Some(RETRY_AFTER_S), internal, ..error }
    }
    /// `internal` goes to the log, never to the caller.
    pub fn internal(internal: impl Into<String>) -> Self {
        let message = "the server failed; the log has the cause under this request_id";
        let error = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "api_error", message);
        ApiError { internal: Some(internal.into()), ..error }
    }
    pub fn with_code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }
    /// What an answer that this crate did not write (axum's own rejections) becomes.
    pub fn of_status(status: StatusCode, message: String) -> Self {
        let kind = match status.as_u16() {
            404 => "not_found_error",
            413 | 431 => "request_too_large",
            500.. => "api_error",
            _ => "invalid_request_error",
        };
        Self::new(status, kind, message)
    }

    pub fn body(&self, request_id: Option<&RequestId>) -> Value {
        let mut error = json!({"type": self.kind, "message": self.message});
        if let Some(code) = self.code {
            error["details"] = json!({"error_code": code});
        }
        json!({"type": "error", "error": error, "request_id": request_id})
    }

    /// The answer as the caller sees it.
    pub fn envelope(&self, request_id: &RequestId) -> Response {
        let mut response = (self.status, axum::Json(self.body(Some(request_id)))).into_response();
        let headers = response.headers_mut();
        if let Some(retry) = self.retry {
            headers.insert("x-should-retry", HeaderValue::from_static(if retry { "true" } else { "false" }));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert("retry-after", HeaderValue::from(seconds));
        }
        response
    }
}

/// Carries the error to `front::number`, which writes the body.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Invalid> for ApiError {
    fn from(fault: Invalid) -> Self {
        ApiError::invalid(fault.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(fault: StoreError) -> Self {
        match fault {
            StoreError::Damaged(_) => ApiError::internal(fault.to_string()),
            StoreError::Unavailable(_) | StoreError::Closed => {
                let message =
                    "the server's store is not available now, for example because its disk is full; try again";
                ApiError::unavailable(message, Some(fault.to_string()))
            }
        }
    }
}

impl From<AppendError> for ApiError {
    fn from(fault: AppendError) -> Self {
        match fault {
            AppendError::Store(fault) => fault.into(),
            AppendError::Absent => ApiError::not_found("the session is gone"),
            AppendError::Repeated(record) => key_reused(&record.key),
            AppendError::Fenced { .. } | AppendError::Conflict { .. } => {
                ApiError::unavailable("the session changed hands meanwhile; try again", Some(fault.to_string()))
            }
        }
    }
}

impl From<UpdateError> for ApiError {
    fn from(fault: UpdateError) -> Self {
        match fault {
            UpdateError::VersionMismatch { expected, current } => ApiError::conflict(format!(
                "`version` is `{expected}`; accepted: the agent's latest version, which is {current}"
            )),
            UpdateError::Absent => ApiError::not_found("the agent is gone"),
            UpdateError::Store(fault) => fault.into(),
        }
    }
}

impl From<VaultError> for ApiError {
    fn from(fault: VaultError) -> Self {
        match fault {
            VaultError::Absent => ApiError::not_found("the vault or the credential is gone"),
            VaultError::Archived => ApiError::invalid("it is archived; accepted: one that is not"),
            VaultError::KeyTaken => {
                let message = "the vault has an active credential for this already; accepted: change that one, or archive it first";
                ApiError::conflict(message)
            }
            VaultError::Full { max } => ApiError::invalid(format!(
                "the vault has {max} active credentials; accepted: up to {max}, archive one first or use another vault"
            )),
            VaultError::Busy => ApiError::unavailable(fault.to_string(), None),
            VaultError::Sealed(cause) => ApiError::internal(cause),
            VaultError::Append(fault) => fault.into(),
        }
    }
}

impl From<ServiceError> for ApiError {
    fn from(fault: ServiceError) -> Self {
        match fault {
            ServiceError::Absent(id) => ApiError::absent("session", id.as_str()),
            ServiceError::Refused(_) | ServiceError::Model(_) => ApiError::invalid(fault.to_string()),
            ServiceError::Exists(_) => ApiError::conflict(fault.to_string()),
            ServiceError::Files(_) => {
                ApiError::unavailable("the session's files are not available; try again", Some(fault.to_string()))
            }
            ServiceError::KeyReused { key } => key_reused(&key),
            ServiceError::Busy(message) => {
                let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
                ApiError { retry_after_s: Some(RETRY_AFTER_S), ..error }
            }
            ServiceError::Elsewhere | ServiceError::Stopping => ApiError::unavailable(fault.to_string(), None),
            ServiceError::Store(fault) => fault.into(),
            ServiceError::Append(fault) => fault.into(),
        }
    }
}

/// `key` is scope and key; only the caller's part is shown.
pub fn key_reused(key: &str) -> ApiError {
    let shown = key.split_once(':').map_or(key, |(_, own)| own);
    ApiError::conflict(format!(
        "`idempotency-key` is `{shown}`, which was used before with another request; accepted: the same request, or a new key"
    ))
}

pub async fn no_route(method: Method, uri: Uri) -> ApiError {
    ApiError::not_found(format!("no route `{method} {}`; GET /openapi.json lists all routes", uri.path()))
}

pub async fn no_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("`{}` does not take {method}; GET /openapi.json lists what it takes", uri.path());
    ApiError::of_status(StatusCode::METHOD_NOT_ALLOWED, message)
}

/// The envelope of every error.
#[derive(Serialize, ToSchema)]
pub struct ErrorBody {
    #[serde(rename = "type")]
    #[schema(example = "error")]
    pub kind: &'static str,
    pub error: ErrorDetail,
    pub request_id: String,
}

#[derive(Serialize, ToSchema)]
pub struct ErrorDetail {
    #[serde(rename = "type")]
    #[schema(example = "invalid_request_error")]
    pub kind: &'static str,
    /// Names the field, its value and what would be accepted.
    pub message: String,
    #[schema(value_type = Option<Object>)]
    pub details: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use loopd_domain::SessionId;

    #[test]
    fn facts_become_statuses() {
        let absent = ServiceError::Absent(SessionId::parse("id", "sesn_1").expect("an id"));
        let cases: [(ApiError, u16, &str); 7] = [
            (absent.into(), 404, "not_found_error"),
            (ServiceError::Refused("no".into()).into(), 400, "invalid_request_error"),
            (ServiceError::Busy("full".into()).into(), 429, "rate_limit_error"),
            (ServiceError::KeyReused { key: "invoke:k".into() }.into(), 409, "conflict_error"),
            (StoreError::Unavailable("disk full".into()).into(), 503, "api_error"),
            (StoreError::Damaged("row 7".into()).into(), 500, "api_error"),
            (UpdateError::VersionMismatch { expected: 1, current: 2 }.into(), 409, "conflict_error"),
        ];
        for (error, status, kind) in cases {
            assert_eq!((error.status.as_u16(), error.kind), (status, kind), "{}", error.message);
        }
    }

    #[test]
    fn what_the_log_needs_is_not_shown() {
        let error = ApiError::from(StoreError::Damaged("secret row".into()));
        assert!(!error.body(None).to_string().contains("secret row"));
        assert!(error.internal.expect("for the log").contains("secret row"));
        assert!(!key_reused("invoke:mine").message.contains("invoke:"));
    }

    #[test]
    fn a_conflict_is_not_to_be_retried() {
        let id = RequestId::parse("id", "req_1").expect("an id");
        let response = ApiError::conflict("x").envelope(&id);
        assert_eq!(response.headers()["x-should-retry"], "false");
        let response = ApiError::from(ServiceError::Stopping).envelope(&id);
        assert_eq!(response.headers()["retry-after"], "1");
    }
}
