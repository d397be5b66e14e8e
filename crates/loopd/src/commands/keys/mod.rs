//! `loopd keys …` and `loopd workspaces …`: who may call. (The master key of the vaults is `master`'s.)
//!
//! They reach the server that uses the data directory, when there is one, and the data directory itself otherwise.

mod master;

use crate::args::{KeysCommand, Place, WorkspacesCommand};
use crate::client::Client;
use crate::compose;
use crate::connect::Connection;
use crate::exit::Exit;
use crate::screen::one_line;
use anyhow::{Result, anyhow};
use loopd_domain::Timestamp;
use serde_json::{Value, json};
use std::io::Write;

const DAY_MS: u64 = 24 * 3_600_000;

pub async fn run(place: &Place, command: &KeysCommand) -> Result<Exit> {
    if let KeysCommand::RotateMaster = command {
        return master::rotate_master(place).await;
    }
    let connection = Connection::operator(place).await?;
    let client = &connection.client;
    let done = match command {
        KeysCommand::RotateMaster => Ok(()),
        KeysCommand::Create { name, workspace, scopes, expires, json } => {
            create(client, name, workspace.as_deref(), scopes, expires.as_deref(), *json).await
        }
        KeysCommand::List { workspace, revoked, json } => list(client, workspace.as_deref(), *revoked, *json).await,
        KeysCommand::Revoke { id, workspace } => revoke(client, id, workspace.as_deref()).await,
    };
    connection.close().await;
    done.map(|()| Exit::Success)
}

pub async fn workspaces(place: &Place, command: &WorkspacesCommand) -> Result<Exit> {
    let connection = Connection::operator(place).await?;
    let done = match command {
        WorkspacesCommand::Create { name, require_isolation } => {
            let body = json!({"name": name, "require_isolation": require_isolation});
            connection.client.post(&["v1", "workspaces"], &body).await.map(|made| vec![made])
        }
        WorkspacesCommand::Update { name, require_isolation } => {
            let body = json!({"require_isolation": require_isolation});
            connection.client.post(&["v1", "workspaces", name], &body).await.map(|changed| vec![changed])
        }
        WorkspacesCommand::List => connection.client.list(&["v1", "workspaces"], &[], usize::MAX).await,
    };
    connection.close().await;
    let mut out = std::io::stdout().lock();
    for row in done? {
        let (id, name) = (text(&row["id"], 64), text(&row["name"], 64));
        writeln!(out, "{id:<34} {name:<24} requires {}", text(&row["require_isolation"], 64))?;
    }
    Ok(Exit::Success)
}

async fn create(
    client: &Client,
    name: &str,
    workspace: Option<&str>,
    scopes: &[String],
    expires: Option<&str>,
    as_json: bool,
) -> Result<()> {
    let mut body = json!({"name": name});
    if let Some(workspace) = workspace {
        body["workspace"] = workspace.into();
    }
    if !scopes.is_empty() {
        body["scopes"] = scopes.into();
    }
    if let Some(expires) = expires {
        body["expires_at"] = expiry(expires, compose::system_clock().now())?.to_string().into();
    }
    let made = client.post(&["v1", "keys"], &body).await?;
    let mut out = std::io::stdout().lock();
    if as_json {
        writeln!(out, "{made}")?;
        return Ok(());
    }
    let key = made["key"].as_str().ok_or_else(|| anyhow!("the server's answer has no key"))?;
    eprintln!("{} for {}; it is shown this once, keep it now", text(&made["id"], 64), text(&made["workspace_id"], 64));
    writeln!(out, "{key}")?;
    Ok(())
}

async fn list(client: &Client, workspace: Option<&str>, revoked: bool, as_json: bool) -> Result<()> {
    let mut query = of_workspace(workspace);
    query.extend(revoked.then(|| ("include_revoked", "true".to_owned())));
    let rows = client.list(&["v1", "keys"], &query, usize::MAX).await?;
    let mut out = std::io::stdout().lock();
    if as_json {
        rows.iter().try_for_each(|row| writeln!(out, "{row}"))?;
        return Ok(());
    }
    if rows.is_empty() {
        eprintln!("no keys; `loopd keys create --name …` makes one");
        return Ok(());
    }
    writeln!(out, "{:<33} {:<13} {:<20} {:<10} {:<17} SCOPES", "KEY", "BEGINS WITH", "NAME", "STATE", "LAST USED")?;
    let now = compose::system_clock().now();
    for row in &rows {
        let scopes: Vec<&str> = row["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let (id, hint, name) = (text(&row["id"], 64), text(&row["hint"], 16), text(&row["name"], 20));
        let (state, used) = (state(row, now), text(&row["last_used_at"], 16));
        writeln!(out, "{id:<33} {hint:<13} {name:<20} {state:<10} {used:<17} {}", one_line(&scopes.join(" "), 200))?;
    }
    Ok(())
}

async fn revoke(client: &Client, id: &str, workspace: Option<&str>) -> Result<()> {
    let path = ["v1", "keys", id, "revoke"];
    let revoked = client.post_with(&path, &of_workspace(workspace), &json!({})).await?;
    writeln!(std::io::stdout(), "revoked {} ({})", text(&revoked["id"], 64), text(&revoked["name"], 200))?;
    Ok(())
}

fn of_workspace(workspace: Option<&str>) -> Vec<(&'static str, String)> {
    workspace.map(|named| ("workspace", named.to_owned())).into_iter().collect()
}

fn state(row: &Value, now: Timestamp) -> &'static str {
    let time = |name: &str| row[name].as_str().and_then(Timestamp::parse);
    match (time("revoked_at"), time("expires_at")) {
        (Some(_), _) => "revoked",
        (None, Some(end)) if end <= now => "expired",
        _ => "valid",
    }
}

fn text(value: &Value, chars: usize) -> String {
    one_line(value.as_str().unwrap_or("-"), chars)
}

/// A time, or how long from now: `90d`, `12h`, `30m`.
pub fn expiry(text: &str, now: Timestamp) -> Result<Timestamp> {
    let accepted =
        || anyhow!("--expires is `{text}`; accepted: `90d`, `12h`, `30m`, or a time such as `2027-01-31T00:00:00Z`");
    let units = [('d', DAY_MS), ('h', 3_600_000), ('m', 60_000)];
    let unit = units.into_iter().find_map(|(letter, ms)| Some((text.strip_suffix(letter)?, ms)));
    match unit {
        Some((count, ms)) => {
            let count: u64 = count.parse().map_err(|_| accepted())?;
            let ms = count.checked_mul(ms).filter(|ms| *ms > 0 && *ms < DAY_MS * 36_500).ok_or_else(accepted)?;
            Ok(now.plus_ms(ms))
        }
        None => Timestamp::parse(text).ok_or_else(accepted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_time_or_a_stretch() {
        let now = Timestamp::from_millis(1_000_000);
        assert_eq!(expiry("2h", now).expect("a stretch"), now.plus_ms(7_200_000));
        assert_eq!(expiry("90d", now).expect("a stretch"), now.plus_ms(90 * DAY_MS));
        let time = "2027-01-31T00:00:00Z";
        assert_eq!(expiry(time, now).expect("a time"), Timestamp::parse(time).expect("a time"));
        for bad in ["", "d", "0d", "-1d", "1w", "soon", "99999999999999999999d", "999999999d"] {
            assert!(expiry(bad, now).expect_err(bad).to_string().contains("`90d`"), "{bad}");
        }
    }
}
