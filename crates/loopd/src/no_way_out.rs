//! The way out of a build without an egress proxy: there is none, and whoever asks for it is told so.

use async_trait::async_trait;
use loopd_broker::egress::RoomStream;
use loopd_broker::{Client, Egress, Reports};
use loopd_domain::Clock;
use loopd_domain::network::{Connection, ConnectionOutcome};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const REASON: &str = "this build has no way out of a room";
/// Bytes of a request that are read for the host that it names.
const HEAD_BYTES_MAX: usize = 4 << 10;

pub struct NoWayOut {
    reports: Arc<dyn Reports>,
    clock: Arc<dyn Clock>,
}

impl NoWayOut {
    pub fn new(reports: Arc<dyn Reports>, clock: Arc<dyn Clock>) -> Self {
        NoWayOut { reports, clock }
    }
}

#[async_trait]
impl Egress for NoWayOut {
    async fn serve(&self, client: Arc<Client>, mut stream: Box<dyn RoomStream>) {
        let started_at = self.clock.now();
        let mut head = vec![0; HEAD_BYTES_MAX];
        // What cannot be read names no host, and a room that has gone away reads no answer.
        let read = stream.read(&mut head).await.unwrap_or_default();
        let (host, port) = target(&String::from_utf8_lossy(&head[..read]));
        let body = format!("{REASON}\n");
        let answer = format!(
            "HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
        let connection = Connection {
            host,
            port,
            outcome: ConnectionOutcome::Refused { reason: REASON.to_owned() },
            credentials: Vec::new(),
            started_at,
            duration_ms: self.clock.now().since_ms(started_at),
            bytes_out: 0,
            bytes_in: 0,
        };
        self.reports.ended(&client.session, connection);
    }
}

/// Of `CONNECT host:port …`.
fn target(head: &str) -> (String, u16) {
    let target = head.split_whitespace().nth(1).unwrap_or_default();
    match target.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
        Some((host, Ok(port))) => (host.to_owned(), port),
        _ => (target.to_owned(), 0),
    }
}
