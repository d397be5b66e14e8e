//! After a change of protocol (WebSocket and others): bytes both ways, unread.

use super::tasks::Tasks;
use super::visit::Notes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use loopd_domain::limits::EGRESS_TUNNEL_BYTES;
use loopd_domain::network::ConnectionOutcome;
use parking_lot::Mutex;
use std::io;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::sync::oneshot;

/// At most one on a connection.
#[derive(Default)]
pub(crate) struct Upgrade {
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

impl Upgrade {
    pub(crate) fn begin(&self, tasks: &Tasks, room: OnUpgrade, world: OnUpgrade, notes: Notes) {
        let (over, ended) = oneshot::channel();
        *self.ended.lock() = Some(ended);
        tasks.spawn(async move {
            if let Err(reason) = both_ways(room, world).await {
                notes.outcome(ConnectionOutcome::Failed { reason: format!("it broke off: {reason}") });
            }
            // Nobody waits when the connection was cut.
            let _ = over.send(());
        });
    }

    /// Waits for its end, if there was one.
    pub(crate) async fn ended(&self) {
        let ended = self.ended.lock().take();
        if let Some(ended) = ended {
            // An error means that its task was cut, and so are we.
            let _ = ended.await;
        }
    }
}

async fn both_ways(room: OnUpgrade, world: OnUpgrade) -> Result<(), String> {
    let (room, world) = tokio::try_join!(room, world).map_err(|fault| fault.to_string())?;
    let (mut room, mut world) = (TokioIo::new(room), TokioIo::new(world));
    match copy_bidirectional_with_sizes(&mut room, &mut world, EGRESS_TUNNEL_BYTES, EGRESS_TUNNEL_BYTES).await {
        // Many programs close TCP without a farewell in TLS.
        Err(fault) if fault.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        Err(fault) => Err(fault.to_string()),
        Ok(_) => Ok(()),
    }
}
