//! What a command's exit code says. Documented in docs/operations.md and in `loopd invoke --help`.

use serde_json::Value;
use std::process::ExitCode;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done; of a turn: the model ended it.
    Success,
    /// The command could not be done; standard error says why.
    Failure,
    /// The turn waits for the caller: a custom tool's result, or an approval.
    RequiresAction,
    /// A limit or a budget ended the turn.
    LimitReached,
    /// The model could not be reached, or did not answer usefully, as often as it may be tried.
    RetriesExhausted,
    /// The model declined.
    Refusal,
    /// The session has ended for good.
    Terminated,
    /// The turn was interrupted from here (Ctrl-C).
    Interrupted,
    /// The turn goes on without us (Ctrl-C twice).
    Detached,
    /// This process showed no sign of life for so long that another one has the data directory now.
    Replaced,
}

impl Exit {
    pub const ALL: [Exit; 10] = [
        Exit::Success,
        Exit::Failure,
        Exit::RequiresAction,
        Exit::LimitReached,
        Exit::RetriesExhausted,
        Exit::Refusal,
        Exit::Terminated,
        Exit::Interrupted,
        Exit::Detached,
        Exit::Replaced,
    ];

    /// 2 is missing: it means that the command line was not understood.
    pub fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::RequiresAction => 3,
            Exit::LimitReached => 4,
            Exit::RetriesExhausted => 5,
            Exit::Refusal => 6,
            Exit::Terminated => 7,
            Exit::Detached => 8,
            Exit::Replaced => 9,
            Exit::Interrupted => 130,
        }
    }

    /// What the result of a turn comes to.
    pub fn of_result(result: &Value) -> Exit {
        match (result["status"].as_str(), result["error"]["type"].as_str()) {
            (Some("interrupted"), _) => return Exit::Interrupted,
            (_, Some("session_ended_error")) => return Exit::Terminated,
            _ => {}
        }
        match result["stop_reason"]["type"].as_str() {
            Some("end_turn") => Exit::Success,
            Some("requires_action") => Exit::RequiresAction,
            Some("limit_reached" | "budget_reached") => Exit::LimitReached,
            Some("retries_exhausted") => Exit::RetriesExhausted,
            Some("refusal") => Exit::Refusal,
            _ => Exit::Failure,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_code_is_its_own() {
        let codes: std::collections::HashSet<u8> = Exit::ALL.iter().map(|e| e.code()).collect();
        assert_eq!(codes.len(), Exit::ALL.len());
        assert!(!codes.contains(&2));
    }

    #[test]
    fn a_result_without_a_known_end_is_a_failure() {
        assert_eq!(Exit::of_result(&json!({"stop_reason": {"type": "end_turn"}})), Exit::Success);
        let interrupted = json!({"status": "interrupted", "stop_reason": {"type": "end_turn"}});
        assert_eq!(Exit::of_result(&interrupted), Exit::Interrupted);
        assert_eq!(Exit::of_result(&json!({"stop_reason": {"type": "limit_reached"}})), Exit::LimitReached);
        assert_eq!(
            Exit::of_result(
                &json!({"status": "failed", "stop_reason": null, "error": {"type": "session_ended_error"}})
            ),
            Exit::Terminated
        );
        assert_eq!(Exit::of_result(&json!({"stop_reason": {"type": "new"}})), Exit::Failure);
        assert_eq!(Exit::of_result(&json!({})), Exit::Failure);
    }
}
