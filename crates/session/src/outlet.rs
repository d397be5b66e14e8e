//! Serving a room's outlet: each wish of its programs for a connection goes to egress, on the session's behalf.
//!
//! A task of its own, so that the driver is never in its way, nor it in the driver's. It ends with the driver's hold on the
//! room; its connections end with it. Whoever was replaced as the session's owner serves nothing: the epoch is looked up for
//! each connection.

use futures_util::FutureExt;
use loopd_broker::{Client, Egress};
use loopd_domain::limits::OUTLET_CONNECTIONS_MAX;
use loopd_sandbox::port::{Outlet, OutletStream};
use loopd_store::Store;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

/// How long connections that are cut may take to say so.
const STOP_WAIT: Duration = Duration::from_secs(1);

/// An outlet that is being served. Dropping it cuts its connections.
pub struct Serving {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// What serving needs to know of the session, and whom it asks.
#[derive(Clone)]
pub struct Attendant {
    pub egress: Arc<dyn Egress>,
    pub store: Arc<dyn Store>,
    pub client: watch::Receiver<Arc<Client>>,
}

impl Serving {
    pub fn start(outlet: Box<dyn Outlet>, attendant: Attendant) -> Self {
        let (stop, stopped) = oneshot::channel();
        Serving { stop, task: tokio::spawn(serve(outlet, attendant, stopped)) }
    }

    /// Cuts every connection, and returns when each of them has been reported.
    pub async fn stop(self) {
        drop(self.stop);
        match tokio::time::timeout(STOP_WAIT, self.task).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => tracing::error!(%fault, "serving a room's outlet broke down"),
            Err(_) => tracing::warn!("connections of a room do not end"),
        }
    }
}

async fn serve(mut outlet: Box<dyn Outlet>, attendant: Attendant, mut stopped: oneshot::Receiver<()>) {
    let places = Arc::new(Semaphore::new(OUTLET_CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    tokio::select! {
        biased;
        _ = &mut stopped => {}
        () = take(&mut outlet, &attendant, &places, &mut connections) => {
            // No more will come; those that are there go on.
            tokio::select! {
                biased;
                _ = &mut stopped => {}
                () = all_of(&mut connections) => {}
            }
        }
    }
    connections.shutdown().await;
}

/// Until no more will come, or the session is somebody else's.
async fn take(
    outlet: &mut Box<dyn Outlet>,
    attendant: &Attendant,
    places: &Arc<Semaphore>,
    connections: &mut JoinSet<()>,
) {
    loop {
        // Nobody closes the places. Further wishes wait in the outlet.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match outlet.accept().await {
            Ok(stream) => stream,
            Err(fault) => {
                tracing::debug!(session = %attendant.id(), %fault, "a room's outlet takes no more connections");
                return;
            }
        };
        while connections.try_join_next().is_some() {}
        let attendant = attendant.clone();
        connections.spawn(async move {
            attendant.attend(stream).await;
            drop(place);
        });
    }
}

async fn all_of(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

impl Attendant {
    fn id(&self) -> loopd_domain::SessionId {
        self.client.borrow().session.clone()
    }

    async fn attend(self, stream: Box<dyn OutletStream>) {
        let client = self.client.borrow().clone();
        if !self.owns(&client).await {
            return;
        }
        let served = AssertUnwindSafe(self.egress.serve(client.clone(), Box::new(stream))).catch_unwind().await;
        if served.is_err() {
            tracing::error!(session = %client.session, "a connection of a room broke down");
        }
    }

    /// Is the session still the one whose room this is?
    async fn owns(&self, client: &Client) -> bool {
        match self.store.sessions().get(&client.workspace, &client.session).await {
            Ok(Some(session)) if session.epoch == client.epoch => true,
            Ok(_) => {
                tracing::warn!(session = %client.session, "a connection of a room whose session another owner has is not served");
                false
            }
            Err(fault) => {
                tracing::warn!(session = %client.session, %fault, "a connection is not served: whose the session is cannot be read");
                false
            }
        }
    }
}
