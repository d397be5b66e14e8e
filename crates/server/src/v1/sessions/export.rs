//! `GET /v1/sessions/{session_id}/export`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::query::Query;
use crate::state::ServerState;
use crate::v1::path_id;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use loopd_domain::{Invalid, SessionId};
use loopd_session::archive::Compression;

/// The whole session as a tar archive: what it is made of, its sealed journal, its files as they are while it is written.
/// Streamed: an answer that breaks off is an archive that is not whole, and no import takes it.
#[utoipa::path(get, path = "/v1/sessions/{session_id}/export", tag = "sessions",
    params(
        ("session_id" = String, Path),
        ("compression" = Option<String>, Query, description = "`none` (default) or `gzip`")
    ),
    responses((status = 200, content_type = "application/x-tar", body = Vec<u8>), (status = "4XX", body = ErrorBody)))]
pub async fn export(
    State(state): State<ServerState>,
    caller: Caller,
    Path(id): Path<String>,
    query: Query,
) -> Answer<Response> {
    let id = path_id("session", &id, SessionId::parse)?;
    let query = query.only(&["compression"])?;
    let (compression, kind, ending) = match query.one("compression")? {
        None | Some("none") => (Compression::None, "application/x-tar", "tar"),
        Some("gzip") => (Compression::Gzip, "application/gzip", "tar.gz"),
        Some(other) => return Err(Invalid::new("compression", other, "`none` or `gzip`").into()),
    };
    let chunks = state.sessions.export(&caller.workspace, &id, compression).await?;
    let body = stream::unfold(chunks, async |mut chunks| Some((chunks.recv().await?, chunks)));
    let named = format!("attachment; filename=\"{id}.{ending}\"");
    let headers = [(CONTENT_TYPE, kind.to_owned()), (CONTENT_DISPOSITION, named)];
    Ok((headers, Body::from_stream(body)).into_response())
}
