//! Sessions: conversations with an agent in a room of their own.

mod archive;
pub mod create;
mod delete;
mod export;
mod fork;
mod import;
mod list;
mod replay;
mod retrieve;
mod trace;
mod update;
mod verify;

use crate::state::ServerState;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<ServerState> {
    OpenApiRouter::new()
        .routes(routes!(create::create, list::list))
        .routes(routes!(retrieve::retrieve, update::update, delete::delete))
        .routes(routes!(archive::archive))
        .routes(routes!(trace::trace))
        .routes(routes!(fork::fork))
        .routes(routes!(export::export))
        .routes(routes!(import::import))
        .routes(routes!(verify::verify))
        .routes(routes!(replay::replay))
}
