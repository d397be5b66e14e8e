//! `loopd trace`: what a session did, as a tree.

use crate::args::{Place, TraceArgs};
use crate::client::Client;
use crate::connect::Connection;
use crate::exit::Exit;
use crate::screen::Screen;
use anyhow::{Context, Result};
use loopd_telemetry::Trace;
use std::io::{IsTerminal, Write};

/// Columns of what is no terminal, or one that does not say.
const WIDTH_DEFAULT: u16 = 120;

pub async fn run(place: &Place, args: &TraceArgs) -> Result<Exit> {
    let connection = Connection::open(place, false).await?;
    let shown = show(&connection.client, args).await;
    connection.close().await;
    shown.map(|()| Exit::Success)
}

async fn show(client: &Client, args: &TraceArgs) -> Result<()> {
    let answer = client.get(&["v1", "sessions", &args.session, "trace"], &[]).await?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{answer}")?;
        return Ok(());
    }
    let trace: Trace =
        serde_json::from_value(answer).context("the server's trace is not one that this loopd can read")?;
    let tree = loopd_telemetry::render_tree(&trace, usize::from(width()), Screen::wants_colour());
    out.write_all(tree.as_bytes())?;
    Ok(())
}

fn width() -> u16 {
    let out = std::io::stdout();
    let columns = rustix::termios::tcgetwinsize(&out).map_or(0, |size| size.ws_col);
    if out.is_terminal() && columns > 0 { columns } else { WIDTH_DEFAULT }
}
