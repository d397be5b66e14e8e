//! HTTP tools: the input is posted as JSON, the body of the answer is the result.
//!
//! ```text
//!  attempt ─┬─ answered ──────────────────────────────► result (an error for every status but 2xx)
//!           ├─ nothing was sent ──────────────────────► `not_run`, unless an earlier attempt was sent
//!           └─ sent, no answer; a `keyed` call's 5xx ─┬► `keyed`, attempts left: again, same key
//!                                                     └► what the class says (`once`, `keyed`: unknown)
//! ```

mod attempt;

use crate::client::Clients;
use crate::port::{HostCall, HostResult};
use attempt::{Attempt, Request};
use loopd_domain::content::ContentBlock;
use loopd_domain::event::EffectClass;
use loopd_domain::limits::{KEYED_ATTEMPTS_MAX, KEYED_BACKOFF_FIRST_MS};
use std::time::Duration;
use url::Url;

/// Makes the call, as often as its class allows.
pub(crate) async fn call(clients: &Clients, url: Url, timeout_ms: u64, call: &HostCall) -> HostResult {
    let request = Request {
        client: clients.of(&url),
        url,
        timeout: Duration::from_millis(timeout_ms),
        body: call.input.to_string().into_bytes(),
        key: &call.key,
        traceparent: call.traceparent.as_deref(),
    };
    let attempts = if call.effect == EffectClass::Keyed { KEYED_ATTEMPTS_MAX } else { 1 };
    // What an attempt came to that may have done the work, and what the service last said of its own failure.
    let (mut lost, mut failed) = (None, None);
    for attempt in 1..=attempts {
        match request.send().await {
            Attempt::Answered { status, text } if status < 500 => return answered(status, text),
            Attempt::Answered { status, text } => failed = Some(answered(status, text)),
            Attempt::NotSent(reason) if lost.is_none() && failed.is_none() => return HostResult::not_sent(reason),
            Attempt::NotSent(_) => {}
            Attempt::Lost(reason) => lost = Some(HostResult::unanswered(call.effect, false, &reason)),
            Attempt::TimedOut(reason) => lost = Some(HostResult::unanswered(call.effect, true, &reason)),
        }
        if attempt < attempts {
            tracing::warn!(attempt, url = %request.shown(), "a keyed call had no answer; it is sent again");
            tokio::time::sleep(Duration::from_millis(KEYED_BACKOFF_FIRST_MS << (attempt - 1))).await;
        }
    }
    // A failure that a service tells of says nothing of an earlier attempt that it may have carried out.
    lost.or(failed).unwrap_or_else(|| HostResult::not_sent("no attempt was made"))
}

fn answered(status: u16, text: String) -> HostResult {
    let is_error = !(200..300).contains(&status);
    let text = match (is_error, (300..400).contains(&status)) {
        (false, _) => text,
        (true, true) => format!("The service answered {status}, a redirect that is not followed: {text}"),
        (true, false) => format!("The service answered {status}: {text}"),
    };
    HostResult::completed(vec![ContentBlock::text(text)], is_error)
}
