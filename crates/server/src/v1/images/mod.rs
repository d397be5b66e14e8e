//! Images that this host knows: of the host, not of a workspace.

mod list;
mod pull;
mod remove;

use crate::error::ApiError;
use crate::state::ServerState;
use loopd_domain::Timestamp;
use loopd_images::{ImageError, ImageErrorKind, Pin};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<ServerState> {
    OpenApiRouter::new().routes(routes!(list::list, pull::pull, remove::remove))
}

/// What a reference means here.
#[derive(Debug, Serialize, ToSchema)]
pub struct Image {
    #[serde(rename = "type")]
    kind: &'static str,
    /// Whole, with registry and tag.
    reference: String,
    digest: String,
    layers: usize,
    #[schema(value_type = String, format = DateTime)]
    pinned_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    wanted_at: Timestamp,
}

fn write(reference: String, pin: &Pin) -> Image {
    let (digest, layers) = (pin.digest.to_string(), pin.layers.len());
    Image { kind: "image", reference, digest, layers, pinned_at: pin.pinned_at, wanted_at: pin.wanted_at }
}

fn refuse(fault: ImageError) -> ApiError {
    match fault.kind() {
        ImageErrorKind::Unavailable => ApiError::unavailable(fault.to_string(), None),
        ImageErrorKind::Refused | ImageErrorKind::Broken | ImageErrorKind::Packages => {
            ApiError::invalid(fault.to_string())
        }
    }
}
