//! A house with its door open: a listener, and the way to close it without cutting anybody off.
//!
//! ```text
//!  start ─► serving ── stop() ─► the lock says so; requests that would start work are answered 503; sessions let go of their
//!                                turns, streams end ─► no new connection ─► closed
//! ```

use crate::compose::House;
use crate::data::DataDir;
use crate::listen::{self, Door};
use anyhow::{Context, Result};
use loopd_session::StopMode;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long requests that are under way may take to end once the server stops.
const DRAIN: Duration = Duration::from_secs(10);
/// How long the address may stay with whoever had the data directory before, and between two tries.
const ADDRESS_WAIT: Duration = Duration::from_secs(2);
const ADDRESS_LOOK: Duration = Duration::from_millis(50);

pub struct Running {
    address: SocketAddr,
    house: House,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

impl Running {
    pub async fn start(house: House, listen: SocketAddr) -> Result<Self> {
        let listener = bind(listen, &house.data).await;
        let listener = listener.with_context(|| {
            format!("cannot listen on {listen}; choose another address with --listen (port 0 takes a free one)")
        })?;
        let address = listener.local_addr().context("the listener has no address")?;
        let (stop, mut stopped) = watch::channel(false);
        let router = house.router.clone();
        let server = tokio::spawn(async move {
            let asked = async move {
                // An error means that the other end is gone, which is the same.
                let _ = stopped.wait_for(|stop| *stop).await;
            };
            listen::serve(listener, router, Door::default(), asked).await;
        });
        Ok(Running { address, house, stop, server })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Tells whoever finds the data directory in use where to go instead.
    pub fn announce(&self) -> Result<()> {
        let url = self.url();
        self.house.data.announce(Some(url)).context("the data directory's lock could not be written")
    }

    /// Whoever calls needs no key.
    pub fn is_development(&self) -> bool {
        self.house.auth.is_development()
    }

    /// Returns when the server has ended by itself, which it only does for a reason.
    pub async fn ended(&mut self) -> Result<()> {
        (&mut self.server).await.context("the server's task ended early")
    }

    pub async fn stop(self, mode: StopMode) {
        let Running { house, stop, server, .. } = self;
        house.data.announce_stop();
        // Sessions first: followers, and with them their streams, end when the sessions stop. Until then the door stays open, so
        // that whoever comes is told to come back and not that nobody is there.
        house.sessions.stop(mode).await;
        stop.send_replace(true);
        match tokio::time::timeout(DRAIN, server).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => tracing::warn!(%fault, "the server's task ended early"),
            Err(_) => tracing::warn!("requests that did not end in {} s were cut off", DRAIN.as_secs()),
        }
        house.data.remove_operator_key();
        house.audit.flush().await;
    }
}

/// Whoever had the directory before may need a moment to let go of the address. One that was replaced in its sleep never lets
/// go: it has no right to anything here any more, and is ended when it is in the way.
async fn bind(listen: SocketAddr, data: &DataDir) -> io::Result<TcpListener> {
    let deadline = Instant::now() + ADDRESS_WAIT;
    let mut asleep = data.replaced();
    loop {
        match TcpListener::bind(listen).await {
            Err(fault) if fault.kind() == io::ErrorKind::AddrInUse && data.is_inherited() => {
                if Instant::now() < deadline {
                    tokio::time::sleep(ADDRESS_LOOK).await;
                } else if let Some(holder) = asleep.take() {
                    let pid = holder.process.pid;
                    tracing::error!(pid, %listen, "the process that had the directory keeps the address in its sleep; it is ended now");
                    holder.process.kill(ADDRESS_WAIT)?;
                } else {
                    return Err(fault);
                }
            }
            outcome => return outcome,
        }
    }
}
