//! A service outside of loopd, as HTTP tools meet it: it counts what is done to it, by tool and by key, and can keep its
//! answers to itself.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::routing::post;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

/// A request that was acted on.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    pub tool: String,
    /// What `Idempotency-Key` said.
    pub key: String,
    pub body: String,
}

#[derive(Clone)]
pub struct EffectCounter {
    pub url: String,
    effects: Arc<Mutex<Vec<Effect>>>,
    answers: watch::Sender<bool>,
}

impl EffectCounter {
    /// Answers `done <tool>` to every `POST /<tool>`.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let counter = EffectCounter { url, effects: Arc::default(), answers: watch::Sender::new(true) };
        let router = Router::new().route("/{tool}", post(act)).with_state(counter.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        counter
    }

    /// From now on it acts and does not answer.
    pub fn hold(&self) {
        self.answers.send_replace(false);
    }

    pub fn release(&self) {
        self.answers.send_replace(true);
    }

    pub fn effects(&self) -> Vec<Effect> {
        self.effects.lock().expect("nobody panics with it").clone()
    }

    /// The keys of what one tool did, in order.
    pub fn keys(&self, tool: &str) -> Vec<String> {
        self.effects().into_iter().filter(|e| e.tool == tool).map(|e| e.key).collect()
    }

    /// Returns when that much was done.
    pub async fn until(&self, n: usize) {
        let deadline = Instant::now() + crate::PATIENCE;
        while self.effects().len() < n {
            assert!(Instant::now() < deadline, "{:?} and no more", self.effects());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn act(
    State(counter): State<EffectCounter>,
    Path(tool): Path<String>,
    headers: HeaderMap,
    body: String,
) -> String {
    let key = headers.get("idempotency-key").and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    counter.effects.lock().expect("nobody panics with it").push(Effect { tool: tool.clone(), key, body });
    // The counter itself holds the sender, so it is not gone.
    let _ = counter.answers.subscribe().wait_for(|answers| *answers).await;
    format!("done {tool}")
}
