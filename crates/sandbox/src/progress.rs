//! Where whoever makes a room, or what it is made of, says how far that is.

use loopd_domain::progress::Progress;
use std::sync::Arc;
use tokio::sync::watch;

/// The saying end. Cheap to clone; the last word wins, and nobody waits for whoever listens.
#[derive(Debug, Clone, Default)]
pub struct Teller(Option<Arc<watch::Sender<Option<Progress>>>>);

/// The listening end.
pub type Heard = watch::Receiver<Option<Progress>>;

impl Teller {
    pub fn new() -> (Self, Heard) {
        let (words, heard) = watch::channel(None);
        (Teller(Some(Arc::new(words))), heard)
    }

    /// To nobody.
    pub fn silent() -> Self {
        Teller(None)
    }

    pub fn say(&self, progress: Progress) {
        if let Some(words) = &self.0 {
            words.send_replace(Some(progress));
        }
    }
}
