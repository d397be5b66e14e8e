//! `loopd redact`: the content of an event goes, its place in the history stays.

use crate::args::{Place, RedactArgs};
use crate::connect::Connection;
use crate::exit::Exit;
use anyhow::Result;
use serde_json::json;
use std::io::Write;

pub async fn run(place: &Place, args: &RedactArgs) -> Result<Exit> {
    let connection = Connection::open(place, false).await?;
    let body = args.reason.as_ref().map_or(json!({}), |reason| json!({"reason": reason}));
    let path = ["v1", "sessions", &args.session, "events", &args.event, "redact"];
    let redacted = connection.client.post(&path, &body).await;
    connection.close().await;
    let redacted = redacted?;
    writeln!(std::io::stdout(), "redacted {} in {} entries", args.event, redacted["entries"])?;
    if redacted["purged"] == false {
        eprintln!("something reads the store, and older pages of its files may hold the text still; repeat this later");
    }
    Ok(Exit::Success)
}
