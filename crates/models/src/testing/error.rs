//! Scripted faults as the two wires show them.

use super::history::Wire;
use super::{Delivery, End, Planned, Reply, anthropic, openai};
use crate::builtin::script::Fault;
use crate::provider::ErrorClass;
use serde_json::{Value, json};

/// A fault instead of an answer.
pub(super) fn at_once(fault: &Fault, wire: Wire) -> Planned {
    match fault.class {
        ErrorClass::Connection => Reply::Nothing.into(),
        ErrorClass::Timeout if fault.status.is_none() => Reply::Silence.into(),
        ErrorClass::Garbage => {
            Reply::text(fault.status.unwrap_or(200), "text/html", "<html>scripted garbage</html>").into()
        }
        class => {
            let reply = Reply::json(fault.status.unwrap_or(status(class)), &body(fault, wire));
            let reply = reply.with_header("request-id", "req_fake").with_header("x-request-id", "req_fake");
            match fault.retry_after_ms {
                Some(ms) => reply.with_header("retry-after-ms", &ms.to_string()).into(),
                None => reply.into(),
            }
        }
    }
}

/// A fault after `begun`, the beginning of an answer.
pub(super) fn in_stream(fault: &Fault, wire: Wire, mut begun: Vec<u8>) -> Planned {
    let end = match fault.class {
        ErrorClass::Connection => End::Close,
        ErrorClass::Timeout => End::Hang,
        ErrorClass::Garbage => {
            begun.extend_from_slice(b"data: {scripted garbage}\n\n");
            End::Complete
        }
        _ => {
            begun.extend(match wire {
                Wire::Anthropic => anthropic::event("error", body(fault, wire)),
                Wire::OpenAi => openai::event(&body(fault, wire)),
            });
            End::Complete
        }
    };
    Reply::Stream(begun).delivered(Delivery { end, ..Delivery::default() })
}

fn body(fault: &Fault, wire: Wire) -> Value {
    let (kind, code) = names(fault.class);
    match wire {
        Wire::Anthropic => {
            json!({"type": "error", "error": {"type": kind, "message": fault.message()}, "request_id": "req_fake"})
        }
        Wire::OpenAi => json!({"error": {"message": fault.message(), "type": kind, "param": null, "code": code}}),
    }
}

fn names(class: ErrorClass) -> (&'static str, Option<&'static str>) {
    match class {
        ErrorClass::RateLimited => ("rate_limit_error", None),
        ErrorClass::Overloaded => ("overloaded_error", None),
        ErrorClass::Authentication => ("authentication_error", Some("invalid_api_key")),
        ErrorClass::Permission => ("permission_error", None),
        ErrorClass::NotFound => ("not_found_error", Some("model_not_found")),
        ErrorClass::Billing => ("billing_error", Some("insufficient_quota")),
        ErrorClass::ContextTooLong => ("invalid_request_error", Some("context_length_exceeded")),
        ErrorClass::BadRequest => ("invalid_request_error", None),
        _ => ("api_error", None),
    }
}

fn status(class: ErrorClass) -> u16 {
    match class {
        ErrorClass::RateLimited => 429,
        ErrorClass::Overloaded => 529,
        ErrorClass::Timeout => 408,
        ErrorClass::BadRequest | ErrorClass::ContextTooLong => 400,
        ErrorClass::Authentication => 401,
        ErrorClass::Permission => 403,
        ErrorClass::NotFound => 404,
        ErrorClass::Billing => 402,
        _ => 500,
    }
}
