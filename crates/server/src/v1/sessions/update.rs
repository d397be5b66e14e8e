//! `POST /v1/sessions/{session_id}`

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{Answer, ErrorBody};
use crate::fields::{Field, Fields, Kind, Patch, may, request_body};
use crate::state::{ServerState, detached};
use crate::v1::path_id;
use crate::wire::session::{self, Session};
use crate::wire::{mcp, metadata, tool};
use axum::Json;
use axum::extract::{Path, State};
use loopd_domain::{Invalid, SessionId};
use loopd_session::SessionEdit;
use serde_json::Value;

const TITLE_CHARS_MAX: usize = 500;

const FIELDS: &[Field] = &[
    may("title", Kind::Text, "absent keeps it, null clears it"),
    may("metadata", Kind::Object, "key by key: a text sets, null removes"),
    may("agent", Kind::Object, "{tools?, mcp_servers?}: replaces those of this session's agent; only while idle"),
    may("vault_ids", Kind::List, "a session's vaults stay what they were when it was made: empty or absent"),
    may("budget", Kind::Object, "not available in this version: null or absent"),
];
request_body!(
    /// Body of `POST /v1/sessions/{session_id}`.
    SessionUpdate, FIELDS
);

/// Changes title, metadata, or the tools and MCP servers of the agent.
#[utoipa::path(post, path = "/v1/sessions/{session_id}", tag = "sessions", request_body = SessionUpdate,
    params(("session_id" = String, Path)),
    responses((status = 200, body = Session), (status = 404, body = ErrorBody)))]
pub async fn update(
    State(state): State<ServerState>,
    caller: Caller,
    Path(id): Path<String>,
    body: JsonBody,
) -> Answer<Json<Session>> {
    let id = path_id("session", &id, SessionId::parse)?;
    let edit = read(body.value)?;
    let sessions = state.sessions.clone();
    // What the metadata would become is checked against what it is.
    let old = sessions.get(&caller.workspace, &id).await?;
    metadata::apply("metadata", old.metadata, &edit.metadata)?;
    let spec = &old.agent.spec;
    mcp::check(edit.mcp_servers.as_ref().unwrap_or(&spec.mcp_servers), edit.tools.as_ref().unwrap_or(&spec.tools))?;
    let edited = detached(async move { sessions.edit(&caller.workspace, &id, edit).await }).await?;
    Ok(Json(session::write(&edited, state.clock.now())))
}

fn read(body: Value) -> Result<SessionEdit, Invalid> {
    let mut fields = Fields::body(body, FIELDS)?;
    fields.unavailable("vault_ids")?;
    fields.unavailable("budget")?;
    let (tools, mcp_servers) = match fields.given("agent") {
        None => (None, None),
        Some(value) => {
            let mut agent = Fields::open("agent", value, &["tools", "mcp_servers"])?;
            let servers = agent.take("mcp_servers").map(|value| mcp::read_servers("agent.mcp_servers", value));
            let tools = match agent.take("tools") {
                None => None,
                Some(Value::Null) => Some(Vec::new()),
                Some(value) => Some(tool::read_list("agent.tools", value)?),
            };
            (tools, servers.transpose()?)
        }
    };
    Ok(SessionEdit {
        title: match fields.patch_text("title", 0..=TITLE_CHARS_MAX)? {
            Patch::Keep => None,
            Patch::Clear => Some(None),
            Patch::Set(title) => Some(Some(title)),
        },
        metadata: metadata::read_patch("metadata", fields.given("metadata"), false)?,
        tools,
        mcp_servers,
    })
}
