//! `loopd verify`: is a session's journal what was written?

use crate::args::{Place, ReportArgs};
use crate::connect::Connection;
use crate::exit::Exit;
use crate::screen::one_line;
use anyhow::Result;
use serde_json::Value;
use std::io::Write;

pub async fn run(place: &Place, args: &ReportArgs) -> Result<Exit> {
    let connection = Connection::open(place, false).await?;
    let report = connection.client.get(&["v1", "sessions", &args.session, "verify"], &[]).await;
    connection.close().await;
    let report = report?;
    let mut out = std::io::stdout().lock();
    match args.json {
        true => writeln!(out, "{report}")?,
        false => show(&mut out, &report)?,
    }
    Ok(if report["valid"] == true { Exit::Success } else { Exit::Failure })
}

fn show(out: &mut impl Write, report: &Value) -> Result<()> {
    let redacted = report["redacted"].as_array().map(Vec::as_slice).unwrap_or_default();
    let (entries, head) = (&report["entries"], report["head"].as_str().unwrap_or("-"));
    match report["broken"].as_object() {
        None => writeln!(out, "valid: {entries} entries, {} redacted, head {head}", redacted.len())?,
        Some(breach) => {
            let reason = one_line(breach["reason"].as_str().unwrap_or("-"), 500);
            writeln!(
                out,
                "BROKEN at entry {}: {reason}; {entries} entries before it are as they were written",
                breach["seq"]
            )?;
        }
    }
    for entry in redacted {
        let text = |name: &str| one_line(entry[name].as_str().unwrap_or("-"), 64);
        writeln!(out, "redacted: entry {}, {} {}", entry["seq"], text("type"), text("event_id"))?;
    }
    Ok(())
}
