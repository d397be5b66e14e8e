//! What every handler is given.

use crate::auth::AuthConfig;
use crate::error::ApiError;
use loopd_broker::Vaults;
use loopd_domain::{Clock, IdSource};
use loopd_models::Registry;
use loopd_session::SessionService;
use loopd_store::Store;
use std::future::Future;
use std::sync::Arc;

/// Cheap to clone; made once by the composition root.
#[derive(Clone)]
pub struct ServerState {
    pub sessions: SessionService,
    pub store: Arc<dyn Store>,
    pub models: Arc<Registry>,
    pub vaults: Arc<Vaults>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdSource>,
    pub auth: Arc<AuthConfig>,
}

/// Runs `work` to its end even when the caller hangs up in the middle of it. A handler's future is dropped when its
/// connection closes; what has a durable effect must not be cut between two of its steps.
pub async fn detached<T, E>(work: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, ApiError>
where
    T: Send + 'static,
    E: Send + 'static,
    ApiError: From<E>,
{
    match tokio::spawn(work).await {
        Ok(done) => done.map_err(ApiError::from),
        Err(fault) => Err(ApiError::internal(format!("a detached task ended early: {fault}"))),
    }
}
