//! What each route asks of its caller, and what the audit log calls it: the one place where that is said.
//!
//! To add a route: its row here. A route without one answers nobody: its handler is given no caller.

use axum::extract::MatchedPath;
use axum::extract::Request;
use axum::http::Method;
use loopd_domain::identity::{Noun, Scope};

/// One route.
#[derive(Debug)]
pub struct Access {
    pub method: Method,
    pub path: &'static str,
    /// `None`: anybody, without a key. It says nothing of any workspace.
    pub scope: Option<Scope>,
    /// Noun and verb.
    pub action: &'static str,
    /// Stands in the audit log also when it was let in: it changes something, or hands everything out.
    pub recorded: bool,
}

const fn open(path: &'static str, action: &'static str) -> Access {
    Access { method: Method::GET, path, scope: None, action, recorded: false }
}
const fn reads(noun: Noun, path: &'static str, action: &'static str) -> Access {
    Access { method: Method::GET, path, scope: Some(Scope::read(noun)), action, recorded: false }
}
const fn tells(noun: Noun, path: &'static str, action: &'static str) -> Access {
    Access { method: Method::GET, path, scope: Some(Scope::read(noun)), action, recorded: true }
}
const fn posts(noun: Noun, path: &'static str, action: &'static str) -> Access {
    Access { method: Method::POST, path, scope: Some(Scope::write(noun)), action, recorded: true }
}
const fn deletes(noun: Noun, path: &'static str, action: &'static str) -> Access {
    Access { method: Method::DELETE, path, scope: Some(Scope::write(noun)), action, recorded: true }
}

use Noun::{Agents, Audit, Environments, Images, Keys, Models, Sessions, Vaults, Workspaces};

pub const ROUTES: &[Access] = &[
    open("/healthz", "service.health"),
    open("/openapi.json", "service.describe"),
    posts(Sessions, "/v1/invoke", "sessions.invoke"),
    reads(Agents, "/v1/agents", "agents.list"),
    posts(Agents, "/v1/agents", "agents.create"),
    reads(Agents, "/v1/agents/{agent_id}", "agents.retrieve"),
    posts(Agents, "/v1/agents/{agent_id}", "agents.update"),
    posts(Agents, "/v1/agents/{agent_id}/archive", "agents.archive"),
    reads(Agents, "/v1/agents/{agent_id}/versions", "agents.versions"),
    reads(Environments, "/v1/environments", "environments.list"),
    posts(Environments, "/v1/environments", "environments.create"),
    reads(Environments, "/v1/environments/{environment_id}", "environments.retrieve"),
    posts(Environments, "/v1/environments/{environment_id}", "environments.update"),
    deletes(Environments, "/v1/environments/{environment_id}", "environments.delete"),
    posts(Environments, "/v1/environments/{environment_id}/archive", "environments.archive"),
    reads(Sessions, "/v1/sessions", "sessions.list"),
    posts(Sessions, "/v1/sessions", "sessions.create"),
    posts(Sessions, "/v1/sessions/import", "sessions.import"),
    reads(Sessions, "/v1/sessions/{session_id}", "sessions.retrieve"),
    posts(Sessions, "/v1/sessions/{session_id}", "sessions.update"),
    deletes(Sessions, "/v1/sessions/{session_id}", "sessions.delete"),
    posts(Sessions, "/v1/sessions/{session_id}/archive", "sessions.archive"),
    posts(Sessions, "/v1/sessions/{session_id}/fork", "sessions.fork"),
    tells(Sessions, "/v1/sessions/{session_id}/export", "sessions.export"),
    reads(Sessions, "/v1/sessions/{session_id}/trace", "sessions.trace"),
    reads(Sessions, "/v1/sessions/{session_id}/verify", "sessions.verify"),
    reads(Sessions, "/v1/sessions/{session_id}/replay", "sessions.replay"),
    reads(Sessions, "/v1/sessions/{session_id}/events", "events.list"),
    posts(Sessions, "/v1/sessions/{session_id}/events", "events.send"),
    reads(Sessions, "/v1/sessions/{session_id}/events/stream", "events.stream"),
    posts(Sessions, "/v1/sessions/{session_id}/events/{event_id}/redact", "events.redact"),
    reads(Sessions, "/v1/sessions/{session_id}/threads", "threads.list"),
    reads(Sessions, "/v1/sessions/{session_id}/threads/{thread_id}", "threads.retrieve"),
    reads(Sessions, "/v1/sessions/{session_id}/threads/{thread_id}/events", "threads.events"),
    reads(Sessions, "/v1/sessions/{session_id}/threads/{thread_id}/stream", "threads.stream"),
    reads(Models, "/v1/models", "models.list"),
    reads(Models, "/v1/models/{model_id}", "models.retrieve"),
    reads(Vaults, "/v1/vaults", "vaults.list"),
    posts(Vaults, "/v1/vaults", "vaults.create"),
    reads(Vaults, "/v1/vaults/{vault_id}", "vaults.retrieve"),
    posts(Vaults, "/v1/vaults/{vault_id}", "vaults.update"),
    deletes(Vaults, "/v1/vaults/{vault_id}", "vaults.delete"),
    posts(Vaults, "/v1/vaults/{vault_id}/archive", "vaults.archive"),
    reads(Vaults, "/v1/vaults/{vault_id}/credentials", "credentials.list"),
    posts(Vaults, "/v1/vaults/{vault_id}/credentials", "credentials.create"),
    reads(Vaults, "/v1/vaults/{vault_id}/credentials/{credential_id}", "credentials.retrieve"),
    posts(Vaults, "/v1/vaults/{vault_id}/credentials/{credential_id}", "credentials.update"),
    deletes(Vaults, "/v1/vaults/{vault_id}/credentials/{credential_id}", "credentials.delete"),
    posts(Vaults, "/v1/vaults/{vault_id}/credentials/{credential_id}/archive", "credentials.archive"),
    posts(Vaults, "/v1/vaults/{vault_id}/credentials/{credential_id}/mcp_oauth_validate", "credentials.validate"),
    reads(Keys, "/v1/keys", "keys.list"),
    posts(Keys, "/v1/keys", "keys.create"),
    posts(Keys, "/v1/keys/{key_id}/revoke", "keys.revoke"),
    reads(Workspaces, "/v1/workspaces", "workspaces.list"),
    posts(Workspaces, "/v1/workspaces", "workspaces.create"),
    posts(Workspaces, "/v1/workspaces/{workspace_id}", "workspaces.update"),
    reads(Audit, "/v1/audit", "audit.list"),
    reads(Images, "/v1/images", "images.list"),
    posts(Images, "/v1/images", "images.pull"),
    deletes(Images, "/v1/images", "images.remove"),
];

/// The row of a request's route; `None` when it leads to no handler of ours.
pub fn of(request: &Request) -> Option<&'static Access> {
    let path = request.extensions().get::<MatchedPath>()?.as_str();
    // A path that takes the rest of itself as one value is described like any other.
    let described = path.replace("{*", "{");
    let method = match *request.method() {
        Method::HEAD => Method::GET,
        ref method => method.clone(),
    };
    ROUTES.iter().find(|route| route.path == described && route.method == method)
}

impl Access {
    /// The last id that the path of a request names.
    pub fn resource<'a>(&self, path: &'a str) -> &'a str {
        let wanted = self.path.split('/').enumerate().filter(|(_, part)| part.starts_with('{')).last();
        wanted.and_then(|(place, _)| path.split('/').nth(place)).unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openapi::document;
    use serde_json::Value;
    use std::collections::BTreeSet;

    #[test]
    fn every_route_says_whom_it_lets_in() {
        let document = serde_json::to_value(document()).expect("serialises");
        let mut described = BTreeSet::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for method in item.as_object().map(|item| item.keys()).into_iter().flatten() {
                let verb = ["get", "put", "post", "delete", "patch", "head"].contains(&method.as_str());
                assert!(verb, "{path}: {method}");
                described.insert((path.clone(), method.to_uppercase()));
            }
        }
        let said: BTreeSet<(String, String)> =
            ROUTES.iter().map(|route| (route.path.to_owned(), route.method.to_string())).collect();
        assert_eq!(said.len(), ROUTES.len(), "a route stands twice");
        let without: Vec<_> = described.difference(&said).collect();
        assert!(without.is_empty(), "routes without a row in auth/access.rs: {without:?}");
        let stale: Vec<_> = said.difference(&described).collect();
        assert!(stale.is_empty(), "rows without a route: {stale:?}");
        assert!(described.len() > 30 && document["paths"]["/v1/agents"]["post"] != Value::Null);
    }

    #[test]
    fn what_changes_something_is_for_writers_and_recorded() {
        for route in ROUTES {
            let writes = route.method != Method::GET;
            let access = route.scope.map(|scope| scope.access);
            assert_eq!(access == Some(loopd_domain::identity::Access::Write), writes, "{route:?}");
            assert!(route.recorded || !writes, "{route:?}");
            assert!(route.scope.is_some() || !route.path.starts_with("/v1/"), "{route:?}");
            let (noun, verb) = route.action.split_once('.').expect("noun and verb");
            assert!(!noun.is_empty() && !verb.is_empty());
        }
    }

    #[test]
    fn the_resource_is_the_last_id() {
        let route = |path: &str| ROUTES.iter().find(|r| r.path == path).expect("there");
        let redact = route("/v1/sessions/{session_id}/events/{event_id}/redact");
        assert_eq!(redact.resource("/v1/sessions/sesn_1/events/sevt_2/redact"), "sevt_2");
        assert_eq!(route("/v1/sessions/{session_id}/fork").resource("/v1/sessions/sesn_1/fork"), "sesn_1");
        assert_eq!(route("/v1/agents").resource("/v1/agents"), "");
    }
}
