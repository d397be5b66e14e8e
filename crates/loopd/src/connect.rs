//! The server that a command talks to: the one that `LOOPD_URL` names, or one inside this process.
//!
//! A server inside the process listens on a free loopback port and lets in only who shows a key that was made for it: other
//! users of the machine can reach the port as well.

use crate::args::Place;
use crate::client::Client;
use crate::compose::House;
use crate::data::{DataDir, DataError};
use crate::machine;
use crate::running::Running;
use crate::settings::{self, Settings, process_env};
use anyhow::{Context, Result};
use loopd_server::AuthConfig;
use loopd_session::StopMode;
use loopd_store::hold::Holder;
use std::net::{Ipv4Addr, SocketAddr};
use url::Url;

pub struct Connection {
    pub client: Client,
    inside: Option<Running>,
}

impl Connection {
    /// `takes_up`: a server inside this process goes on with the turns that an earlier one left.
    pub async fn open(place: &Place, takes_up: bool) -> Result<Self> {
        if let Some(url) = settings::server_url(place, &process_env)? {
            let client = Client::new(url, process_env("LOOPD_API_KEY"))?;
            return Ok(Connection { client, inside: None });
        }
        let mut settings = Settings::resolve(place, &process_env)?;
        settings.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let key = machine::one_time_key();
        let data = DataDir::open(&settings.data)?;
        let auth = AuthConfig::with_keys([key.as_str()]);
        let house = House::build(&settings, data, auth, takes_up, &process_env).await?;
        let running = Running::start(house, settings.listen).await?;
        let client = Client::new(Url::parse(&running.url())?, Some(key))?;
        Ok(Connection { client, inside: Some(running) })
    }

    /// The same for whoever runs the server: when the data directory is in use, the server that uses it, with its operator's key.
    pub async fn operator(place: &Place) -> Result<Self> {
        let fault = match Self::open(place, false).await {
            Ok(connection) => return Ok(connection),
            Err(fault) => fault,
        };
        let Some(DataError::InUse { path, holder: Holder { url: Some(url), stopping: false, .. } }) =
            fault.downcast_ref()
        else {
            return Err(fault);
        };
        let key = DataDir::operator_key(path).with_context(|| {
            format!("the key of the server at {url} cannot be read; set LOOPD_URL={url} and LOOPD_API_KEY to use it as any client does")
        })?;
        Ok(Connection { client: Client::new(Url::parse(url)?, Some(key))?, inside: None })
    }

    /// Does the server end with this command?
    pub fn is_inside(&self) -> bool {
        self.inside.is_some()
    }

    pub async fn close(self) {
        if let Some(running) = self.inside {
            running.stop(StopMode::End).await;
        }
    }
}
