//! `loopd sessions …`: what is there, what it said, what it says now.

mod archive;
mod standing;

use crate::args::{Place, SessionsCommand};
use crate::client::{Client, Frames};
use crate::connect::Connection;
use crate::exit::Exit;
use crate::screen::{Ink, Screen, StepsView, one_line};
use crate::signals;
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::HashSet;
use std::io::Write;

pub async fn run(place: &Place, command: &SessionsCommand) -> Result<Exit> {
    // Only a command that stays to watch takes up what was left; the others are gone in a moment.
    let stays = matches!(command, SessionsCommand::Tail { .. } | SessionsCommand::Interrupt { .. });
    let connection = Connection::open(place, stays).await?;
    let client = &connection.client;
    let done = match command {
        SessionsCommand::List { limit, status, archived, json } => list(client, *limit, status, *archived, *json).await,
        SessionsCommand::Show { id, json } => show(client, id, *json).await,
        SessionsCommand::Tail { id, lines, follow, json } => tail(client, id, *lines, *follow, *json).await,
        SessionsCommand::Interrupt { id } => interrupt(client, id).await,
        SessionsCommand::Fork { id, at, title, no_workspace } => {
            archive::fork(client, id, at.as_deref(), title.as_deref(), !no_workspace).await
        }
        SessionsCommand::Export { id, output } => archive::export(client, id, output.as_deref()).await,
        SessionsCommand::Import { file } => archive::import(client, file).await,
        SessionsCommand::Delete { ids } => delete(client, ids).await,
    };
    connection.close().await;
    done.map(|()| Exit::Success)
}

async fn list(client: &Client, limit: u32, statuses: &[String], archived: bool, json: bool) -> Result<()> {
    let mut query = vec![("limit", limit.to_string())];
    query.extend(statuses.iter().map(|s| ("statuses[]", s.clone())));
    query.extend(archived.then(|| ("include_archived", "true".to_owned())));
    let rows = client.list(&["v1", "sessions"], &query, limit as usize).await?;
    let mut out = std::io::stdout().lock();
    if json {
        rows.iter().try_for_each(|row| writeln!(out, "{row}"))?;
        return Ok(());
    }
    if rows.is_empty() {
        eprintln!("no sessions; `loopd invoke --model builtin/shell …` makes one");
        return Ok(());
    }
    writeln!(
        out,
        "{:<31} {:<12} {:>7} {:>5} {:>9} {:<24} {:<20} WAITING FOR",
        "SESSION", "STATUS", "AGE", "STEPS", "COST", "MODEL", "TITLE"
    )?;
    for row in &rows {
        let text = |value: &Value, chars| one_line(value.as_str().unwrap_or("-"), chars);
        let (id, status, title) = (text(&row["id"], 64), text(&row["status"], 12), text(&row["title"], 20));
        let (model, age, steps) = (text(&row["agent"]["model"]["id"], 24), standing::age(row), standing::steps(row));
        let (cost, waits) = (standing::cost(row), standing::waiting(row));
        writeln!(out, "{id:<31} {status:<12} {age:>7} {steps:>5} {cost:>9} {model:<24} {title:<20} {waits}")?;
    }
    Ok(())
}

async fn show(client: &Client, id: &str, json: bool) -> Result<()> {
    let session = client.get(&["v1", "sessions", id], &[]).await?;
    if json {
        writeln!(std::io::stdout(), "{session}")?;
        return Ok(());
    }
    let events = client.list(&["v1", "sessions", id, "events"], &[], usize::MAX).await?;
    let mut view = StepsView::new(Screen::stdout());
    for (name, value) in facts(&session) {
        view.note(Ink::Dim, &format!("{name:<9} {value}"))?;
    }
    view.note(Ink::Plain, "")?;
    events.iter().try_for_each(|event| view.show(event))?;
    Ok(())
}

fn facts(session: &Value) -> Vec<(&'static str, String)> {
    let text = |value: &Value| value.as_str().map(|t| one_line(t, 200));
    let usage = &session["usage"];
    let tokens = |field: &str| usage[field].as_u64().unwrap_or(0);
    let spent = format!("{} in, {} out tokens", tokens("input_tokens"), tokens("output_tokens"));
    let rows = [
        ("session", text(&session["id"])),
        ("title", text(&session["title"])),
        ("status", text(&session["status"])),
        ("agent", text(&session["agent"]["name"])),
        ("model", text(&session["agent"]["model"]["id"])),
        ("created", text(&session["created_at"])),
        ("archived", text(&session["archived_at"])),
        ("usage", Some(spent)),
        ("age", Some(standing::age(session))),
        ("steps", Some(standing::steps(session))),
        ("cost", Some(standing::cost(session))),
        ("waits for", Some(standing::waiting(session)).filter(|waits| waits != "-")),
    ];
    rows.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// First the stream is opened, then the status read, then the list: so nothing falls between them, and what a session that
/// rests has said is all in the list. What comes twice is shown once.
async fn tail(client: &Client, id: &str, lines: u32, follow: bool, json: bool) -> Result<()> {
    let mut ends = signals::watch_ends().context("signals cannot be watched")?;
    let previews = ["agent.message", "loopd.room_progress"].map(|name| ("event_deltas[]", name.to_owned()));
    let mut frames = client.get_stream(&["v1", "sessions", id, "events", "stream"], &previews).await?;
    let mut tail = Tail { seen: HashSet::new(), view: StepsView::new(Screen::stdout()), json };
    let session = client.get(&["v1", "sessions", id], &[]).await?;
    let newest_first = [("order", "desc".to_owned()), ("limit", lines.max(1).to_string())];
    let mut past = client.list(&["v1", "sessions", id, "events"], &newest_first, lines as usize).await?;
    past.reverse();
    past.iter().try_for_each(|event| tail.show(event))?;
    if !follow && session["status"] != "running" && session["status"] != "rescheduling" {
        return Ok(());
    }
    tokio::select! {
        ended = tail.follow(&mut frames, follow) => ended,
        () = signals::nth(&mut ends, 1) => Ok(()),
    }
}

struct Tail {
    seen: HashSet<String>,
    view: StepsView,
    json: bool,
}

impl Tail {
    async fn follow(&mut self, frames: &mut Frames, stay: bool) -> Result<()> {
        while let Some(frame) = frames.next().await? {
            self.show(&frame.data)?;
            let over = matches!(frame.event.as_str(), "session.status_idle" | "session.status_terminated");
            if frame.event == "session.deleted" || (over && !stay) {
                break;
            }
        }
        Ok(())
    }

    fn show(&mut self, event: &Value) -> Result<()> {
        if event["id"].as_str().is_some_and(|id| !self.seen.insert(id.to_owned())) {
            return Ok(());
        }
        match self.json {
            true if event["id"].is_null() => Ok(()),
            true => Ok(writeln!(std::io::stdout(), "{event}")?),
            false => Ok(self.view.show(event)?),
        }
    }
}

async fn interrupt(client: &Client, id: &str) -> Result<()> {
    let events = serde_json::json!({"events": [{"type": "user.interrupt"}]});
    client.post(&["v1", "sessions", id, "events"], &events).await?;
    writeln!(std::io::stdout(), "interrupted {id}")?;
    Ok(())
}

async fn delete(client: &Client, ids: &[String]) -> Result<()> {
    for id in ids {
        client.delete(&["v1", "sessions", id]).await.with_context(|| format!("session `{id}` was not deleted"))?;
        writeln!(std::io::stdout(), "deleted {id}")?;
    }
    Ok(())
}
