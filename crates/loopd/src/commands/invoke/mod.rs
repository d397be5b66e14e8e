//! `loopd invoke`: one turn, watched from its first step to its last.

mod output;
mod request;
mod turn;

use crate::args::{InvokeArgs, Place};
use crate::connect::Connection;
use crate::exit::Exit;
use crate::signals;
use anyhow::{Context, Result};
use output::Output;

pub async fn run(place: &Place, args: &InvokeArgs) -> Result<Exit> {
    let ends = signals::watch_ends().context("signals cannot be watched")?;
    let body = request::read(args)?;
    let mut output = Output::new(args.json);
    let connection = Connection::open(place, true).await?;
    let watched = turn::watch(&connection.client, &body, &mut output, ends).await;
    let finished = match watched {
        Ok(turn) => finish(place, &connection, &mut output, turn),
        Err(fault) => Err(output.failed(fault)),
    };
    connection.close().await;
    finished
}

fn finish(place: &Place, connection: &Connection, output: &mut Output, turn: turn::Turn) -> Result<Exit> {
    let exit = turn.exit();
    let data = place.data.as_deref().filter(|_| connection.is_inside());
    match &turn.result {
        Some(result) => output.result(result, data)?,
        None => output.left(turn.session.as_deref(), exit, connection.is_inside(), data)?,
    }
    Ok(exit)
}
