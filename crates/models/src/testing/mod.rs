//! A fake provider on 127.0.0.1 that speaks both real wires: for our tests, for end-to-end tests and for benchmarks.
//!
//! What it answers, in this order: the next planned [`Reply`]; the script that it was started with; the script in the
//! request's system prompt (the same JSON as `builtin/script` plays); otherwise it repeats the user's last text. It records
//! what it was sent, so that a test can look at bodies and headers. It can misbehave in every way that a provider can.

mod anthropic;
mod error;
mod history;
mod http;
mod openai;
mod reply;
mod serve;

pub use crate::builtin::script::{Call, Fault, PartialUsage, Script, Step};
pub use reply::{Delivery, End, Planned, Reply};

use crate::builtin::Attempts;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Requests that are kept; older ones are forgotten.
const RECORDED_MAX: usize = 1_024;

/// What a fake provider is started with.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// 0: any free port.
    pub port: u16,
    /// Played for every request, whatever its system prompt says.
    pub script: Option<Script>,
    /// Do not keep requests: for benchmarks.
    pub forget: bool,
}

/// A request as it arrived. Header names are in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// The running server. Dropping it ends it and every connection.
pub struct FakeProvider {
    address: SocketAddr,
    state: Arc<State>,
    server: JoinHandle<()>,
}

struct State {
    script: Option<Script>,
    forget: bool,
    planned: Mutex<VecDeque<Planned>>,
    recorded: Mutex<VecDeque<Recorded>>,
    attempts: Attempts,
}

impl FakeProvider {
    pub async fn start() -> std::io::Result<Self> {
        Self::start_with(Options::default()).await
    }

    pub async fn start_with(options: Options) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", options.port)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            script: options.script,
            forget: options.forget,
            planned: Mutex::default(),
            recorded: Mutex::default(),
            attempts: Attempts::default(),
        });
        let server = tokio::spawn(serve::accept(listener, state.clone()));
        Ok(FakeProvider { address, state, server })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// For `ANTHROPIC_BASE_URL` and `base_url` of an anthropic provider.
    pub fn anthropic_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// For `OPENAI_BASE_URL` and `base_url` of an openai provider.
    pub fn openai_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Queues what the next request without a plan is answered with.
    pub fn plan(&self, planned: impl Into<Planned>) {
        self.state.planned.lock().push_back(planned.into());
    }

    /// What arrived so far, oldest first.
    pub fn requests(&self) -> Vec<Recorded> {
        self.state.recorded.lock().iter().cloned().collect()
    }

    /// Serves until the process ends.
    pub async fn wait(mut self) {
        let _ = (&mut self.server).await;
    }
}

impl Drop for FakeProvider {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Recorded {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl State {
    fn record(&self, request: &Recorded) {
        if self.forget {
            return;
        }
        let mut recorded = self.recorded.lock();
        if recorded.len() >= RECORDED_MAX {
            recorded.pop_front();
        }
        recorded.push_back(request.clone());
    }
}
