//! What a failing point shows, and how everything that it left is ended.

use crate::{journal, processes};
use anyhow::Result;
use rustix::process::Signal;
use std::path::Path;

/// Entries of each journal that are shown: the end of it, where the fault is.
const ENTRIES: usize = 70;

pub fn journals(data: &Path, sessions: &[String]) -> String {
    let mut text = String::new();
    for session in sessions {
        text.push_str(&format!("journal of {session}:\n"));
        match journal::read(data, session) {
            Ok(Some((_, entries))) => {
                let from = entries.len().saturating_sub(ENTRIES);
                entries[from..].iter().for_each(|entry| text.push_str(&format!("{}\n", entry.line())));
            }
            Ok(None) => text.push_str("  there is none\n"),
            Err(fault) => text.push_str(&format!("  cannot be read: {fault:#}\n")),
        }
    }
    text
}

/// SIGKILL to everything below this process, until there is nothing.
pub fn end_all() -> Result<()> {
    for _ in 0..100 {
        let living = processes::living(&[])?;
        if living.is_empty() {
            break;
        }
        for process in living {
            processes::signal(process.pid, Signal::KILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(())
}
