//! What servers that are no more left in a tree: rooms can outlive their server.

use super::super::process;
use std::fs;
use std::path::Path;

/// Removes the directories of servers that are no more, as far as they are empty.
pub(super) fn remove_all(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(server) = name.to_str().and_then(process::server_of) else { continue };
        if server.exists() {
            continue;
        }
        remove_server(&entry.path());
    }
}

/// Removes the directory of a server that is no more, as far as it is empty.
pub(super) fn remove_server(directory: &Path) {
    for room in fs::read_dir(directory).into_iter().flatten().flatten() {
        if room.path().is_dir() {
            // One with a living room in it cannot be removed.
            let _ = fs::remove_dir(room.path());
        }
    }
    let _ = fs::remove_dir(directory);
}
