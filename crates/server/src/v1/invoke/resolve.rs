//! Which agent, room and limits an invocation means.

use super::request::{AgentName, Invocation, Room};
use crate::auth::Caller;
use crate::error::{Answer, ApiError};
use crate::state::ServerState;
use crate::v1::sessions::create::{base, room_of};
use crate::v1::vaults;
use crate::wire::{environment, mcp, model, tool};
use axum::http::HeaderMap;
use loopd_domain::Invalid;
use loopd_domain::agent::{AgentSpec, Metadata, ModelRef, OnUnknownOutcome};
use loopd_domain::environment::EnvironmentConfig;
use loopd_domain::session::{Session, SessionAgent, TurnSettings};
use loopd_session::{NewSession, ServiceError};

/// The name of an agent that was made for one session.
const INLINE_NAME: &str = "invoke";

pub fn settings(invocation: &Invocation, headers: &HeaderMap) -> TurnSettings {
    TurnSettings {
        limits: invocation.limits.clone(),
        output_schema: invocation.output_schema.clone(),
        traceparent: headers.get("traceparent").and_then(|v| v.to_str().ok()).and_then(traceparent),
    }
}

/// A valid W3C `traceparent`; as its standard demands, one that is not is as good as none.
fn traceparent(text: &str) -> Option<String> {
    let lower = |part: &str, len: usize| part.len() == len && part.bytes().all(|b| b"0123456789abcdef".contains(&b));
    let some = |part: &str| part.bytes().any(|b| b != b'0');
    let [version, trace, parent, flags] = text.trim().splitn(4, '-').collect::<Vec<_>>().try_into().ok()?;
    let valid =
        lower(version, 2) && version != "ff" && lower(trace, 32) && some(trace) && lower(parent, 16) && some(parent);
    let flags_fine = if version == "00" { lower(flags, 2) } else { lower(flags.get(..2)?, 2) };
    (valid && flags_fine).then(|| text.trim().to_owned())
}

/// The session to be made of an invocation that names none.
pub async fn new_session(
    state: &ServerState,
    caller: &Caller,
    invocation: Invocation,
    settings: TurnSettings,
) -> Answer<NewSession> {
    if let Some(i) = invocation.inputs.iter().position(|b| b.kind() != "user.message") {
        let fault = Invalid::new("input", invocation.inputs[i].kind(), "a message; tool answers need `session`");
        return Err(fault.into());
    }
    let (environment, room) = match invocation.room {
        Room::Default => (None, EnvironmentConfig::default()),
        Room::Named(id) => room_of(state, caller, Some(id)).await?,
        Room::Inline(value) => (None, environment::read_config("environment", value, EnvironmentConfig::default())?),
    };
    let mut agent = match invocation.agent {
        None => inline_agent(invocation.model, invocation.system, invocation.tools, invocation.mcp_servers)?,
        Some(AgentName { id, version }) => {
            let mut agent = base(state, caller, &id, version).await?;
            if let Some(new) = invocation.model {
                agent.spec.model = model::replace(&agent.spec.model, new);
            }
            agent.spec.system = invocation.system.unwrap_or(agent.spec.system);
            agent.spec.tools = invocation.tools.unwrap_or(agent.spec.tools);
            agent.spec.mcp_servers = invocation.mcp_servers.unwrap_or(agent.spec.mcp_servers);
            agent
        }
    };
    if let Some(setting) = invocation.on_unknown_outcome {
        agent.spec.on_unknown_outcome = setting;
    }
    mcp::check(&agent.spec.mcp_servers, &agent.spec.tools)?;
    check_cost_limit(state, &agent.spec.model, &settings)?;
    Ok(NewSession {
        workspace: caller.workspace.clone(),
        agent,
        environment,
        room,
        vaults: vaults::usable(state, caller, invocation.vaults).await?,
        title: invocation.title,
        metadata: invocation.metadata,
        inputs: invocation.inputs,
        settings,
    })
}

fn inline_agent(
    model: Option<(ModelRef, bool)>,
    system: Option<Option<String>>,
    tools: Option<Vec<loopd_domain::agent::Tool>>,
    mcp_servers: Option<Vec<loopd_domain::mcp::McpServer>>,
) -> Result<SessionAgent, Invalid> {
    let accepted = "`model`, `agent` or `session`: who is to do the work";
    let (model, _) = model.ok_or_else(|| Invalid::missing("model", accepted))?;
    let spec = AgentSpec {
        name: INLINE_NAME.to_owned(),
        description: None,
        model,
        system: system.flatten(),
        tools: tools.unwrap_or_else(tool::all_builtins),
        on_unknown_outcome: OnUnknownOutcome::default(),
        mcp_servers: mcp_servers.unwrap_or_default(),
        metadata: Metadata::new(),
    };
    Ok(SessionAgent { id: None, version: 1, spec })
}

/// A cost limit on a model without a known price could never bite: an error now, not a silent zero.
pub fn check_cost_limit(state: &ServerState, model: &ModelRef, settings: &TurnSettings) -> Answer<()> {
    if settings.limits.cost_micro_usd.is_none() {
        return Ok(());
    }
    let resolved = state.models.resolve(model).map_err(|fault| ApiError::from(ServiceError::Model(fault)))?;
    match resolved.price {
        Some(_) => Ok(()),
        None => {
            let message = format!(
                "`limits.cost_usd` is set, but the price of model `{}` is not known; accepted: another limit, or a price for \
                 the model in the server's configuration",
                resolved.full_id
            );
            Err(ApiError::invalid(message))
        }
    }
}

/// Refuses what would wait for ever: a message alone to a session that waits for tool answers.
pub fn check_continues(session: &Session, invocation: &Invocation) -> Answer<()> {
    let fold = &session.fold;
    let answers = invocation.inputs.iter().any(|b| b.kind() != "user.message");
    if fold.is_waiting() && !answers {
        let calls: Vec<String> = fold.waiting().iter().map(|id| format!("`{id}`")).collect();
        return Err(ApiError::invalid(format!(
            "session `{}` waits for the caller to answer {}; accepted in `input`: a `tool_result` or `tool_confirmation` for \
             each, a message beside them if you like. Or send `user.interrupt` first",
            session.id,
            calls.join(", ")
        )));
    }
    if invocation.reject_if_running && fold.needs_owner() {
        let message = format!("session `{}` is running a turn, and `if_running` is `reject`", session.id);
        return Err(ApiError::conflict(message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_valid_or_ignored() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(traceparent(good).as_deref(), Some(good));
        assert!(traceparent("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more").is_some());
        for bad in [
            "",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ] {
            assert_eq!(traceparent(bad), None, "{bad}");
        }
    }
}
