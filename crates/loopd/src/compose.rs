//! The composition root: the one place that names a concrete store, a concrete sandbox, the machine's clock and its
//! randomness. Everything else knows ports.
//!
//! To put another store or another kind of room to use, change this file and nothing else.

use crate::config::Config;
use crate::data::DataDir;
use crate::machine::{self, MachineIds, SystemClock};
use crate::settings::{Env, Settings};
use crate::way_out;
use anyhow::{Context, Result};
use loopd_broker::egress::Authority;
use loopd_broker::vault::{KeySource, wanted_keys};
use loopd_broker::{AuditedBearers, Trail, TrailParts, Vaults};
use loopd_domain::environment::{Isolation, Ports};
use loopd_domain::{Clock, IdSource};
use loopd_host_tools::RemoteTools;
use loopd_images::Images;
use loopd_models::Registry;
use loopd_sandbox::{Kinds, MicrovmSandbox, NamespaceSandbox, RoomOutlet, Sandbox, SandboxError};
use loopd_server::{AuthConfig, Oidc, Rates, ServerState};
use loopd_session::{ConnectionReports, Parts, SessionService};
use loopd_store::{Store, sqlite::SqliteStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Journal, sessions, agents, environments: one file and what SQLite keeps beside it.
const STORE_FILE: &str = "loopd.sqlite";

/// All rooms of a loopd, put together and alive. It holds its data directory until it is dropped.
pub struct House {
    pub sessions: SessionService,
    pub router: axum::Router,
    pub data: DataDir,
    pub auth: Arc<AuthConfig>,
    pub audit: Arc<Trail>,
}

impl House {
    pub async fn build(
        settings: &Settings,
        data: DataDir,
        mut auth: AuthConfig,
        takes_up: bool,
        env: Env<'_>,
    ) -> Result<Self> {
        let clock = system_clock();
        let ids: Arc<dyn IdSource> = Arc::new(MachineIds::new(clock.clone()));
        let models = Arc::new(models(&settings.config, env, clock.clone())?);
        let store = store(&data)?;
        auth = auth.with_random(machine::key_bits).with_oidc(settings.oidc.clone().map(Oidc::new).transpose()?);
        if store.api_keys().any().await? {
            auth.close();
        }
        settings.check_exposure(!auth.is_development())?;
        let vaults = vaults(&store, &settings.master_key(env, data.path())?, clock.clone()).await?;
        let roots = settings.images(env)?;
        let authority = Authority::open(data.path(), vaults.as_ref(), clock.now());
        let authority = Arc::new(authority.context("the authority that rooms trust could not be opened")?);
        let sandbox = Arc::new(kinds(settings, data.path(), authority.file(), &roots.directories)?);
        let images = Images::open(data.path(), roots, clock.clone()).context("images could not be set up")?;
        let host_tools =
            RemoteTools::new(settings.allow_hosts()).context("tools that the host runs could not be set up")?;
        let connections = Arc::new(ConnectionReports::default());
        let audit = Arc::new(Trail::start(TrailParts {
            store: store.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
            retention_days: settings.audit_retention_days,
        }));
        let network = &settings.config.network;
        let egress =
            way_out::proxy(network, authority, vaults.clone(), audit.clone(), connections.clone(), clock.clone())?;
        let parts = Parts {
            store: store.clone(),
            sandbox,
            images,
            models: models.clone(),
            host_tools: Arc::new(host_tools),
            egress: Arc::new(egress),
            connections,
            placeholders: vaults.clone(),
            bearers: Arc::new(AuditedBearers::new(vaults.clone(), audit.clone(), clock.clone())),
            clock: clock.clone(),
            ids: ids.clone(),
            data: data.path().to_owned(),
            // The lock of the data directory lets nobody else in.
            sole_owner: true,
            takes_up,
            room_idle_ms: settings.room_idle_ms,
            held_ms: loopd_domain::limits::HELD_MS,
        };
        let sessions = SessionService::start_with(parts, settings.workspace_share).await;
        let sessions = sessions.context("sessions could not be started")?;
        let (auth, rates) = (Arc::new(auth), Arc::new(Rates::new(settings.workspace_limits)));
        let state = ServerState {
            sessions: sessions.clone(),
            store,
            models,
            vaults,
            clock,
            ids,
            auth: auth.clone(),
            rates,
            audit: audit.clone(),
        };
        Ok(House { sessions, router: loopd_server::router(state), data, auth, audit })
    }
}

pub fn system_clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

/// Every kind of room that an environment can name. Whether this machine can have it shows when it is asked for.
fn kinds(settings: &Settings, data: &Path, certificate: &Path, directories: &[PathBuf]) -> Result<Kinds, SandboxError> {
    let namespaces = NamespaceSandbox::furnished(data, Some(certificate), directories.to_vec())?
        .with_orphan_seconds(settings.room_orphan_seconds)
        .with_waiting_rooms(settings.waiting_rooms)
        // As a session gets that names no environment.
        .with_usual_outlet(RoomOutlet::Open { ports: Ports::default().0 });
    let microvm = MicrovmSandbox::furnished(data, Some(certificate), directories.to_vec())?
        .with_orphan_seconds(settings.room_orphan_seconds)
        .with_waiting_rooms(settings.waiting_machines);
    let kinds = Kinds::default().with(Isolation::Namespaces, Arc::new(namespaces));
    Ok(kinds.with(Isolation::Microvm, Arc::new(microvm)))
}

/// Rooms whose sessions keep their files below `data`; to be tried, not to be used. Machines are tried with the guest image that is there.
pub fn trial_sandbox(data: &Path) -> Result<Arc<dyn Sandbox>, SandboxError> {
    let namespaces = NamespaceSandbox::new(data)?.with_waiting_rooms(0);
    let microvm = MicrovmSandbox::new(data)?.with_waiting_rooms(0);
    let kinds = Kinds::default().with(Isolation::Namespaces, Arc::new(namespaces));
    Ok(Arc::new(kinds.with(Isolation::Microvm, Arc::new(microvm))))
}

pub fn store(data: &DataDir) -> Result<Arc<dyn Store>> {
    let path = data.path().join(STORE_FILE);
    let store = SqliteStore::open_in(&path, data.hold());
    let store = store.with_context(|| format!("the store `{}` could not be opened", path.display()))?;
    Ok(Arc::new(store))
}

/// Vaults under the configured master key. A wrong or missing one is a refusal.
async fn vaults(store: &Arc<dyn Store>, source: &KeySource, clock: Arc<dyn Clock>) -> Result<Arc<Vaults>> {
    let wanted = wanted_keys(store.as_ref()).await.context("the store cannot be read")?;
    let kms = Arc::new(source.load(&wanted)?);
    Ok(Arc::new(Vaults::open(store.clone(), kms, clock).await?))
}

/// Which models can be called: what the configuration says, and what the environment has keys for.
pub fn models(config: &Config, env: Env<'_>, clock: Arc<dyn Clock>) -> Result<Registry> {
    Registry::from_config(config.models.to_models_config(), env, clock).context("models could not be set up")
}
