//! What an archive says of its session, read as if a caller had sent it: an archive is no way around a limit.

use crate::wire::{agent, environment, metadata};
use loopd_domain::Invalid;
use loopd_domain::environment::EnvironmentConfig;
use loopd_domain::limits::SESSION_TITLE_CHARS_MAX;
use loopd_session::archive::ArchivedSession;
use serde_json::json;

pub fn check(session: &ArchivedSession) -> Result<(), Invalid> {
    let spec = &session.agent.spec;
    let mut definition = json!(agent::write_definition(spec));
    definition["metadata"] = json!(spec.metadata);
    agent::read_new(definition).map_err(|fault| fault.within("session.agent.spec"))?;
    let room = environment::write_config(&session.room);
    environment::read_config("session.room", room, EnvironmentConfig::default())?;
    metadata::read_new("session.metadata", Some(json!(session.metadata)))?;
    let title = session.title.as_deref().unwrap_or("");
    match title.chars().count() <= SESSION_TITLE_CHARS_MAX {
        true => Ok(()),
        false => Err(Invalid::new("session.title", title, format!("up to {SESSION_TITLE_CHARS_MAX} characters"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::session;

    #[test]
    fn what_a_caller_could_not_have_sent_is_refused() {
        let mut stored = session("sesn_1");
        let tools = json!([{"type": "agent_toolset_20260401", "configs": [{"name": "bash", "permission_policy": {"type": "always_ask"}}]},
            {"type": "custom", "name": "ask", "description": "d", "input_schema": {"type": "object"}}]);
        stored.agent.spec.tools = crate::wire::tool::read_list("tools", tools).expect("tools");
        assert_eq!(check(&ArchivedSession::from(&stored)), Ok(()));
        let mut large = ArchivedSession::from(&stored);
        large.room.limits.memory_bytes = u64::MAX;
        assert_eq!(check(&large).expect_err("too large").field, "session.room.limits.memory_bytes");
        let mut nameless = ArchivedSession::from(&stored);
        nameless.agent.spec.name.clear();
        assert_eq!(check(&nameless).expect_err("no name").field, "session.agent.spec.name");
        let mut long = ArchivedSession::from(&stored);
        long.title = Some("x".repeat(1_000));
        assert_eq!(check(&long).expect_err("too long").field, "session.title");
    }
}
