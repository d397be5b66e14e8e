//! `loopd audit`: who did what.

use crate::args::{AuditArgs, Place};
use crate::connect::Connection;
use crate::exit::Exit;
use crate::screen::one_line;
use anyhow::Result;
use serde_json::Value;
use std::io::Write;

pub async fn run(place: &Place, args: &AuditArgs) -> Result<Exit> {
    let connection = Connection::operator(place).await?;
    let given = [
        ("actor", &args.actor),
        ("action", &args.action),
        ("resource", &args.resource),
        ("workspace", &args.workspace),
        ("created_at[gte]", &args.since),
        ("created_at[lt]", &args.until),
    ];
    let mut query: Vec<(&str, String)> = vec![("limit", args.limit.min(999).to_string())];
    query.extend(given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    let rows = connection.client.list(&["v1", "audit"], &query, args.limit as usize).await;
    connection.close().await;
    let rows = rows?;
    let mut out = std::io::stdout().lock();
    if args.json {
        rows.iter().try_for_each(|row| writeln!(out, "{row}"))?;
        return Ok(Exit::Success);
    }
    for row in &rows {
        let text = |value: &Value, chars| one_line(value.as_str().unwrap_or("-"), chars);
        let (at, action, resource) =
            (text(&row["created_at"], 19), text(&row["action"], 24), text(&row["resource"], 40));
        writeln!(out, "{at} {:<32} {action:<22} {resource:<32} {}", actor(&row["actor"]), result(row))?;
    }
    Ok(Exit::Success)
}

fn actor(actor: &Value) -> String {
    let named = actor["id"].as_str().or_else(|| actor["subject"].as_str()).or_else(|| actor["type"].as_str());
    one_line(named.unwrap_or("-"), 40)
}

fn result(row: &Value) -> String {
    let result = &row["result"];
    let kind = result["type"].as_str().unwrap_or("-");
    let reason = result["reason"].as_str().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let host = row["credential_use"]["host"].as_str().map(|host| format!(" at {host}")).unwrap_or_default();
    one_line(&format!("{kind}{reason}{host}"), 160)
}
