//! What a failure of the client library says about a call: answered, not sent, or nobody knows.

use crate::attempt::Attempt;
use crate::client::deepest_cause;
use crate::port::{HostResult, ListFault};
use rmcp::service::{ClientInitializeError, ServiceError};
use rmcp::transport::streamable_http_client::StreamableHttpError;
use std::error::Error;

type HttpFault = StreamableHttpError<reqwest::Error>;

pub(super) fn of_call(fault: &ServiceError) -> Attempt {
    if let ServiceError::McpError(answer) = fault {
        return Attempt::Answered(HostResult::refused(format!(
            "the server answered error {}: {}",
            answer.code.0, answer.message
        )));
    }
    let ServiceError::TransportSend(sent) = fault else { return Attempt::Lost(deepest_cause(fault)) };
    match http(sent.error.as_ref()) {
        Some(HttpFault::Client(fault)) if fault.is_connect() => Attempt::NotSent(deepest_cause(fault)),
        Some(HttpFault::Client(fault)) => Attempt::Lost(deepest_cause(fault)),
        Some(fault @ HttpFault::HttpStatus(_)) => Attempt::Failed(HostResult::refused(fault.to_string())),
        // Turned away at the door.
        Some(fault @ (HttpFault::AuthRequired(_) | HttpFault::InsufficientScope(_) | HttpFault::SessionExpired)) => {
            Attempt::NotSent(fault.to_string())
        }
        Some(fault @ HttpFault::UnexpectedServerResponse(_)) => {
            Attempt::Answered(HostResult::refused(fault.to_string()))
        }
        _ => Attempt::Lost(deepest_cause(sent.error.as_ref())),
    }
}

pub(super) fn of_connecting(fault: &ClientInitializeError) -> ListFault {
    let message = match fault {
        ClientInitializeError::TransportError { error, .. } => match http(error.error.as_ref()) {
            Some(HttpFault::Client(fault)) => deepest_cause(fault),
            _ => deepest_cause(error.error.as_ref()),
        },
        other => deepest_cause(other),
    };
    match fault.is_authorization_required() {
        true => ListFault::authentication(message),
        false => ListFault::connection(message),
    }
}

pub(super) fn of_listing(fault: &ServiceError) -> ListFault {
    match fault.auth_challenge() {
        Some(_) => ListFault::authentication(deepest_cause(fault)),
        None => ListFault::connection(deepest_cause(fault)),
    }
}

/// The transport's own fault, wherever it stands among the causes.
fn http<'a>(fault: &'a (dyn Error + Send + Sync + 'static)) -> Option<&'a HttpFault> {
    let mut cause: Option<&'a (dyn Error + 'static)> = Some(fault);
    while let Some(current) = cause {
        if let Some(found) = current.downcast_ref::<HttpFault>() {
            return Some(found);
        }
        cause = current.source();
    }
    None
}
