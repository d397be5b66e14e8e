//! A whole session as one archive: a tar stream that any tool can open.
//!
//! ```text
//!  manifest.json    format, the session as a resource, how far its journal goes and its hash there
//!  journal.jsonl    one sealed entry per line, verbatim
//!  workspace/… home/… outputs/… uploads/… memory/…
//!  end.json         how many files there are: an archive without it was cut off
//! ```
//!
//! [`export`] writes one, [`import`] makes a session of one; neither holds the files in memory. An archive that comes in is a
//! stranger's: its journal is proved and folded, its paths lead nowhere else, and everything is bounded.

mod export;
#[doc(hidden)]
pub mod fuzzing;
mod import;
mod line;
mod pipe;
mod unpack;

pub use import::Check;
pub(crate) use import::{no_files, refused};

use loopd_domain::SessionId;
use loopd_domain::agent::Metadata;
use loopd_domain::environment::EnvironmentConfig;
use loopd_domain::session::{Session, SessionAgent};
use loopd_domain::{EnvironmentId, Seq, Timestamp};
use serde::{Deserialize, Serialize};

/// Of the archive, not of what is in it: raised when an older loopd could misread it.
const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
const JOURNAL: &str = "journal.jsonl";
const END: &str = "end.json";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    session: ArchivedSession,
    journal: JournalEnd,
}

/// A session without what follows from its journal, and without what only one server means by it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchivedSession {
    pub id: SessionId,
    pub agent: SessionAgent,
    pub environment: Option<EnvironmentId>,
    pub room: EnvironmentConfig,
    pub title: Option<String>,
    pub metadata: Metadata,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub archived_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JournalEnd {
    entries: Seq,
    /// Hash of the last entry, hex.
    head: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    files: u64,
    bytes: u64,
    /// Pipes, sockets, and what could not be read.
    skipped: u64,
}

impl From<&Session> for ArchivedSession {
    fn from(session: &Session) -> Self {
        ArchivedSession {
            id: session.id.clone(),
            agent: session.agent.clone(),
            environment: session.environment.clone(),
            room: session.room.clone(),
            title: session.title.clone(),
            metadata: session.metadata.clone(),
            created_at: session.created_at,
            updated_at: session.updated_at,
            archived_at: session.archived_at,
        }
    }
}
