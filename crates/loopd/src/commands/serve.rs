//! `loopd serve`: the server until a signal ends it. The second signal ends it at once.
//!
//! SIGTERM hands over to the process that comes next; SIGINT (Ctrl-C) ends what runs. A server whose data directory another one
//! has taken over ends at once: whatever it would still do is somebody else's by now.

use crate::args::{Place, ServeArgs};
use crate::compose::House;
use crate::data::DataDir;
use crate::exit::Exit;
use crate::running::Running;
use crate::settings::{Settings, process_env};
use crate::signals::{self, Ends};
use anyhow::{Context, Result};
use loopd_server::AuthConfig;
use loopd_session::StopMode;
use loopd_store::hold::Terms;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

pub async fn run(place: &Place, args: &ServeArgs) -> Result<Exit> {
    let mut ends = signals::watch_ends().context("signals cannot be watched")?;
    let settings = Settings::resolve(place, &process_env)?;
    let listen = args.listen.unwrap_or(settings.listen);
    settings.check_exposure(listen)?;
    let keys = settings.api_keys.iter().map(String::as_str);
    let terms = Terms { lease: settings.lease, replaces: true, on_lost: Arc::new(replaced) };
    let data = tokio::select! {
        data = DataDir::succeed(&settings.data, terms, args.take_over) => data?,
        () = signals::nth(&mut ends, 1) => return Ok(Exit::Interrupted),
    };
    let house = House::build(&settings, data, AuthConfig::with_keys(keys), true, &process_env).await?;
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
    if settings.api_keys.is_empty() {
        eprintln!("DEVELOPMENT MODE: no API key is set, so every program on this machine may use this server.");
        eprintln!("Set LOOPD_API_KEY (or LOOPD_API_KEYS) before anybody else can reach it.");
    }
    tracing::info!(%url, data = %settings.data.display(), "serving");
    let mut out = std::io::stdout();
    writeln!(out, "loopd serves {url}").and_then(|()| out.flush()).context("standard output is closed")
}

/// Called on the thread that finds out, which may be about to acknowledge a write: there is no orderly way to go from there.
fn replaced(lock: &Path) {
    tracing::error!(lock = %lock.display(), "another loopd has taken the data directory over while this process showed no sign of life; ending");
    std::process::exit(i32::from(Exit::Replaced.code()));
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
