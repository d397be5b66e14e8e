//! One direction of a connection: bytes go over as fast as the slower side takes them, and the end goes over as an end.
//!
//! What was read and could not be written at once is kept, and until it is gone nothing more is read: one buffer is the most
//! that a direction holds, and one that is not held up holds none.

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use std::os::fd::BorrowedFd;

/// Bytes of one read; the buffer is shared by all connections.
pub const BUFFER_BYTES: usize = 64 << 10;
/// Reads in one round, so that a fast connection does not keep the others waiting.
const ROUND_READS_MAX: usize = 4;

#[derive(Debug, Default)]
pub struct Flow {
    kept: Vec<u8>,
    written: usize,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// Nobody takes it any more; what comes is thrown away, so that who sends it is not held up.
    Discarding,
    Done,
}

impl Flow {
    /// With bytes that go first.
    pub fn beginning_with(bytes: Vec<u8>) -> Self {
        Flow { kept: bytes, ..Flow::default() }
    }

    /// Of which nothing goes over.
    pub fn discarding() -> Self {
        Flow { state: State::Discarding, ..Flow::default() }
    }

    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    pub fn is_discarding(&self) -> bool {
        self.state == State::Discarding
    }

    pub fn wants_to_read(&self) -> bool {
        self.state != State::Done && !self.wants_to_write()
    }

    pub fn wants_to_write(&self) -> bool {
        self.written < self.kept.len()
    }

    /// From now on there is nobody to write to.
    pub fn discard(&mut self) {
        if self.state != State::Done {
            *self = Self::discarding();
        }
    }

    /// Moves what can be moved now. An error is one of reading: the connection has been broken off.
    pub fn advance(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<(), Errno> {
        for _ in 0..ROUND_READS_MAX {
            if self.wants_to_write() && !self.write_kept(to) {
                return Ok(());
            }
            if self.state == State::Done {
                return Ok(());
            }
            // Whatever was read before has been written, so an end that is met here can go over at once.
            match rustix::net::recv(from, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => {
                    // Whoever is gone need not be told.
                    let _ = rustix::net::shutdown(to, Shutdown::Write);
                    self.state = State::Done;
                }
                Ok(_) if self.state == State::Discarding => {}
                Ok((_, read)) => self.write(to, &buffer[..read]),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    /// Writes, and keeps what is not taken.
    fn write(&mut self, to: BorrowedFd<'_>, bytes: &[u8]) {
        match send_some(to, bytes) {
            Some(written) => self.kept.extend_from_slice(&bytes[written..]),
            None => self.discard(),
        }
    }

    /// Whether all of it is gone.
    fn write_kept(&mut self, to: BorrowedFd<'_>) -> bool {
        match send_some(to, &self.kept[self.written..]) {
            Some(written) => self.written += written,
            None => self.discard(),
        }
        let all = !self.wants_to_write();
        if all {
            self.kept = Vec::new();
            self.written = 0;
        }
        all
    }
}

/// How much was taken; `None`: nothing ever will be.
fn send_some(to: BorrowedFd<'_>, bytes: &[u8]) -> Option<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match rustix::net::send(to, &bytes[written..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(more) => written += more,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => break,
            Err(_) => return None,
        }
    }
    Some(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    struct Ends {
        source: Option<UnixStream>,
        from: UnixStream,
        to: UnixStream,
        sink: Option<UnixStream>,
        flow: Flow,
    }

    fn ends(flow: Flow) -> Ends {
        let ((source, from), (to, sink)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        Ends { source: Some(source), from, to, sink: Some(sink), flow }
    }

    impl Ends {
        fn advance(&mut self) -> Result<(), Errno> {
            self.flow.advance(self.from.as_fd(), self.to.as_fd(), &mut vec![0; BUFFER_BYTES])
        }
    }

    #[test]
    fn what_goes_first_goes_first_and_the_end_goes_over() {
        let mut ends = ends(Flow::beginning_with(b"head ".to_vec()));
        ends.source.as_mut().unwrap().write_all(b"body").unwrap();
        ends.source = None;
        while !ends.flow.is_done() {
            ends.advance().unwrap();
        }
        let mut text = String::new();
        ends.sink.as_mut().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "head body");
    }

    #[test]
    fn an_end_is_never_left_lying() {
        // Whatever the number of reads in a round, the end comes after it, or with it.
        for length in (0..3 * ROUND_READS_MAX).map(|reads| reads * 100) {
            let mut ends = ends(Flow::default());
            ends.source.as_mut().unwrap().write_all(&vec![1; length]).unwrap();
            ends.source = None;
            let mut rounds = 0;
            while !ends.flow.is_done() {
                assert!(ends.flow.wants_to_read() || ends.flow.wants_to_write(), "nobody would wake it");
                ends.flow.advance(ends.from.as_fd(), ends.to.as_fd(), &mut [0; 100]).unwrap();
                rounds += 1;
            }
            assert!(rounds <= 1 + length / 100);
        }
    }

    #[test]
    fn a_slow_reader_holds_up_the_writer_and_not_the_memory() {
        let mut ends = ends(Flow::default());
        let source = ends.source.as_mut().unwrap();
        source.set_nonblocking(true).unwrap();
        let mut sent = 0u64;
        loop {
            let mut progress = false;
            while let Ok(more) = ends.source.as_mut().unwrap().write(&[7; 10_000]) {
                sent += more as u64;
                progress = true;
            }
            ends.advance().unwrap();
            if !progress {
                break;
            }
        }
        assert!(ends.flow.wants_to_write() && !ends.flow.wants_to_read());
        assert!(ends.flow.kept.len() <= BUFFER_BYTES);
        // It reads on, and everything arrives.
        ends.source = None;
        let mut sink = ends.sink.take().unwrap();
        let reader = std::thread::spawn(move || std::io::copy(&mut sink, &mut std::io::sink()).unwrap());
        while !ends.flow.is_done() {
            ends.advance().unwrap();
        }
        assert_eq!(reader.join().unwrap(), sent);
        assert!(ends.flow.kept.capacity() == 0);
    }

    #[test]
    fn where_nobody_reads_any_more_the_rest_is_thrown_away() {
        let mut ends = ends(Flow::default());
        ends.sink = None;
        for _ in 0..10 {
            ends.source.as_mut().unwrap().write_all(&[7; 10_000]).unwrap();
            ends.advance().unwrap();
        }
        assert!(ends.flow.is_discarding());
        ends.source = None;
        ends.advance().unwrap();
        assert!(ends.flow.is_done());
    }
}
