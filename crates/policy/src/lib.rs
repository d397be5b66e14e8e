//! Decides whether a tool call may run, and whether a connection may be made. Pure: policies and an action in, a decision out.
//!
//! For calls the only policy today is the agent's own permission policy of each tool. The caller's and the operator's rules join
//! here. For connections see [`network`].

pub mod network;

use loopd_domain::agent::ResolvedTool;
use loopd_domain::event::Permission;

/// What a call asks for.
#[derive(Debug, Clone, Copy)]
pub struct Action<'a> {
    pub tool: &'a ResolvedTool,
}

/// The answer, with the policy that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub permission: Permission,
}

pub fn decide(action: Action<'_>) -> Decision {
    Decision { permission: action.tool.policy.evaluate() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loopd_domain::agent::{Builtin, PermissionPolicy};
    use loopd_domain::event::RunsIn;

    #[test]
    fn the_agents_policy_decides() {
        let tool = |policy| ResolvedTool {
            spec: Builtin::Bash.spec(),
            runs_in: RunsIn::Room,
            effect: Builtin::Bash.effect(),
            policy,
            host: None,
        };
        let ask = decide(Action { tool: &tool(PermissionPolicy::AlwaysAsk) });
        assert_eq!(ask.permission, Permission::Ask);
        let allow = decide(Action { tool: &tool(PermissionPolicy::AlwaysAllow) });
        assert_eq!(allow.permission, Permission::Allow);
    }
}
