//! A session's files through the link, for callers that may block.

use crate::files::wire::{WireSink, acknowledged, receive};
use crate::files::{Content, FileEntry, FileKind, FileSink, FileWriter, FilesRead};
use loopd_domain::limits::LINK_FILES_SILENCE_MS;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

const SILENCE: Duration = Duration::from_millis(LINK_FILES_SILENCE_MS);

pub(super) fn read(stream: UnixStream, sink: &mut dyn FileSink) -> io::Result<FilesRead> {
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(SILENCE))?;
    receive(&stream, sink).map_err(silent)
}

/// Files on their way to the guest.
pub(super) struct ToGuest {
    sink: WireSink<UnixStream>,
    answer: UnixStream,
    sent: FilesRead,
}

impl ToGuest {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let answer = stream.try_clone()?;
        Ok(ToGuest { sink: WireSink::new(stream), answer, sent: FilesRead::default() })
    }
}

/// What the guest said, if it has refused what it was sent; else what went wrong here.
fn refusal(answer: &UnixStream, fault: io::Error) -> io::Error {
    if !matches!(fault.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) {
        return silent(fault);
    }
    match acknowledged(answer) {
        Err(said) if !matches!(said.kind(), ErrorKind::UnexpectedEof | ErrorKind::WouldBlock) => said,
        Ok(_) | Err(_) => fault,
    }
}

/// A timeout of a socket says that it would block.
fn silent(fault: io::Error) -> io::Error {
    match fault.kind() {
        ErrorKind::WouldBlock => io::Error::new(ErrorKind::TimedOut, "the guest does not go on with the files"),
        _ => fault,
    }
}

impl FileSink for ToGuest {
    fn put(&mut self, entry: &FileEntry, content: Content<'_>) -> io::Result<()> {
        if let Err(fault) = self.sink.put(entry, content) {
            let refused = refusal(&self.answer, fault);
            // What is still held back goes nowhere, and nobody waits for it to go.
            drop(self.answer.shutdown(Shutdown::Both));
            return Err(refused);
        }
        self.sent.files += 1;
        if let FileKind::File { bytes } = entry.kind {
            self.sent.bytes = self.sent.bytes.saturating_add(bytes);
        }
        Ok(())
    }
}

impl FileWriter for ToGuest {
    fn finish(self: Box<Self>) -> io::Result<()> {
        let ToGuest { sink, answer, sent } = *self;
        let done = sink.finish(sent).and_then(|stream| stream.shutdown(Shutdown::Write));
        done.map_err(|fault| refusal(&answer, fault))?;
        let written = acknowledged(&answer).map_err(silent)?;
        match (written.files, written.bytes) == (sent.files, sent.bytes) {
            true => Ok(()),
            false => Err(io::Error::new(ErrorKind::InvalidData, format!("sent {sent:?}; the guest has {written:?}"))),
        }
    }
}
