//! Where a turn stands, as its loop must know it: a fold of the journal into the loop's own words.

use crate::ledger::Ledger;
use loopd_agent_loop::{Answer, Call, LoopConfig, Resume};
use loopd_domain::event::Permission;
use loopd_domain::fold::{OpenCall, OpenTurn, SessionFold};
use loopd_domain::limits;
use serde_json::Value;

/// What does not change while a cell lives.
pub fn config(ledger: &Ledger) -> LoopConfig {
    LoopConfig {
        tools: ledger.tools.iter().map(|t| t.spec.name.clone()).collect(),
        parallel_max: limits::CALLS_PARALLEL_MAX,
        calls_max: limits::CALLS_PER_STEP_MAX,
        output_repairs_max: limits::OUTPUT_REPAIRS_MAX,
    }
}

/// The open turn for a loop that knows nothing yet. Only between model requests.
pub fn resume(ledger: &Ledger, turn: &OpenTurn) -> Resume {
    standing(ledger.fold(), turn, calls(ledger, turn), output_error(ledger, turn))
}

/// Where a turn stands. A replay begins its loops by the same words as a driver.
pub fn standing(fold: &SessionFold, turn: &OpenTurn, calls: Vec<Call>, output_error: Option<String>) -> Resume {
    Resume {
        limits: turn.settings.limits.clone(),
        started_at: turn.counts_from(),
        steps: turn.steps,
        output_tokens: turn.output_tokens,
        cost: turn.cost,
        output_rejections: turn.output_rejections,
        calls,
        queued: fold.queued.iter().map(|q| q.id.clone()).collect(),
        answered: turn.answered.as_ref().map(|answer| Answer {
            stop: answer.stop,
            calls: Vec::new(),
            has_text: answer.has_text,
            // Counted in `output_tokens` and `cost` above.
            output_tokens: 0,
            cost: Some(Default::default()),
            stop_details: answer.stop_details.clone(),
            output_error,
        }),
    }
}

pub fn calls(ledger: &Ledger, turn: &OpenTurn) -> Vec<Call> {
    let input = |c: &OpenCall| ledger.arguments(&c.id).cloned().unwrap_or(Value::Null);
    turn.calls.iter().map(|c| call(c, input(c))).collect()
}

/// A call as the loop knows it.
pub fn call(open: &OpenCall, input: Value) -> Call {
    let in_doubt = open.is_asked_about();
    Call {
        id: open.id.clone(),
        name: open.name.clone(),
        input,
        runs_in: open.runs_in,
        // The loop need not know why a call waits for a word of the client.
        permission: if in_doubt { Permission::Ask } else { open.permission },
        malformed: open.malformed.clone(),
        verdict: if in_doubt { None } else { open.verdict },
        deny_message: open.deny_message.clone(),
        settled: open.settled,
    }
}

/// What is wrong with the final answer, when the turn has an output schema.
pub fn output_error(ledger: &Ledger, turn: &OpenTurn) -> Option<String> {
    let answer = turn.answered.as_ref().filter(|_| turn.settings.output_schema.is_some())?;
    crate::output::fault_of(turn, answer, &ledger.last_answer_text())
}
