//! The stream on which host and guest speak of the machine.

use loopd_domain::limits::GUEST_WORDS_BYTES_MAX;
use loopd_protocol::codec::{Decoder, FrameError, encode};
use loopd_protocol::guest::{FromGuest, ToGuest};
use loopd_protocol::link::{Link, StreamId};

/// One host's, from its reset to the next.
#[derive(Default)]
pub struct Control {
    id: Option<StreamId>,
    decoder: Decoder,
    outbox: Vec<u8>,
    written: usize,
}

impl Control {
    pub fn opened(&mut self, id: StreamId) {
        self.id = Some(id);
    }

    pub fn is(&self, id: StreamId) -> bool {
        self.id == Some(id)
    }

    /// Whether a host listens.
    pub fn is_open(&self) -> bool {
        self.id.is_some()
    }

    pub fn closed(&mut self) {
        *self = Control::default();
    }

    /// Nothing waits to be said.
    pub fn is_quiet(&self) -> bool {
        self.written == self.outbox.len()
    }

    pub fn on_data(&mut self, bytes: &[u8]) {
        self.decoder.push(bytes);
    }

    pub fn next(&mut self) -> Result<Option<ToGuest>, FrameError> {
        self.decoder.next()
    }

    /// Says something, if a host listens. One that has not read for long misses what comes then.
    pub fn say(&mut self, word: &FromGuest) {
        if self.is_open() && self.outbox.len() - self.written < GUEST_WORDS_BYTES_MAX {
            // Only what is longer than a frame may be cannot be said, and no word is.
            let _ = encode(word, &mut self.outbox);
        }
    }

    /// Whether something was moved.
    pub fn pump(&mut self, link: &mut Link) -> bool {
        let Some(id) = self.id else { return false };
        if self.is_quiet() {
            return false;
        }
        let taken = link.write(id, &self.outbox[self.written..]);
        self.written += taken;
        if self.is_quiet() {
            (self.outbox, self.written) = (Vec::new(), 0);
        }
        taken > 0
    }
}
