//! The file that takes the whole of an output that is too long for a tool result.
//!
//! It is created with the file permissions of the tools, at a fresh name: the cell never opens a path of theirs with its own.

use crate::limits::SPILL_BYTES_MAX;
use crate::tool_user::ToolUser;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

#[derive(Debug, Default)]
pub enum Spill {
    /// Nobody said where to.
    #[default]
    Nowhere,
    Planned {
        path: PathBuf,
        user: ToolUser,
    },
    Open {
        path: PathBuf,
        file: File,
        bytes: u64,
        /// Why no more is written.
        stopped: Option<String>,
    },
    Failed(String),
}

impl Spill {
    pub fn planned(call: &str, user: &ToolUser) -> Self {
        Spill::Planned { path: user.spill_directory().join(format!("{call}.out")), user: user.clone() }
    }

    /// Creates the file with `parts` in it, if that was planned and has not been done.
    pub fn open(&mut self, parts: &[&str]) {
        let Spill::Planned { path, user } = self else { return };
        *self = match user.with_files(|| create(path)) {
            Ok(file) => Spill::Open { path: std::mem::take(path), file, bytes: 0, stopped: None },
            Err(fault) => Spill::Failed(format!("the rest could not be saved to `{}`: {fault}", path.display())),
        };
        parts.iter().for_each(|part| self.append(part));
    }

    /// Writes on, if the file is open.
    pub fn append(&mut self, text: &str) {
        let Spill::Open { file, bytes, stopped, .. } = self else { return };
        if stopped.is_some() || text.is_empty() {
            return;
        }
        let room = usize::try_from(SPILL_BYTES_MAX - *bytes).unwrap_or(usize::MAX);
        let part = &text[..text.floor_char_boundary(room)];
        match file.write_all(part.as_bytes()) {
            Ok(()) => *bytes += part.len() as u64,
            Err(fault) => *stopped = Some(fault.to_string()),
        }
        if part.len() < text.len() {
            *stopped = Some(format!("a spill file has at most {SPILL_BYTES_MAX} bytes"));
        }
    }

    /// Where the whole is, as the middle of a sentence.
    pub fn describe(&self) -> String {
        match self {
            Spill::Nowhere | Spill::Planned { .. } => "they were not saved".to_owned(),
            Spill::Open { path, stopped: None, .. } => format!("the whole output is in `{}`", path.display()),
            Spill::Open { path, bytes, stopped: Some(why), .. } => {
                format!("the first {bytes} bytes of the output are in `{}` ({why})", path.display())
            }
            Spill::Failed(why) => why.clone(),
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)
}
