//! `POST /v1/images`

use super::{Image, refuse, write};
use crate::body::JsonBody;
use crate::error::{Answer, ErrorBody};
use crate::fields::{Field, Fields, Kind, must, request_body};
use crate::state::ServerState;
use axum::Json;
use axum::extract::State;
use loopd_domain::limits::IMAGE_REFERENCE_CHARS_MAX;

pub const PULL: &[Field] =
    &[must("reference", Kind::Text, "an image in a registry that the operator allows: `debian:12`")];
request_body!(
    /// Body of `POST /v1/images`.
    ImagePull, PULL
);

/// Asks the registry what a reference means now, and has it here. Rooms that are made from now on are of that; rooms that live
/// keep what they have. Answers when it is done, which can take minutes.
#[utoipa::path(post, path = "/v1/images", tag = "images", request_body = ImagePull,
    responses((status = 200, body = Image), (status = "4XX", body = ErrorBody)))]
pub async fn pull(State(state): State<ServerState>, body: JsonBody) -> Answer<Json<Image>> {
    let mut fields = Fields::body(body.value, PULL)?;
    let reference = fields.need_text("reference", 1..=IMAGE_REFERENCE_CHARS_MAX)?;
    let (reference, pin) = state.sessions.images().pull(&reference).await.map_err(refuse)?;
    Ok(Json(write(reference, &pin)))
}
