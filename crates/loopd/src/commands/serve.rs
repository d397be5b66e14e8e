//! `loopd serve`: the server until a signal ends it. The second signal ends it at once.
//!
//! SIGTERM hands over to the process that comes next; SIGINT (Ctrl-C) ends what runs.

use crate::args::{Place, ServeArgs};
use crate::compose::House;
use crate::data::DataDir;
use crate::exit::Exit;
use crate::machine;
use crate::running::Running;
use crate::settings::{Settings, process_env};
use crate::signals::{self, Ends};
use anyhow::{Context, Result};
use loopd_server::AuthConfig;
use loopd_session::StopMode;
use std::io::Write;
use tokio::sync::watch;

pub async fn run(place: &Place, args: &ServeArgs) -> Result<Exit> {
    let mut ends = signals::watch_ends().context("signals cannot be watched")?;
    let mut settings = Settings::resolve(place, &process_env)?;
    let listen = args.listen.unwrap_or(settings.listen);
    settings.listen = listen;
    let keys = settings.api_keys.iter().map(String::as_str);
    let data = tokio::select! {
        data = DataDir::succeed(&settings.data, settings.lease, args.take_over) => data?,
        () = signals::nth(&mut ends, 1) => return Ok(Exit::Interrupted),
    };
    let operator = machine::one_time_key();
    let auth = AuthConfig::with_keys(keys).with_operator(&operator);
    let house = House::build(&settings, data, auth, true, &process_env).await?;
    house.data.leave_operator_key(&operator).context("the operator's key could not be written")?;
    let mut running = Running::start(house, listen).await?;
    running.announce()?;
    greet(&running, &settings)?;
    tokio::select! {
        () = signals::nth(&mut ends, 1) => {}
        ended = running.ended() => return ended.map(|()| Exit::Failure),
    }
    stop(running, ends).await;
    Ok(Exit::Success)
}

/// The address on standard output, once it answers; everything else on standard error.
fn greet(running: &Running, settings: &Settings) -> Result<()> {
    let url = running.url();
    if running.is_development() {
        eprintln!("DEVELOPMENT MODE: no API key is set, so every program on this machine may use this server.");
        eprintln!(
            "Make one with `loopd keys create`, or set LOOPD_API_KEY (or LOOPD_API_KEYS), before anybody else can reach it."
        );
    }
    tracing::info!(%url, data = %settings.data.display(), "serving");
    let mut out = std::io::stdout();
    writeln!(out, "loopd serves {url}").and_then(|()| out.flush()).context("standard output is closed")
}

async fn stop(running: Running, mut ends: watch::Receiver<Ends>) {
    let mode = if ends.borrow().handed_over { StopMode::HandOver } else { StopMode::End };
    tracing::info!("stopping; running turns are taken up at the next start");
    tokio::select! {
        () = running.stop(mode) => tracing::info!("stopped"),
        () = signals::nth(&mut ends, 2) => {
            tracing::warn!("stopped at once; running turns are recovered at the next start");
            std::process::exit(i32::from(Exit::Interrupted.code()));
        }
    }
}
