//! The routes and their description: one list, so that no route is undocumented.

use crate::state::ServerState;
use crate::v1;
use axum::Json;
use serde_json::Value;
use std::sync::LazyLock;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(OpenApi)]
#[openapi(
    info(title = "loopd", description = "The agent loop as a service.", license(name = "Apache-2.0", identifier = "Apache-2.0")),
    tags(
        (name = "invoke", description = "The whole loop in one request"),
        (name = "agents"), (name = "environments"), (name = "sessions"), (name = "events"), (name = "threads"),
        (name = "models"), (name = "vaults"), (name = "keys"), (name = "workspaces"), (name = "audit"), (name = "images"),
        (name = "service")
    )
)]
struct Head;

/// Every route of the interface, described.
pub fn routes() -> OpenApiRouter<ServerState> {
    OpenApiRouter::with_openapi(Head::openapi()).merge(v1::routes()).routes(routes!(healthz)).routes(routes!(openapi))
}

/// The document of `GET /openapi.json`.
pub fn document() -> Document {
    routes().into_openapi()
}

/// The server runs and takes requests.
#[utoipa::path(get, path = "/healthz", tag = "service", responses((status = 200, body = Object)))]
async fn healthz() -> Json<Value> {
    Json(serde_json::json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}))
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "service", responses((status = 200, body = Object)))]
async fn openapi() -> Json<&'static Document> {
    static DOCUMENT: LazyLock<Document> = LazyLock::new(document);
    Json(&DOCUMENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// `LOOPD_BLESS=1 cargo test -p loopd-server openapi` writes the file anew.
    #[test]
    fn the_committed_document_is_the_generated_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
        let generated = format!("{}\n", document().to_pretty_json().expect("serialises"));
        if std::env::var_os("LOOPD_BLESS").is_some() {
            std::fs::write(&path, &generated).expect("writes docs/openapi.json");
        }
        let committed = std::fs::read_to_string(&path).expect("docs/openapi.json is there");
        assert!(committed == generated, "docs/openapi.json is stale: LOOPD_BLESS=1 cargo test -p loopd-server openapi");
    }
}
