//! `loopd serve`: the server until a signal ends it. The second signal ends it at once.

use crate::args::{Place, ServeArgs};
use crate::compose::House;
use crate::exit::Exit;
use crate::running::Running;
use crate::settings::{Settings, process_env};
use crate::signals;
use anyhow::{Context, Result};
use loopd_server::AuthConfig;
use std::io::Write;
use tokio::sync::watch;

pub async fn run(place: &Place, args: &ServeArgs) -> Result<Exit> {
    let mut ends = signals::watch_ends().context("signals cannot be watched")?;
    let mut settings = Settings::resolve(place, &process_env)?;
    let listen = args.listen.unwrap_or(settings.listen);
    settings.listen = listen;
    settings.check_exposure(listen)?;
    let keys = settings.api_keys.iter().map(String::as_str);
    let house = House::build(&settings, AuthConfig::with_keys(keys), true, &process_env).await?;
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

async fn stop(running: Running, mut ends: watch::Receiver<u32>) {
    tracing::info!("stopping; running turns are taken up at the next start");
    tokio::select! {
        () = running.stop() => tracing::info!("stopped"),
        () = signals::nth(&mut ends, 2) => {
            tracing::warn!("stopped at once; running turns are recovered at the next start");
            std::process::exit(i32::from(Exit::Interrupted.code()));
        }
    }
}
