//! A service as tools meet them: it notes what it is sent, and answers, fails, stalls or hangs up as a test wants it.
#![allow(dead_code, reason = "each test program uses its part")]

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A request that came in.
#[derive(Debug, Clone)]
pub struct Seen {
    pub headers: HeaderMap,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
    }
}

/// What the service does with a request.
#[derive(Debug, Clone)]
pub enum Deed {
    Answer(u16, String),
    Redirect(u16, String),
    Stall,
}

#[derive(Clone)]
pub struct Service {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    deeds: Arc<Mutex<VecDeque<Deed>>>,
}

impl Service {
    /// Does the deeds in turn; afterwards it answers 200 `ok`.
    pub async fn start(deeds: impl IntoIterator<Item = Deed>) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/tool", listener.local_addr().expect("an address"));
        let deeds = Arc::new(Mutex::new(deeds.into_iter().collect()));
        let service = Service { url, seen: Arc::default(), deeds };
        let state = service.clone();
        let handler = move |headers: HeaderMap, body: Bytes| async move { state.take(headers, body).await };
        let router = Router::new().route("/tool", post(handler.clone())).route("/moved", post(handler));
        tokio::spawn(async move { axum::serve(listener, router).await });
        service
    }

    async fn take(&self, headers: HeaderMap, body: Bytes) -> Response {
        self.seen.lock().push(Seen { headers, body: String::from_utf8_lossy(&body).into_owned() });
        let deed = self.deeds.lock().pop_front().unwrap_or(Deed::Answer(200, "ok".to_owned()));
        match deed {
            Deed::Answer(status, text) => (StatusCode::from_u16(status).expect("a status"), text).into_response(),
            Deed::Redirect(status, target) => {
                (StatusCode::from_u16(status).expect("a status"), [("location", target)]).into_response()
            }
            Deed::Stall => {
                tokio::time::sleep(Duration::from_secs(30)).await;
                "too late".into_response()
            }
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }
}

/// Takes connections, reads a little of each, says `greeting` and hangs up. Counts the requests.
pub async fn hangs_up(greeting: &'static str) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/tool", listener.local_addr().expect("an address"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = vec![0; 16 << 10];
            let read = stream.read(&mut buffer).await.unwrap_or(0);
            notes.lock().push(String::from_utf8_lossy(&buffer[..read]).into_owned());
            // Whoever was hung up on may be gone.
            let _ = stream.write_all(greeting.as_bytes()).await;
        }
    });
    (url, seen)
}

/// An address where nobody listens.
pub async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    format!("http://{}/tool", listener.local_addr().expect("an address"))
}
