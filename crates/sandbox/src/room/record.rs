//! What is written down of a room, so that another process can find it: whose it is, its first process, its cgroups.
//!
//! One page, always whole: written by one call, read by one, both under the lock of [`super::place`]. A process that is killed
//! cannot leave half of it. An empty one is what a power cut leaves, which no room outlives; any other text is an error.

use super::process::Process;
use loopd_domain::Epoch;
use loopd_domain::environment::Isolation;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

/// Bytes of a record, the same for each, so that a newer one covers an older one.
pub(crate) const BYTES: usize = 4096;
const TITLE: &str = "loopd room 1";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// Of its walls: only the backend of this kind can give the room to somebody; any can end it.
    pub kind: Isolation,
    /// Of the owner who had the room last. It stays when the room is gone.
    pub epoch: Epoch,
    /// Of the machine when the room was started.
    pub boot: String,
    pub process: Process,
    pub cgroups: Vec<PathBuf>,
}

impl Record {
    pub(crate) fn encode(&self) -> io::Result<Vec<u8>> {
        let mut text = String::new();
        let Process { pid, started } = self.process;
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{TITLE}\nkind {}\nepoch {}\nboot {}\nprocess {pid} {started}\n",
            self.kind.as_str(),
            self.epoch.0,
            self.boot
        );
        for path in &self.cgroups {
            let path = path.to_str().filter(|path| !path.contains('\n'));
            let path = path.ok_or_else(|| io::Error::other("a cgroup whose path is not one line of text"))?;
            let _ = writeln!(text, "cgroup {path}");
        }
        let mut bytes = text.into_bytes();
        if bytes.len() > BYTES {
            return Err(io::Error::other(format!("a record of {} bytes; accepted: {BYTES}", bytes.len())));
        }
        bytes.resize(BYTES, b'\n');
        Ok(bytes)
    }

    /// `None`: nothing was ever written.
    pub(crate) fn parse(bytes: &[u8]) -> io::Result<Option<Self>> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let record = std::str::from_utf8(bytes).ok().filter(|_| bytes.len() == BYTES).and_then(read);
        let malformed = || io::Error::other("it is not a record of a room; if no room of the session lives, remove it");
        record.ok_or_else(malformed).map(Some)
    }
}

fn read(text: &str) -> Option<Record> {
    let mut lines = text.trim_end_matches('\n').lines();
    if lines.next()? != TITLE {
        return None;
    }
    let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
    let kind = field("kind")?;
    let kind = [Isolation::Namespaces, Isolation::Microvm].into_iter().find(|known| known.as_str() == kind)?;
    let epoch = Epoch(field("epoch")?.parse().ok()?);
    let boot = field("boot")?.to_owned();
    let (pid, started) = field("process")?.split_once(' ')?;
    let process = Process { pid: pid.parse().ok()?, started: started.parse().ok()? };
    let cgroups = lines.map(|line| line.strip_prefix("cgroup ").map(PathBuf::from)).collect::<Option<_>>()?;
    Some(Record { kind, epoch, boot, process, cgroups })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            kind: Isolation::Namespaces,
            epoch: Epoch(7),
            boot: "b-1".to_owned(),
            process: Process { pid: 42, started: 99 },
            cgroups: vec!["/sys/fs/cgroup/memory/a b/1".into(), "/sys/fs/cgroup/pids/1".into()],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for record in
            [record(), Record { cgroups: Vec::new(), ..record() }, Record { kind: Isolation::Microvm, ..record() }]
        {
            let bytes = record.encode().unwrap();
            assert_eq!(bytes.len(), BYTES);
            assert_eq!(Record::parse(&bytes).unwrap(), Some(record));
        }
    }

    #[test]
    fn nothing_is_nothing_and_anything_else_is_an_error() {
        assert_eq!(Record::parse(b"").unwrap(), None);
        assert_eq!(Record::parse(&[0; BYTES]).unwrap(), None);
        let whole = record().encode().unwrap();
        for damaged in [&whole[..BYTES - 1], b"loopd room 1\n", &[b'x'; BYTES]] {
            assert!(Record::parse(damaged).unwrap_err().to_string().contains("remove it"));
        }
        let other = String::from_utf8(whole).unwrap().replace("process 42", "process many");
        assert!(Record::parse(other.as_bytes()).is_err());
    }

    #[test]
    fn what_cannot_be_read_back_is_not_written() {
        assert!(Record { cgroups: vec!["a\nb".into()], ..record() }.encode().is_err());
        assert!(Record { cgroups: vec!["x".repeat(BYTES).into()], ..record() }.encode().is_err());
    }
}
