//! What a turn has spent, and which of its limits that reaches. Does not decide what follows.

use crate::types::{Answer, Resume};
use loopd_domain::Timestamp;
use loopd_domain::session::{LimitName, TurnLimits};
use loopd_domain::usage::MicroUsd;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Budget {
    limits: TurnLimits,
    started_at: Timestamp,
    /// Steps answered.
    pub(crate) steps: u32,
    output_tokens: u64,
    /// `None`: a price was unknown.
    cost: Option<MicroUsd>,
    /// Times that the model was asked again because its answer could not be used.
    pub(crate) repairs: u32,
}

impl Budget {
    pub(crate) fn of(resume: &Resume) -> Self {
        Budget {
            limits: resume.limits.clone(),
            started_at: resume.started_at,
            steps: resume.steps,
            output_tokens: resume.output_tokens,
            cost: resume.cost,
            repairs: resume.output_rejections,
        }
    }

    /// One step was answered.
    pub(crate) fn add(&mut self, answer: &Answer) {
        self.steps = self.steps.saturating_add(1);
        self.output_tokens = self.output_tokens.saturating_add(answer.output_tokens);
        let total = |spent: MicroUsd| Some(MicroUsd(spent.0.saturating_add(answer.cost?.0)));
        self.cost = self.cost.and_then(total);
    }

    /// The limit that forbids another step. A cost that nobody knows counts as reached: a bound that cannot be checked
    /// must not be passed.
    pub(crate) fn reached(&self, now: Timestamp) -> Option<LimitName> {
        let running_ms = now.since_ms(self.started_at);
        self.limits.reached(self.steps, self.output_tokens, running_ms, self.cost)
    }
}
