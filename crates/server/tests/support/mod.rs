//! The interface over a store that can be made to fail, spoken to without a socket.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod moody;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use loopd_broker::egress::RoomStream;
use loopd_broker::vault::{LocalKms, MasterKey};
use loopd_broker::{Client, Egress, NoCredentials, Trail, TrailParts, Vaults};
use loopd_domain::{Clock, IdSource, Timestamp};
use loopd_host_tools::{AllowHosts, RemoteTools};
use loopd_images::Images;
use loopd_models::{ModelsConfig, Registry};
use loopd_sandbox::files::{FileSink, FileWriter, FilesRead, TreeWriter};
use loopd_sandbox::port::{Check, Room, RoomSpec, Sandbox, SandboxError};
use loopd_server::{AuthConfig, Rates, ServerState, WorkspaceLimits, router};
use loopd_session::{ConnectionReports, Parts, SessionService};
use loopd_store::Store;
use loopd_store::sqlite::SqliteStore;
use moody::MoodyStore;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use tower::ServiceExt;

/// Stands still until it is moved.
pub struct TestClock(pub AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

struct TestIds;

static NEXT: AtomicU64 = AtomicU64::new(1);

impl IdSource for TestIds {
    fn ulid(&self) -> u128 {
        u128::from(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

struct NoRooms;

#[async_trait]
impl Sandbox for NoRooms {
    fn kind(&self) -> &'static str {
        "none"
    }
    async fn start(&self, _: &RoomSpec) -> Result<Room, SandboxError> {
        Err(SandboxError::Unavailable { kind: "none", reason: "a test without rooms".to_owned() })
    }
    async fn adopt(&self, _: &RoomSpec) -> Result<Option<loopd_sandbox::Room>, SandboxError> {
        Ok(None)
    }

    async fn inventory(&self) -> Result<Vec<loopd_sandbox::Found>, SandboxError> {
        Ok(Vec::new())
    }

    fn keeps_files(&self, _: &RoomSpec) -> bool {
        false
    }

    async fn remove(&self, _: &RoomSpec) -> Result<(), SandboxError> {
        Ok(())
    }
    fn read_files(&self, _: &RoomSpec, _: &mut dyn FileSink) -> Result<FilesRead, SandboxError> {
        Ok(FilesRead::default())
    }
    fn write_files(&self, spec: &RoomSpec) -> Result<Box<dyn FileWriter>, SandboxError> {
        let fault = |source| SandboxError::Directory { path: spec.directory.clone(), source };
        Ok(Box::new(TreeWriter::new(&spec.directory, &[]).map_err(fault)?))
    }
    async fn probe(&self) -> Vec<Check> {
        Vec::new()
    }
}

pub struct House {
    pub store: Arc<MoodyStore>,
    pub clock: Arc<TestClock>,
    router: Router,
    /// Where the store is.
    pub directory: tempfile::TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub json: Value,
}

impl Reply {
    pub fn message(&self) -> &str {
        self.json["error"]["message"].as_str().unwrap_or("")
    }
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
    }
}

struct NoWayOut;

#[async_trait]
impl Egress for NoWayOut {
    async fn serve(&self, _client: Arc<Client>, _stream: Box<dyn RoomStream>) {
        panic!("there are no rooms");
    }
}

impl House {
    pub async fn open(auth: AuthConfig) -> House {
        House::open_with(auth, WorkspaceLimits::default()).await
    }

    pub async fn open_with(auth: AuthConfig, limits: WorkspaceLimits) -> House {
        let directory = tempfile::tempdir().expect("a directory");
        let real = SqliteStore::open(&directory.path().join("loopd.db")).expect("a store");
        let store = Arc::new(MoodyStore::new(real));
        let clock = Arc::new(TestClock(AtomicI64::new(1_700_000_000_000_000)));
        let (models, ids) = (Arc::new(models(clock.clone())), Arc::new(TestIds));
        let connections = Arc::new(ConnectionReports::default());
        let sessions = SessionService::start(Parts {
            store: store.clone(),
            sandbox: Arc::new(NoRooms),
            images: Images::open(directory.path(), Default::default(), clock.clone()).expect("images"),
            models: models.clone(),
            host_tools: Arc::new(RemoteTools::new(AllowHosts::Only(Vec::new())).expect("a client")),
            egress: Arc::new(NoWayOut),
            connections,
            placeholders: Arc::new(NoCredentials),
            bearers: Arc::new(NoCredentials),
            clock: clock.clone(),
            ids: ids.clone(),
            data: directory.path().to_owned(),
            sole_owner: true,
            takes_up: true,
            room_idle_ms: 1,
            held_ms: loopd_domain::limits::HELD_MS,
        });
        let state = ServerState {
            sessions: sessions.await.expect("a service"),
            store: store.clone(),
            models,
            vaults: vaults(store.clone(), clock.clone()).await,
            clock: clock.clone(),
            ids,
            auth: Arc::new(auth.with_random(random)),
            rates: Arc::new(Rates::new(limits)),
            audit: Arc::new(trail(store.clone(), clock.clone())),
        };
        House { store, clock, router: router(state), directory }
    }

    pub async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.expect("a router always answers");
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = to_bytes(response.into_body(), 64 << 20).await.expect("a body");
        let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        assert!(status != StatusCode::OK || !json.is_null(), "an answer that is not JSON");
        Reply { status: status.as_u16(), headers, json }
    }

    /// The answer's head; its body is read by whoever wants it.
    pub async fn answer(&self, request: Request<Body>) -> axum::response::Response {
        self.router.clone().oneshot(request).await.expect("a router always answers")
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(path).body(Body::empty()).expect("a request")).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_with(path, body, &[]).await
    }

    pub async fn post_with(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Reply {
        let mut request = Request::post(path).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(body.to_string())).expect("a request")).await
    }
}

pub fn trail(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Trail {
    Trail::start(TrailParts { store, clock, ids: Arc::new(TestIds), retention_days: 400 })
}

/// Never the same twice.
pub fn random() -> [u8; 32] {
    let mut bits = [0x5a; 32];
    bits[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    bits
}

/// Under a key that is nowhere else.
pub async fn vaults(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Arc<Vaults> {
    let kms = LocalKms::new(MasterKey::random().expect("random"), Vec::new());
    Arc::new(Vaults::open(store, Arc::new(kms), clock).await.expect("a new store"))
}

fn models(clock: Arc<dyn Clock>) -> Registry {
    Registry::from_config(ModelsConfig::default(), &|_| None, clock).expect("the default configuration")
}
