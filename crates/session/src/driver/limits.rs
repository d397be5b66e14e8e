//! Limits of the room that only the host sees: the model is told of each that stood in its calls' way.

use super::{Driver, Halt};
use crate::driver::room::RoomState;
use loopd_domain::content::ContentBlock;
use loopd_domain::environment::{RoomLimits, size};
use loopd_protocol::{CallLimits, CallResult, ToCell};
use loopd_sandbox::Reached;

/// What the cell itself holds its calls to.
pub(super) fn of_calls(limits: &RoomLimits) -> CallLimits {
    let RoomLimits { output_bytes, call_seconds, .. } = *limits;
    CallLimits { output_bytes, seconds: call_seconds }
}

impl Driver {
    /// Adds to the results of calls what the kernel says of limits that were reached while they ran.
    pub(super) fn name_limits(&mut self, results: &mut [CallResult]) {
        // Counted from result to result; without one, the next is asked.
        let RoomState::Ready(room) = &mut self.room else { return };
        if !results.is_empty() {
            let reached = room.meter.reached();
            name(reached, &self.ledger.session.room.limits, results);
        }
    }

    /// The session has more on disk than it may: whatever runs in its room is stopped. It can go on, and remove files.
    pub(super) async fn on_disk_full(&mut self, bytes: u64) -> Result<(), Halt> {
        let message = disk(bytes, self.ledger.session.room.limits.disk_bytes);
        tracing::info!(session = %self.id(), bytes, "the disk limit was reached");
        let RoomState::Ready(room) = &mut self.room else { return Ok(()) };
        match room.link.send(&ToCell::Stop { message }) {
            Ok(()) => Ok(()),
            Err(fault) => self.on_link_fault(fault).await,
        }
    }
}

/// A process that the kernel ended may have been any call's: those that failed are told, and all when none did, as a command
/// can end well whose part did not.
fn name(reached: Reached, limits: &RoomLimits, results: &mut [CallResult]) {
    let any_failed = results.iter().any(|result| result.is_error);
    for result in results.iter_mut().filter(|result| result.is_error || !any_failed) {
        if reached.memory {
            let limit = size(limits.memory_bytes);
            result.is_error = true;
            result.content.push(ContentBlock::text(format!(
                "[The room's memory limit of {limit} was reached, and a process was killed to free memory. Use less at a time; \
                 files in /tmp and /dev/shm count too.]"
            )));
        }
        // A program that was refused a process and went on without is its own judge.
        if reached.processes && result.is_error {
            let limit = limits.pids;
            result.content.push(ContentBlock::text(format!(
                "[The room's limit of {limit} processes and threads was reached: more could not be started. End some, or run fewer at a time.]"
            )));
        }
    }
}

fn disk(bytes: u64, limit: u64) -> String {
    let has = match bytes {
        u64::MAX => "the session has more files, or deeper directories, than can be counted".to_owned(),
        bytes => format!("the session's files take {}", size(bytes)),
    };
    format!("The room's disk limit of {} was reached: {has}. Remove some before you write more.", size(limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use loopd_domain::CallId;
    use loopd_domain::event::Outcome;

    fn results(errors: &[bool]) -> Vec<CallResult> {
        let result = |is_error: &bool| CallResult {
            id: CallId::parse("id", "sevt_1").expect("an id"),
            content: vec![ContentBlock::text("said")],
            is_error: *is_error,
            outcome: Outcome::Completed,
            duration_ms: 1,
        };
        errors.iter().map(result).collect()
    }

    /// Blocks of each result, and whether it is an error.
    fn named(reached: Reached, errors: &[bool]) -> Vec<(usize, bool)> {
        let mut results = results(errors);
        name(reached, &RoomLimits::default(), &mut results);
        results.iter().map(|result| (result.content.len(), result.is_error)).collect()
    }

    #[test]
    fn those_that_failed_are_told() {
        let memory = Reached { memory: true, processes: false };
        assert_eq!(named(Reached::default(), &[true, false]), [(1, true), (1, false)]);
        assert_eq!(named(memory, &[true, false]), [(2, true), (1, false)]);
        assert_eq!(named(memory, &[false, false]), [(2, true), (2, true)], "a pipe hides which part died");
        let processes = Reached { memory: false, processes: true };
        assert_eq!(named(processes, &[true, false]), [(2, true), (1, false)]);
        assert_eq!(named(processes, &[false]), [(1, false)]);
        assert_eq!(named(Reached { memory: true, processes: true }, &[false]), [(3, true)]);
    }

    #[test]
    fn the_limit_is_named() {
        let mut results = results(&[true]);
        let limits = RoomLimits { memory_bytes: 3 << 29, pids: 40, ..RoomLimits::default() };
        name(Reached { memory: true, processes: true }, &limits, &mut results);
        let text = format!("{:?}", results[0].content);
        assert!(text.contains("memory limit of 1.5 GiB") && text.contains("limit of 40 processes"), "{text}");
        assert_eq!(
            disk(3 << 30, 2 << 30),
            "The room's disk limit of 2 GiB was reached: the session's files take 3 GiB. Remove some before you write more."
        );
        assert!(disk(u64::MAX, 2 << 30).contains("than can be counted"));
    }
}
