//! `loopd replay`: would the loop do again what a session's journal says that it did?

use crate::args::{Place, ReportArgs};
use crate::connect::Connection;
use crate::exit::Exit;
use crate::screen::one_line;
use anyhow::Result;
use serde_json::Value;
use std::io::Write;

pub async fn run(place: &Place, args: &ReportArgs) -> Result<Exit> {
    let connection = Connection::open(place, false).await?;
    let report = connection.client.get(&["v1", "sessions", &args.session, "replay"], &[]).await;
    connection.close().await;
    let report = report?;
    let mut out = std::io::stdout().lock();
    match args.json {
        true => writeln!(out, "{report}")?,
        false => show(&mut out, &report)?,
    }
    Ok(if report["divergence"].is_null() { Exit::Success } else { Exit::Failure })
}

fn show(out: &mut impl Write, report: &Value) -> Result<()> {
    let (turns, steps) = (&report["turns"], &report["steps"]);
    match report["divergence"].as_object() {
        None => writeln!(out, "{turns} turns, {steps} steps replayed, no divergence")?,
        Some(found) => {
            let text = |name: &str| one_line(found[name].as_str().unwrap_or("-"), 500);
            writeln!(
                out,
                "DIVERGENCE at entry {} ({}), after {turns} turns and {steps} steps",
                found["seq"],
                text("type")
            )?;
            writeln!(out, "  the loop would have: {}", text("expected"))?;
            writeln!(out, "  the journal has:     {}", text("got"))?;
        }
    }
    if report["unannounced_takeovers"] != 0 {
        writeln!(out, "takeovers assumed that the journal does not tell of: {}", report["unannounced_takeovers"])?;
    }
    let digests = &report["request_digests"];
    let (equal, all) = (&digests["equal"], &digests["requests"]);
    writeln!(out, "request digests equal: {equal} of {all} ({} not comparable)", digests["not_comparable"])?;
    if let Some(seq) = digests["first_different"].as_u64() {
        writeln!(out, "  the first request that differs: entry {seq}")?;
    }
    Ok(())
}
