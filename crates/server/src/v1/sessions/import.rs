//! `POST /v1/sessions/import`

use crate::auth::Caller;
use crate::error::{Answer, ApiError, ErrorBody};
use crate::state::ServerState;
use crate::wire::archive;
use crate::wire::session::{self, Session};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use loopd_domain::limits::BODY_BYTES_MAX;
use std::io;
use tokio::sync::mpsc;

const TYPES: [&str; 4] = ["application/x-tar", "application/gzip", "application/x-gzip", "application/octet-stream"];
/// Bytes of an archive that was refused which are read and thrown away, so that its sender reads the answer.
const DISCARDED_BYTES_MAX: usize = 2 * BODY_BYTES_MAX;

/// Makes a session of an archive as `GET …/export` gives it, gzipped or not. The session keeps its id. Its journal is proved
/// and folded first; a turn that was under way goes on as after a crash.
#[utoipa::path(post, path = "/v1/sessions/import", tag = "sessions",
    request_body(content = Vec<u8>, content_type = "application/x-tar"),
    responses((status = 200, body = Session), (status = "4XX", body = ErrorBody)))]
pub async fn import(State(state): State<ServerState>, caller: Caller, request: Request) -> Answer<Json<Session>> {
    check_type(request.headers())?;
    let (sender, imported) = state.sessions.import(caller.workspace.clone(), archive::check);
    // It ends by itself: when the caller hangs up, the archive is not whole.
    let importing = tokio::spawn(imported);
    pump(request.into_body(), sender).await;
    let session = importing.await.map_err(|e| ApiError::internal(format!("an import ended early: {e}")))??;
    caller.made(&session.id);
    Ok(Json(session::write(&session, state.clock.now())))
}

/// A foreign web page can make a browser send a form or a plain text without asking; none of these.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let kind = headers.get(CONTENT_TYPE).map_or("", |v| v.to_str().unwrap_or("not ASCII"));
    let essence = kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if TYPES.contains(&essence.as_str()) {
        return Ok(());
    }
    let (shown, known) = (kind.chars().take(80).collect::<String>(), TYPES.join("`, `"));
    Err(ApiError::media_type(format!("`content-type` is `{shown}`; accepted: `{known}`")))
}

async fn pump(mut body: Body, sender: mpsc::Sender<io::Result<Bytes>>) {
    let mut sender = Some(sender);
    let mut discarded = 0;
    while let Some(frame) = body.frame().await {
        let data = match frame {
            Ok(frame) => frame.into_data().unwrap_or_default(),
            // What has arrived is not whole, and is refused as that.
            Err(_) => return,
        };
        match &sender {
            Some(open) => {
                if open.send(Ok(data)).await.is_err() {
                    sender = None;
                }
            }
            None => {
                discarded += data.len();
                if discarded > DISCARDED_BYTES_MAX {
                    return;
                }
            }
        }
    }
}
