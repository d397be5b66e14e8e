//! `loopd images …`: what references mean here, and making them mean something else.

use crate::args::{ImagesCommand, Place};
use crate::client::Client;
use crate::connect::Connection;
use crate::exit::Exit;
use crate::screen::one_line;
use anyhow::Result;
use serde_json::{Value, json};
use std::io::Write;

/// Characters of a digest that tell two apart.
const DIGEST_CHARS: usize = 19;

pub async fn run(place: &Place, command: &ImagesCommand) -> Result<Exit> {
    let connection = Connection::open(place, false).await?;
    let client = &connection.client;
    let done = match command {
        ImagesCommand::List { json } => list(client, *json).await,
        ImagesCommand::Pull { reference } => pull(client, reference).await,
        ImagesCommand::Remove { references } => remove(client, references).await,
    };
    connection.close().await;
    done.map(|()| Exit::Success)
}

async fn list(client: &Client, json: bool) -> Result<()> {
    let rows = client.list(&["v1", "images"], &[], usize::MAX).await?;
    let mut out = std::io::stdout().lock();
    if json {
        rows.iter().try_for_each(|row| writeln!(out, "{row}"))?;
        return Ok(());
    }
    if rows.is_empty() {
        eprintln!("no images; an environment with `root: {{type: \"image\", …}}` or `loopd images pull` brings one");
        return Ok(());
    }
    writeln!(out, "{:<50} {:<19} {:>6} PINNED", "IMAGE", "DIGEST", "LAYERS")?;
    for row in &rows {
        let text = |value: &Value, chars| one_line(value.as_str().unwrap_or("-"), chars);
        let (name, pinned) = (text(&row["reference"], 200), text(&row["pinned_at"], 30));
        writeln!(out, "{name:<50} {:<19} {:>6} {pinned}", digest(row), row["layers"])?;
    }
    Ok(())
}

async fn pull(client: &Client, reference: &str) -> Result<()> {
    let image = client.post_patiently(&["v1", "images"], &json!({"reference": reference})).await?;
    writeln!(std::io::stdout(), "{} is {}", image["reference"].as_str().unwrap_or(reference), digest(&image))?;
    Ok(())
}

async fn remove(client: &Client, references: &[String]) -> Result<()> {
    for reference in references {
        client.delete_where(&["v1", "images"], &[("reference", reference.clone())]).await?;
        writeln!(std::io::stdout(), "removed {reference}")?;
    }
    Ok(())
}

fn digest(image: &Value) -> String {
    image["digest"].as_str().unwrap_or("-").chars().take(DIGEST_CHARS).collect()
}
