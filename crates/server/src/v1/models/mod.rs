//! Models that can be named here.

mod list;
mod retrieve;

use crate::state::ServerState;
use axum::routing::get;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Model ids have slashes, which the description of a path cannot say.
#[derive(OpenApi)]
#[openapi(paths(retrieve::retrieve))]
struct Described;

pub fn routes() -> OpenApiRouter<ServerState> {
    let described = OpenApiRouter::with_openapi(Described::openapi());
    described.route("/v1/models/{*model_id}", get(retrieve::retrieve)).routes(routes!(list::list))
}
