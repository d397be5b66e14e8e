//! Reading and writing a session's files: long work on a stranger's files, done by a process of this program for each stream, whose
//! standard input is the stream in both directions.

use crate::fault::{Fault, While};
use crate::session;
use loopd_files::wire::{self, WireSink};
use loopd_files::{FileWriter, FilesRead, TreeWriter, read_tree};
use loopd_jail::ids::PARTS;
use loopd_protocol::link::StreamKind;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

const READ: &str = "read-files";
const WRITE: &str = "write-files";

/// Starts one. Answers this side's end of its stream, which does not block.
pub fn start(kind: StreamKind) -> Result<OwnedFd, Fault> {
    const DOING: &str = "starting a worker";
    let job = if kind == StreamKind::WriteFiles { WRITE } else { READ };
    let (here, there) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .while_doing(DOING)?;
    rustix::io::ioctl_fionbio(&here, true).while_doing(DOING)?;
    // Its end is seen at the stream; the machine's loop takes leave of it as of every process that has nobody else.
    let _child = Command::new("/proc/self/exe")
        .arg(job)
        .env_clear()
        .stdin(Stdio::from(there))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .while_doing(DOING)?;
    Ok(here)
}

/// What such a process does. Whoever is at the other end is told what went wrong, by the stream's last word or by its lack.
pub fn main(job: &str) -> ExitCode {
    let stream = match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(stream) => File::from(stream),
        Err(_) => return ExitCode::FAILURE,
    };
    let done = match job {
        READ => read(&session::path(), stream),
        WRITE => write(&session::path(), stream),
        _ => {
            eprintln!("loopd-guest: unknown job `{job}`; accepted: `{READ}`, `{WRITE}`");
            return ExitCode::from(2);
        }
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read(directory: &Path, stream: File) -> io::Result<()> {
    let mut sink = WireSink::new(stream);
    match read_tree(directory, &PARTS.map(|(name, _)| name), &mut sink) {
        Ok(read) => drop(sink.finish(read)?),
        Err(fault) => drop(sink.fail(fault)?),
    }
    Ok(())
}

fn write(directory: &Path, stream: File) -> io::Result<()> {
    let written = fill(directory, &stream);
    wire::acknowledge(&stream, &written)
}

/// What was said to be written is on the disk.
fn fill(directory: &Path, stream: &File) -> io::Result<FilesRead> {
    let owned = PARTS.map(|(name, whose)| (name, Some(session::FIRST_ID + whose)));
    let mut tree = TreeWriter::new(directory, &owned)?;
    let read = wire::receive(stream, &mut tree)?;
    Box::new(tree).finish()?;
    rustix::fs::syncfs(File::open(directory)?)?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::FIRST_ID;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_one_worker_reads_another_writes() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root gives files away");
            return;
        }
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (name, _) in PARTS {
            std::fs::create_dir(from.path().join(name)).unwrap();
            std::fs::create_dir(to.path().join(name)).unwrap();
        }
        std::fs::write(from.path().join("workspace/a"), vec![7; 300_000]).unwrap();
        std::fs::write(from.path().join("uploads/b"), "b").unwrap();
        let whole = from.path().join("stream");
        read(from.path(), File::create(&whole).unwrap()).unwrap();
        let (here, there) = UnixStream::pair().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| write(to.path(), File::from(OwnedFd::from(there))).unwrap());
            let mut here = here;
            io::copy(&mut File::open(&whole).unwrap(), &mut here).unwrap();
            here.shutdown(std::net::Shutdown::Write).unwrap();
            let read = wire::acknowledged(&here).unwrap();
            assert_eq!((read.files, read.bytes), (2, 300_001));
        });
        assert_eq!(std::fs::read(to.path().join("workspace/a")).unwrap(), vec![7; 300_000]);
        let owner = |path: &str| std::fs::metadata(to.path().join(path)).unwrap().uid() - FIRST_ID;
        assert_eq!((owner("workspace/a"), owner("uploads/b")), (1, 0));
    }

    #[test]
    fn a_stream_that_is_cut_off_is_told_as_such() {
        let to = tempfile::tempdir().unwrap();
        PARTS.iter().for_each(|(name, _)| std::fs::create_dir(to.path().join(name)).unwrap());
        let (here, there) = UnixStream::pair().unwrap();
        here.shutdown(std::net::Shutdown::Write).unwrap();
        write(to.path(), File::from(OwnedFd::from(there))).unwrap();
        assert!(wire::acknowledged(&here).is_err());
    }
}
