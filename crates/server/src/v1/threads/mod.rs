//! Threads: lines of conversation inside a session. For now a session has one, and its events are the session's.

mod events;
mod list;
mod retrieve;
mod stream;

use crate::error::{Answer, ApiError};
use crate::state::ServerState;
use crate::v1::path_id;
use loopd_domain::{SessionId, ThreadId};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<ServerState> {
    OpenApiRouter::new()
        .routes(routes!(list::list))
        .routes(routes!(retrieve::retrieve))
        .routes(routes!(events::events))
        .routes(routes!(stream::stream))
}

/// The session whose primary thread was named.
fn session_of(session: &str, thread: &str) -> Answer<SessionId> {
    let id = path_id("session", session, SessionId::parse)?;
    match ThreadId::primary(&id).as_str() == thread {
        true => Ok(id),
        false => Err(ApiError::absent("thread", thread).with_code("thread_not_found")),
    }
}
