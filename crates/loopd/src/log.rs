//! Where the program's own log goes: standard error, one line per event, at the level of `LOOPD_LOG`.

use anyhow::{Context, Result};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// `LOOPD_LOG` is a level (`error`, `warn`, `info`, `debug`, `trace`) or a list of `room=level`, as in
/// `info,loopd_session=debug`. `LOOPD_LOG_FORMAT=json` writes one object per line.
pub fn start(default: &str, level: Option<&str>, format: Option<&str>) -> Result<()> {
    let level = level.unwrap_or(default);
    // The MCP client library calls a server that is away a fatal error of its own; the session says it in our words.
    let quiet = if level.contains("rmcp") { level.to_owned() } else { format!("{level},rmcp=off") };
    let filter = EnvFilter::try_new(quiet).with_context(|| {
        format!("LOOPD_LOG is `{level}`; accepted: a level, or a list like `info,loopd_session=debug`")
    })?;
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    match format {
        None | Some("text") => log.init(),
        Some("json") => log.json().init(),
        Some(other) => anyhow::bail!("LOOPD_LOG_FORMAT is `{other}`; accepted: `text` or `json`"),
    }
    Ok(())
}
