//! How a session stands, in a few words: age, steps, cost, and what it waits for.

use crate::screen::one_line;
use serde_json::Value;

/// Calls named in one line; the rest is counted.
const CALLS_SHOWN: usize = 2;

pub fn age(session: &Value) -> String {
    session["stats"]["duration_seconds"].as_f64().map_or("-".to_owned(), span)
}

pub fn steps(session: &Value) -> String {
    session["loopd"]["steps"].as_u64().map_or("-".to_owned(), |steps| steps.to_string())
}

/// In dollars; `?` when a price is not known.
pub fn cost(session: &Value) -> String {
    let micros = session["loopd"]["cost_micro_usd"].as_u64();
    micros.map_or("?".to_owned(), |micros| format!("${:.4}", micros as f64 / 1_000_000.0))
}

/// The calls that wait for the client and how long they have, or when the model is asked again.
pub fn waiting(session: &Value) -> String {
    let standing = &session["loopd"];
    let calls = standing["waiting"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut told: Vec<String> = calls.iter().take(CALLS_SHOWN).map(call).collect();
    if calls.len() > CALLS_SHOWN {
        told.push(format!("{} more", calls.len() - CALLS_SHOWN));
    }
    if let Some(at) = standing["retry_at"].as_str() {
        told.push(format!("the model, again at {}", one_line(at, 19).trim_end_matches('…')));
    }
    if let Some(queued) = standing["queued"].as_u64().filter(|queued| *queued > 0) {
        told.push(format!("{queued} inputs queued"));
    }
    if told.is_empty() { "-".to_owned() } else { told.join(", ") }
}

fn call(call: &Value) -> String {
    let what = match call["answer"].as_str() {
        Some("user.tool_confirmation") => "approval of",
        _ => "result of",
    };
    let name = one_line(call["name"].as_str().unwrap_or("?"), 40);
    format!("{what} {name} ({})", span(call["waiting_seconds"].as_f64().unwrap_or(0.0)))
}

/// `5s`, `12m`, `3h`, `9d`.
fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_session_waits_for_fits_a_line() {
        let call = |answer: &str, name: &str, s: f64| json!({"answer": answer, "name": name, "waiting_seconds": s});
        let calls = json!([
            call("user.tool_confirmation", "bash", 59.9),
            call("user.custom_tool_result", "ask\n", 7_300.0),
            call("user.custom_tool_result", "x", 1.0),
        ]);
        let session = json!({"loopd": {"waiting": calls, "steps": 3, "cost_micro_usd": 12_345}});
        assert_eq!(waiting(&session), "approval of bash (59s), result of ask (2h), 1 more");
        assert_eq!((steps(&session).as_str(), cost(&session).as_str()), ("3", "$0.0123"));
        let limited = json!({"loopd": {"waiting": [], "retry_at": "2026-11-25T16:00:00.000000Z", "queued": 2}});
        assert_eq!(waiting(&limited), "the model, again at 2026-11-25T16:00:00, 2 inputs queued");
        assert_eq!((waiting(&json!({})).as_str(), cost(&json!({})).as_str()), ("-", "?"));
        assert_eq!((span(61.0), span(200_000.0)), ("1m".to_owned(), "2d".to_owned()));
    }
}
