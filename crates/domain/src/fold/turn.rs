//! The turn that is open: what it has spent, the request that is under way, the calls of the last answer.
//!
//! Plain data with the questions that others ask of it; only [`super::SessionFold`] changes it.

use crate::event::{AnswerStop, EffectClass, Permission, RunsIn, Verdict};
use crate::session::{StopDetails, TurnSettings};
use crate::usage::MicroUsd;
use crate::{CallId, EventId, Timestamp};
use serde::{Deserialize, Serialize};

/// A turn from its first `status_running` until an idle that is not `requires_action`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenTurn {
    pub number: u32,
    pub started_at: Timestamp,
    /// Time that the client let it wait (`requires_action`), without the wait that lasts now.
    #[serde(default)]
    pub waited_ms: u64,
    /// Since when it waits for the client.
    #[serde(default)]
    pub rested_at: Option<Timestamp>,
    /// The client has asked for its end, and that was acknowledged: whoever takes the session over must end it.
    #[serde(default)]
    pub interrupted: bool,
    pub settings: TurnSettings,
    /// Steps whose model call was answered.
    pub steps: u32,
    /// The last attempt at the step that is under way; 0 before the first.
    #[serde(default)]
    pub attempts: u32,
    pub output_tokens: u64,
    pub cost: Option<MicroUsd>,
    pub output_rejections: u32,
    /// The model request that is under way.
    pub request: Option<OpenRequest>,
    /// The calls of the last answer, in the model's order, until the next request starts.
    pub calls: Vec<OpenCall>,
    /// The last answer, when it asked for no call: only the turn's end, or another request, can follow.
    #[serde(default)]
    pub answered: Option<FinalAnswer>,
    /// MCP servers that were asked for their tools in this turn.
    #[serde(default)]
    pub mcp_listed: Vec<String>,
}

/// An answer without calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalAnswer {
    pub stop: AnswerStop,
    pub stop_details: Option<StopDetails>,
    pub has_text: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRequest {
    pub id: EventId,
    pub step: u32,
    pub attempt: u32,
    pub started_at: Timestamp,
    /// A message belongs to its answer already.
    #[serde(default)]
    pub has_text: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenCall {
    pub id: CallId,
    pub name: String,
    pub runs_in: RunsIn,
    pub effect: EffectClass,
    pub permission: Permission,
    pub malformed: Option<String>,
    /// Of the arguments as the model wrote them; empty in a fold that was cached before it was kept.
    #[serde(default)]
    pub arguments_digest: String,
    pub verdict: Option<Verdict>,
    pub deny_message: Option<String>,
    /// It may have happened, and the client says whether it is run again (`verdict`): what is known of it, until it has a result.
    #[serde(default)]
    pub in_doubt: Option<String>,
    /// Its result is in the journal.
    pub settled: bool,
    /// Its result is an `agent.mcp_tool_result`.
    #[serde(default)]
    pub of_mcp: bool,
    pub asked_at: Timestamp,
}

impl OpenCall {
    /// It is in doubt, and the client has not said what is to become of it.
    pub fn is_asked_about(&self) -> bool {
        self.in_doubt.is_some() && self.verdict != Some(Verdict::Allow)
    }

    /// Was this digest, if one is given, made of the call's arguments?
    pub fn is_of(&self, digest: Option<&str>) -> bool {
        digest.is_none_or(|digest| self.arguments_digest.is_empty() || digest == self.arguments_digest)
    }

    /// It has no result, and nothing is in the way of its being run by the room or the host.
    pub fn may_run(&self) -> bool {
        let is_ours = matches!(self.runs_in, RunsIn::Room | RunsIn::Host);
        let is_refused = self.permission == Permission::Deny || self.verdict == Some(Verdict::Deny);
        is_ours && !self.settled && self.malformed.is_none() && !is_refused && !self.waits_for_client()
    }

    /// Nothing can happen to it until the client acts. What will be refused anyway does not wait.
    pub fn waits_for_client(&self) -> bool {
        if self.settled || self.malformed.is_some() || self.runs_in == RunsIn::Nowhere {
            return false;
        }
        if self.is_asked_about() {
            return true;
        }
        match (self.permission, self.verdict) {
            (Permission::Deny, _) | (Permission::Ask, Some(Verdict::Deny)) => false,
            (Permission::Ask, None) => true,
            (Permission::Ask, Some(Verdict::Allow)) | (Permission::Allow, _) => self.runs_in == RunsIn::Client,
        }
    }
}

impl OpenTurn {
    pub(super) fn begin(number: u32, settings: &TurnSettings, at: Timestamp) -> Self {
        OpenTurn {
            number,
            started_at: at,
            waited_ms: 0,
            rested_at: None,
            interrupted: false,
            settings: settings.clone(),
            steps: 0,
            attempts: 0,
            output_tokens: 0,
            cost: Some(MicroUsd(0)),
            output_rejections: 0,
            request: None,
            calls: Vec::new(),
            answered: None,
            mcp_listed: Vec::new(),
        }
    }

    /// From when the turn's `seconds` count: its start, put off by the time that the client let it wait.
    pub fn counts_from(&self) -> Timestamp {
        self.started_at.plus_ms(self.waited_ms)
    }

    /// When the turn has used its seconds, if it is not made to wait for the client again.
    pub fn time_up_at(&self) -> Timestamp {
        self.counts_from().plus_ms(self.settings.limits.seconds.saturating_mul(1_000))
    }

    /// Only the client can move it: calls wait for the client, and no other call is open.
    pub fn waits_for_client(&self) -> bool {
        let mut open = self.calls.iter().filter(|c| !c.settled).peekable();
        self.request.is_none() && open.peek().is_some() && open.all(OpenCall::waits_for_client)
    }

    /// A step is under way: its request, or a call of it that has no result.
    pub(super) fn in_step(&self) -> bool {
        self.request.is_some() || self.calls.iter().any(|c| !c.settled)
    }
}
