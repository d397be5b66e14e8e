//! A session's files as one stream of bytes, between a host and a virtual machine.
//!
//! ```text
//!  stream = entry* (Done | Failed)        numbers little-endian
//!  entry  = tag u8, mode u32, modified i64, path, then    Directory: nothing
//!                                                         Link: target
//!                                                         File: length u64, pieces that make up that length
//!  piece  = Data u8, length u32, bytes  |  Hole u8, length u64  |  Failed
//!  text   = length u32, bytes             (path, target, reason)
//!  Done   = tag u8, files u64, bytes u64, skipped u64
//!  Failed = tag u8, 1 when it will never work else 0, reason
//! ```
//!
//! A stream without its last word was cut off: what came is not all. The reader ([`receive`]) takes it for a stranger's: lengths, paths and
//! counts are checked before anything is made of them, and nothing is kept but one piece. Who receives files that it was sent answers
//! with a last word of the same kind ([`acknowledge`], [`acknowledged`]).

use crate::plant::names;
use crate::{Content, FileEntry, FileKind, FileSink, FilesRead, invalid};
use loopd_domain::limits::{FILE_PATH_BYTES_MAX, FILES_BYTES_MAX, FILES_MAX, REASON_CHARS_MAX};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const DIRECTORY: u8 = 1;
const FILE: u8 = 2;
const LINK: u8 = 3;
const DONE: u8 = 4;
const FAILED: u8 = 5;
const DATA: u8 = 6;
const HOLE: u8 = 7;

/// Most that one piece holds.
const PIECE_BYTES: usize = 64 << 10;
const REASON_BYTES_MAX: usize = 4 * REASON_CHARS_MAX;

/// Writes entries as they come. After an error of [`FileSink::put`] that came of what was to be sent, the other side can still be told
/// ([`WireSink::fail`]).
pub struct WireSink<W: Write> {
    to: BufWriter<W>,
    piece: Vec<u8>,
}

impl<W: Write> WireSink<W> {
    pub fn new(to: W) -> Self {
        WireSink { to: BufWriter::with_capacity(PIECE_BYTES, to), piece: vec![0; PIECE_BYTES] }
    }

    /// All is said. What was read is what the other side must have counted.
    pub fn finish(self, read: FilesRead) -> io::Result<W> {
        self.close(&Ok(read))
    }

    /// There will be no more.
    pub fn fail(self, fault: io::Error) -> io::Result<W> {
        self.close(&Err(fault))
    }

    fn close(mut self, last: &io::Result<FilesRead>) -> io::Result<W> {
        write_last(&mut self.to, last)?;
        self.to.into_inner().map_err(io::IntoInnerError::into_error)
    }

    fn data(&mut self, length: usize) -> io::Result<()> {
        self.to.write_all(&[DATA])?;
        self.to.write_all(&(length as u32).to_le_bytes())?;
        self.to.write_all(&self.piece[..length])
    }

    fn hole(&mut self, length: u64) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        self.to.write_all(&[HOLE])?;
        self.to.write_all(&length.to_le_bytes())
    }

    /// What the file has now, as long as it was said to be. Holes stay holes.
    fn file(&mut self, from: &File, bytes: u64) -> io::Result<()> {
        let mut at = 0;
        while at < bytes {
            let data = match rustix::fs::seek(from, SeekFrom::Data(at)) {
                Ok(data) => data.clamp(at, bytes),
                // Nothing but a hole follows, or nothing at all.
                Err(Errno::NXIO) => bytes,
                Err(fault) => return Err(fault.into()),
            };
            self.hole(data - at)?;
            let end = match rustix::fs::seek(from, SeekFrom::Hole(data)) {
                Ok(end) if end > data => end.min(bytes),
                _ => bytes,
            };
            at = self.range(from, data, end)?;
            if at < end {
                // It became shorter meanwhile.
                return self.hole(bytes - at);
            }
        }
        Ok(())
    }

    /// Answers how far there was something.
    fn range(&mut self, from: &File, mut at: u64, end: u64) -> io::Result<u64> {
        while at < end {
            let most = PIECE_BYTES.min(usize::try_from(end - at).unwrap_or(PIECE_BYTES));
            let read = from.read_at(&mut self.piece[..most], at)?;
            if read == 0 {
                break;
            }
            self.data(read)?;
            at += read as u64;
        }
        Ok(at)
    }

    fn stream(&mut self, from: &mut dyn Read, bytes: u64) -> io::Result<()> {
        let mut left = bytes;
        while left > 0 {
            let length = PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES));
            from.read_exact(&mut self.piece[..length])?;
            match self.piece[..length].iter().all(|byte| *byte == 0) {
                true => self.hole(length as u64)?,
                false => self.data(length)?,
            }
            left -= length as u64;
        }
        Ok(())
    }
}

impl<W: Write + Send> FileSink for WireSink<W> {
    fn put(&mut self, entry: &FileEntry, content: Content<'_>) -> io::Result<()> {
        let path = canonical(entry.path.as_os_str())?;
        let target = match &entry.kind {
            FileKind::Link { target } => Some(link_target(target)?),
            FileKind::Directory | FileKind::File { .. } => None,
        };
        let tag = match entry.kind {
            FileKind::Directory => DIRECTORY,
            FileKind::File { .. } => FILE,
            FileKind::Link { .. } => LINK,
        };
        self.to.write_all(&[tag])?;
        self.to.write_all(&(entry.mode & 0o777).to_le_bytes())?;
        self.to.write_all(&entry.modified_s.to_le_bytes())?;
        write_text(&mut self.to, path.as_bytes())?;
        if let Some(target) = target {
            write_text(&mut self.to, target.as_bytes())?;
        }
        let FileKind::File { bytes } = entry.kind else { return Ok(()) };
        self.to.write_all(&bytes.to_le_bytes())?;
        match content {
            Content::File(from) => self.file(from, bytes),
            Content::Stream(from) => self.stream(from, bytes),
            Content::None => self.hole(bytes),
        }
    }
}

/// Hands what comes to `sink`, until the other side has said its last word. [`ErrorKind::InvalidData`]: it does not say what it should;
/// [`ErrorKind::UnexpectedEof`]: it was cut off; what it could not do itself is told in its own words.
pub fn receive(from: impl Read, sink: &mut dyn FileSink) -> io::Result<FilesRead> {
    let mut from = BufReader::with_capacity(PIECE_BYTES, from);
    let mut read = FilesRead::default();
    loop {
        let tag = read_byte(&mut from)?;
        if let Some(last) = read_last(&mut from, tag)? {
            return match last.files == read.files && last.bytes == read.bytes {
                true => Ok(last),
                false => Err(malformed(format!("said to be {last:?}, but it was {read:?}"))),
            };
        }
        let (entry, bytes) = read_entry(&mut from, tag)?;
        read.files += 1;
        read.bytes = read.bytes.saturating_add(bytes);
        if read.files > FILES_MAX || read.bytes > FILES_BYTES_MAX {
            return Err(invalid(format!("too many files; accepted: up to {FILES_MAX} and {FILES_BYTES_MAX} bytes")));
        }
        let mut pieces = Pieces { from: &mut from, left: bytes, piece: 0, is_hole: false };
        match entry.kind {
            FileKind::File { .. } => sink.put(&entry, Content::Stream(&mut pieces))?,
            FileKind::Directory | FileKind::Link { .. } => sink.put(&entry, Content::None)?,
        }
        io::copy(&mut pieces, &mut io::sink())?;
    }
}

/// Says what became of files that were received.
pub fn acknowledge(mut to: impl Write, result: &io::Result<FilesRead>) -> io::Result<()> {
    write_last(&mut to, result)?;
    to.flush()
}

/// What became of files that were sent.
pub fn acknowledged(mut from: impl Read) -> io::Result<FilesRead> {
    let tag = read_byte(&mut from)?;
    read_last(&mut from, tag)?.ok_or_else(|| malformed(format!("an entry of kind {tag} for an answer")))
}

/// One file's content, piece by piece.
struct Pieces<'a, R> {
    from: &'a mut R,
    /// Of the file.
    left: u64,
    /// Of the piece, which is never more than that.
    piece: u64,
    is_hole: bool,
}

impl<R: Read> Pieces<'_, R> {
    fn next(&mut self) -> io::Result<()> {
        let tag = read_byte(self.from)?;
        let (length, most) = match tag {
            DATA => (u64::from(u32::from_le_bytes(read_array(self.from)?)), PIECE_BYTES as u64),
            HOLE => (u64::from_le_bytes(read_array(self.from)?), u64::MAX),
            FAILED => return Err(read_failure(self.from)?),
            _ => return Err(malformed(format!("a piece of kind {tag}"))),
        };
        if length == 0 || length > most.min(self.left) {
            let told = format!("a piece of {length} bytes; accepted: 1 to {}", most.min(self.left));
            return Err(malformed(told));
        }
        (self.piece, self.is_hole) = (length, tag == HOLE);
        Ok(())
    }
}

impl<R: Read> Read for Pieces<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || into.is_empty() {
            return Ok(0);
        }
        if self.piece == 0 {
            self.next()?;
        }
        let most = into.len().min(usize::try_from(self.piece).unwrap_or(usize::MAX));
        let read = match self.is_hole {
            true => {
                into[..most].fill(0);
                most
            }
            false => self.from.read(&mut into[..most])?,
        };
        if read == 0 {
            return Err(cut_off());
        }
        self.piece -= read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// An entry, and how many bytes of content follow.
fn read_entry(from: &mut impl Read, tag: u8) -> io::Result<(FileEntry, u64)> {
    if !matches!(tag, DIRECTORY | FILE | LINK) {
        return Err(malformed(format!("an entry of kind {tag}")));
    }
    let mode = u32::from_le_bytes(read_array(from)?);
    if mode & !0o777 != 0 {
        return Err(malformed(format!("mode {mode:o}; accepted: permission bits")));
    }
    let modified_s = i64::from_le_bytes(read_array(from)?);
    let path = OsString::from_vec(read_text(from, FILE_PATH_BYTES_MAX)?);
    canonical(&path).map_err(|fault| malformed(fault.to_string()))?;
    let (kind, bytes) = match tag {
        DIRECTORY => (FileKind::Directory, 0),
        LINK => {
            let target = OsString::from_vec(read_text(from, FILE_PATH_BYTES_MAX)?);
            link_target(&target).map_err(|fault| malformed(fault.to_string()))?;
            (FileKind::Link { target }, 0)
        }
        _ => {
            let bytes = u64::from_le_bytes(read_array(from)?);
            (FileKind::File { bytes }, bytes)
        }
    };
    Ok((FileEntry { path: PathBuf::from(path), kind, mode, modified_s }, bytes))
}

/// A path below a session's directory, written in the one way that there is.
fn canonical(path: &OsStr) -> io::Result<&OsStr> {
    let names = names(Path::new(path))?;
    let written = names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>().join(&b'/');
    match !names.is_empty() && written == path.as_bytes() && !written.contains(&0) {
        true => Ok(path),
        false => {
            let shown: String = path.to_string_lossy().chars().take(80).collect();
            Err(invalid(format!("`{shown}` is no path; accepted: names with one `/` between them")))
        }
    }
}

fn link_target(target: &OsStr) -> io::Result<&OsStr> {
    let bytes = target.as_bytes();
    match bytes.is_empty() || bytes.len() > FILE_PATH_BYTES_MAX || bytes.contains(&0) {
        true => Err(invalid(format!("a link to {} bytes; accepted: 1 to {FILE_PATH_BYTES_MAX}", bytes.len()))),
        false => Ok(target),
    }
}

fn write_last(to: &mut impl Write, last: &io::Result<FilesRead>) -> io::Result<()> {
    match last {
        Ok(read) => {
            to.write_all(&[DONE])?;
            [read.files, read.bytes, read.skipped].iter().try_for_each(|number| to.write_all(&number.to_le_bytes()))
        }
        Err(fault) => {
            let reason: String = fault.to_string().chars().take(REASON_CHARS_MAX).collect();
            to.write_all(&[FAILED, u8::from(fault.kind() == ErrorKind::InvalidInput)])?;
            write_text(to, reason.as_bytes())
        }
    }
}

/// What `tag` begins, if that is the last word. What the other side could not do is an error.
fn read_last(from: &mut impl Read, tag: u8) -> io::Result<Option<FilesRead>> {
    match tag {
        DONE => {
            let mut number = || read_array(from).map(u64::from_le_bytes);
            Ok(Some(FilesRead { files: number()?, bytes: number()?, skipped: number()? }))
        }
        FAILED => Err(read_failure(from)?),
        _ => Ok(None),
    }
}

fn read_failure(from: &mut impl Read) -> io::Result<io::Error> {
    let kind = match read_byte(from)? {
        0 => ErrorKind::Other,
        1 => ErrorKind::InvalidInput,
        other => return Err(malformed(format!("a failure of kind {other}"))),
    };
    let reason = read_text(from, REASON_BYTES_MAX)?;
    let reason = String::from_utf8_lossy(&reason).replace(char::is_control, " ");
    Ok(io::Error::new(kind, reason))
}

fn write_text(to: &mut impl Write, text: &[u8]) -> io::Result<()> {
    to.write_all(&(text.len() as u32).to_le_bytes())?;
    to.write_all(text)
}

fn read_text(from: &mut impl Read, most: usize) -> io::Result<Vec<u8>> {
    let length = u32::from_le_bytes(read_array(from)?) as usize;
    if length > most {
        return Err(malformed(format!("a text of {length} bytes; accepted: up to {most}")));
    }
    let mut text = vec![0; length];
    from.read_exact(&mut text).map_err(cut)?;
    Ok(text)
}

fn read_byte(from: &mut impl Read) -> io::Result<u8> {
    read_array(from).map(|[byte]| byte)
}

fn read_array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).map_err(cut)?;
    Ok(bytes)
}

fn cut(fault: io::Error) -> io::Error {
    if fault.kind() == ErrorKind::UnexpectedEof { cut_off() } else { fault }
}

fn cut_off() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "the files were cut off")
}

fn malformed(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the stream of files cannot be read: {what}"))
}

#[cfg(test)]
mod tests;
