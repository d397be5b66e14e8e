//! `POST /v1/invoke`: the whole loop in one request.
//!
//! - `request`: what a caller may say. - `resolve`: which session, agent, room and limits that means.
//! - `answer`: a turn's events folded into one answer. Pure. - `run`: waits for the turn, or streams it.

mod answer;
mod call;
mod input;
pub(crate) mod request;
mod resolve;
mod run;

use crate::state::ServerState;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<ServerState> {
    OpenApiRouter::new().routes(routes!(call::invoke))
}
