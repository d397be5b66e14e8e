//! The driver and the broker: as whom a session is known there, the way out of its room, what its room is given, and what is
//! masked before anybody sees it.

use super::room::RoomState;
use super::{Driver, Halt, session_error};
use crate::ledger::Ledger;
use crate::masking::Masking;
use crate::outlet::{Attendant, Serving};
use loopd_broker::Client;
use loopd_domain::environment::Networking;
use loopd_domain::event::RetryStatus;
use loopd_domain::session::Status;
use loopd_domain::variable;

/// As whom a session is known to egress and vaults.
pub(super) fn client_of(ledger: &Ledger) -> Client {
    let session = &ledger.session;
    let servers = session.agent.spec.mcp_servers.iter();
    let host = |url: &str| url::Url::parse(url).ok()?.host_str().map(str::to_owned);
    Client {
        session: session.id.clone(),
        workspace: session.workspace.clone(),
        epoch: session.epoch,
        networking: session.room.networking.clone(),
        ports: session.room.ports.0.clone(),
        mcp_hosts: servers.filter_map(|server| host(&server.url)).collect(),
        vaults: session.vaults.clone(),
        running: ledger.running.clone(),
    }
}

impl Driver {
    /// The agent's servers may be others now.
    pub(super) fn renew_client(&mut self) {
        let client = client_of(&self.ledger);
        self.client.send_if_modified(|known| {
            let is_other = **known != client;
            *known = client.into();
            is_other
        });
    }

    /// Serves the outlet of a room that obeys this driver.
    pub(super) fn serve_outlet(&mut self) {
        let RoomState::Ready(room) = &mut self.room else { return };
        let Some(outlet) = room.outlet.take() else { return };
        if self.ledger.session.room.networking == Networking::None {
            return;
        }
        let attendant = Attendant {
            egress: self.parts.egress.clone(),
            store: self.parts.store.clone(),
            client: self.client.subscribe(),
        };
        room.serving = Some(Serving::start(outlet, attendant));
    }

    /// Cuts the room's connections.
    pub(super) async fn close_outlet(&mut self) {
        let RoomState::Ready(room) = &mut self.room else { return };
        room.outlet = None;
        if let Some(serving) = room.serving.take() {
            serving.stop().await;
        }
    }

    /// What has waited for long enough.
    pub(super) async fn write_connections(&mut self) -> Result<(), Halt> {
        let draft = self.ledger.draft();
        if draft.events.is_empty() { Ok(()) } else { self.commit(&draft).await }
    }

    /// With those that were cut because the driver ends. Nothing hangs on them: they are tried once.
    pub(super) async fn write_last_connections(&mut self) {
        let draft = self.ledger.draft();
        if draft.events.is_empty() {
            return;
        }
        if let Err(fault) = self.ledger.commit(&draft, None).await {
            let lost = draft.events.len();
            tracing::warn!(session = %self.id(), %fault, lost, "the last connections of a room are not in its session's journal");
        }
    }

    /// What the room's programs are given in their environment.
    pub(super) async fn variables(&mut self) -> Result<Vec<(String, String)>, Halt> {
        let client = self.client.borrow().clone();
        match self.parts.placeholders.variables(&client).await {
            Ok(mut variables) => {
                variables.retain(|(name, _)| {
                    let may = variable::may_be_set(name);
                    if !may {
                        let name = name.escape_debug();
                        tracing::error!(session = %client.session, %name, "a credential would set a variable that none may set; it is left out");
                    }
                    may
                });
                Ok(variables)
            }
            Err(fault) => {
                let text =
                    format!("{fault}; the turn goes on, and its programs have no credentials in their environment");
                if self.ledger.fold().status == Status::Running {
                    let mut draft = self.ledger.draft();
                    draft.push(session_error("unknown_error", text, RetryStatus::Exhausted))?;
                    self.commit(&draft).await?;
                }
                Ok(Vec::new())
            }
        }
    }

    /// What is to be kept out of the journal now.
    pub(super) async fn masking(&mut self) -> Masking {
        let client = self.client.borrow().clone();
        Masking::of(self.parts.placeholders.as_ref(), &client).await
    }
}
