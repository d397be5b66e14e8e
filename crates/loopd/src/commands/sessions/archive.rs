//! Sessions copied, carried away and back.

use crate::client::Client;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

pub async fn fork(client: &Client, id: &str, at: Option<&str>, title: Option<&str>, workspace: bool) -> Result<()> {
    let mut body = json!({"workspace": workspace});
    let given = [("event_id", at), ("title", title)];
    given
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .for_each(|(name, value)| body[name] = json!(value));
    let forked = client.post(&["v1", "sessions", id, "fork"], &body).await?;
    let facts = &forked["fork"];
    if let Some(later) = facts["later_events"].as_u64().filter(|later| *later > 0) {
        let files = if workspace { "; the files are copied as they are now" } else { "" };
        eprintln!("{later} later events of {id} are not part of it{files}");
    }
    say_id(&forked)
}

pub async fn export(client: &Client, id: &str, output: Option<&Path>) -> Result<()> {
    let is_gzip = output.and_then(Path::extension).is_some_and(|ending| ending == "gz" || ending == "tgz");
    let query = [("compression", if is_gzip { "gzip" } else { "none" }.to_owned())];
    if output.is_none() && std::io::stdout().is_terminal() {
        bail!("an archive is nothing for a terminal; name a file with --output, or redirect standard output");
    }
    let mut download = client.download(&["v1", "sessions", id, "export"], &query).await?;
    let Some(output) = output else {
        let mut out = std::io::stdout();
        while let Some(chunk) = download.next().await? {
            out.write_all(&chunk)?;
        }
        return Ok(out.flush()?);
    };
    // Under another name until it is whole.
    let partial = beside(output);
    let shown = partial.display();
    let mut file = File::create(&partial).await.with_context(|| format!("`{shown}` cannot be written"))?;
    let mut bytes = 0;
    while let Some(chunk) = download.next().await? {
        bytes += chunk.len();
        file.write_all(&chunk).await.with_context(|| format!("`{shown}` cannot be written"))?;
    }
    file.sync_all().await.with_context(|| format!("`{shown}` cannot be written"))?;
    std::fs::rename(&partial, output).with_context(|| format!("`{shown}` cannot be renamed"))?;
    eprintln!("{bytes} bytes in {}", output.display());
    Ok(())
}

fn beside(output: &Path) -> PathBuf {
    let mut name: OsString = output.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

pub async fn import(client: &Client, file: &Path) -> Result<()> {
    let opened = File::open(file).await.with_context(|| format!("`{}` cannot be read", file.display()))?;
    say_id(&client.upload(&["v1", "sessions", "import"], opened).await?)
}

fn say_id(session: &Value) -> Result<()> {
    writeln!(std::io::stdout(), "{}", session["id"].as_str().unwrap_or_default())?;
    Ok(())
}
