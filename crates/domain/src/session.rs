//! A session as a resource: what it was made from, its status, why it stopped, what a turn may spend.

use crate::agent::{AgentSpec, Metadata};
use crate::environment::EnvironmentConfig;
use crate::fold::SessionFold;
use crate::limits;
use crate::usage::MicroUsd;
use crate::{AgentId, EnvironmentId, Epoch, EventId, Invalid, SessionId, Timestamp, VaultId, WorkspaceId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Idle,
    Running,
    Rescheduling,
    Terminated,
}

impl Status {
    pub const ALL: [Status; 4] = [Status::Idle, Status::Running, Status::Rescheduling, Status::Terminated];
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Idle => "idle",
            Status::Running => "running",
            Status::Rescheduling => "rescheduling",
            Status::Terminated => "terminated",
        }
    }
    pub fn parse(field: &str, text: &str) -> Result<Self, Invalid> {
        let found = Self::ALL.into_iter().find(|s| s.as_str() == text);
        found.ok_or_else(|| Invalid::new(field, text, "`idle`, `running`, `rescheduling` or `terminated`"))
    }
}

/// Why a turn is over (or waits).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StopReason {
    /// The model is done, or the client interrupted.
    EndTurn,
    /// The client must act: run custom tools, confirm calls. The turn goes on afterwards.
    RequiresAction {
        event_ids: Vec<EventId>,
    },
    /// The model could not be reached, or did not answer usefully, as often as we may try.
    RetriesExhausted,
    /// The session's budget is spent.
    BudgetReached,
    Refusal,
    /// A limit of this turn was reached. Ours; unknown to other servers of this wire format.
    LimitReached {
        limit: LimitName,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitName {
    Steps,
    OutputTokens,
    Seconds,
    CostUsd,
    /// The model's own `max_tokens` cut the final answer.
    MaxTokens,
    /// The final answer was not of `output_schema`, as often as we may ask again.
    OutputSchema,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StopDetails {
    Refusal {
        #[serde(default)]
        category: Option<String>,
        #[serde(default)]
        explanation: Option<String>,
    },
}

/// What one turn may spend. Every limit is finite; cost is bounded only when the caller asks for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurnLimits {
    pub steps: u32,
    pub output_tokens: u64,
    pub seconds: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micro_usd: Option<u64>,
}

impl TurnLimits {
    /// The limit that forbids another model request. A cost that nobody knows counts as reached: a bound that cannot be
    /// checked must not be passed. `running_ms` is 0 where somebody else keeps the turn's clock.
    pub fn reached(
        &self,
        steps: u32,
        output_tokens: u64,
        running_ms: u64,
        cost: Option<MicroUsd>,
    ) -> Option<LimitName> {
        if steps >= self.steps {
            return Some(LimitName::Steps);
        }
        if output_tokens >= self.output_tokens {
            return Some(LimitName::OutputTokens);
        }
        if running_ms >= self.seconds.saturating_mul(1_000) {
            return Some(LimitName::Seconds);
        }
        let most = self.cost_micro_usd?;
        cost.is_none_or(|cost| cost.0 >= most).then_some(LimitName::CostUsd)
    }
}

impl Default for TurnLimits {
    fn default() -> Self {
        TurnLimits {
            steps: limits::TURN_STEPS_DEFAULT,
            output_tokens: limits::TURN_OUTPUT_TOKENS_DEFAULT,
            seconds: limits::TURN_SECONDS_DEFAULT,
            cost_micro_usd: None,
        }
    }
}

/// What a caller fixed for one turn.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TurnSettings {
    #[serde(default)]
    pub limits: TurnLimits,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    /// W3C `traceparent` of the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// The effective agent of a session: a copy, so that later versions do not change a session that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionAgent {
    /// `None` for a session that was made by `/v1/invoke` without an agent.
    pub id: Option<AgentId>,
    pub version: u64,
    pub spec: AgentSpec,
}

/// A session as stored: what it was made from, and the cached fold of its journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    pub id: SessionId,
    pub workspace: WorkspaceId,
    pub agent: SessionAgent,
    /// `None`: the default environment.
    pub environment: Option<EnvironmentId>,
    /// The environment's configuration when the session was made.
    #[serde(default)]
    pub room: EnvironmentConfig,
    /// What it may use, in the order in which they are searched. Never a secret.
    #[serde(default)]
    pub vaults: Vec<VaultId>,
    pub title: Option<String>,
    pub metadata: Metadata,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub archived_at: Option<Timestamp>,
    pub fold: SessionFold,
    pub epoch: Epoch,
}
