//! Rooms as the harness knows them: their kind, how slow they are, what virtual machines are made of, and the file that a session's
//! calls leave their nonces in.

use crate::plan::EFFECTS_FILE;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// How long a session keeps its machine while it rests: short, so that a round can outlast it.
const IDLE_SECONDS: u64 = 2;
pub const IDLE: Duration = Duration::from_secs(IDLE_SECONDS);
/// A tar's unit of length.
const BLOCK: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Isolation {
    Namespaces,
    Microvm,
}

impl Isolation {
    /// As an environment of `/v1/invoke`; no word of it where the server's default is meant. `sleeps`: what runs in the room stays
    /// while the session rests, where rooms can do that.
    pub fn environment(self, sleeps: bool) -> Value {
        let limits = json!({"memory_bytes": 128u64 << 20, "disk_bytes": 128u64 << 20, "cpu_millis": 1_000});
        let hibernation = if sleeps { "memory" } else { "workspace" };
        match self {
            Isolation::Namespaces => Value::Null,
            Isolation::Microvm => json!({"isolation": "microvm", "hibernation": hibernation, "limits": limits}),
        }
    }

    /// The server's configuration file, where it is to have one.
    pub fn configuration(self) -> Option<String> {
        match self {
            Isolation::Namespaces => None,
            Isolation::Microvm => Some(format!("room_idle_seconds = {IDLE_SECONDS}\n")),
        }
    }

    /// How much longer everything may take. A processor made in software, and several of them on one machine, are that slow.
    pub fn patience(self, usual: Duration) -> Duration {
        match self {
            Isolation::Namespaces => usual,
            Isolation::Microvm => usual * 6,
        }
    }

    /// What a room's first process on the host is called.
    pub fn is_room(self, name: &str) -> bool {
        match self {
            Isolation::Namespaces => name == "loopd-cell",
            Isolation::Microvm => name.starts_with("qemu-system"),
        }
    }
}

/// Puts the image that is in the data directory `from` into a fresh one.
pub fn lend_guest(from: &Path, data: &Path) -> Result<()> {
    let (from, guest) = (from.join("guest"), data.join("guest"));
    std::fs::create_dir_all(&guest).with_context(|| format!("`{}`", guest.display()))?;
    // Named by their content, and never changed.
    for shelf in ["bases", "initramfs", "kernels"] {
        let at = guest.join(shelf);
        std::os::unix::fs::symlink(from.join(shelf), &at).with_context(|| format!("`{}`", at.display()))?;
    }
    let current = from.join("current.json");
    std::fs::copy(&current, guest.join("current.json")).with_context(|| format!("`{}`", current.display()))?;
    Ok(())
}

/// The effects file of a session's room in an archive of the session.
pub fn effects_of(archive: &[u8]) -> Result<String> {
    let wanted = format!("workspace/{EFFECTS_FILE}");
    let mut rest = archive;
    while let Some((head, body)) = rest.split_at_checked(BLOCK) {
        if head.iter().all(|byte| *byte == 0) {
            return Ok(String::new());
        }
        let text = |field: std::ops::Range<usize>| {
            let field = &head[field];
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            String::from_utf8_lossy(&field[..end]).trim().to_owned()
        };
        let (name, size) = (text(0..100), text(124..136));
        let bytes = usize::from_str_radix(&size, 8).with_context(|| format!("`{name}` has `{size}` bytes"))?;
        let content = body.get(..bytes).context("the archive is cut off")?;
        if name == wanted {
            return Ok(String::from_utf8_lossy(content).into_owned());
        }
        rest = body.get(bytes.next_multiple_of(BLOCK)..).context("the archive is cut off")?;
    }
    bail!("the archive has no end")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, content: &[u8]) -> Vec<u8> {
        let mut head = vec![0; BLOCK];
        head[..name.len()].copy_from_slice(name.as_bytes());
        let size = format!("{:011o}", content.len());
        head[124..124 + size.len()].copy_from_slice(size.as_bytes());
        head.extend(content);
        head.resize(head.len().next_multiple_of(BLOCK), 0);
        head
    }

    #[test]
    fn effects_are_found_in_an_archive() {
        let other = entry("journal.jsonl", &[b'x'; 700]);
        let end = vec![0; 2 * BLOCK];
        let whole = [other.clone(), entry("workspace/effects", b"a\nb\n"), end.clone()].concat();
        assert_eq!(effects_of(&whole).expect("read"), "a\nb\n");
        assert_eq!(effects_of(&[other.clone(), end].concat()).expect("read"), "");
        assert!(effects_of(&other).is_err(), "one that was cut off proves nothing");
        assert!(effects_of(&whole[..BLOCK + 600]).is_err());
    }
}
