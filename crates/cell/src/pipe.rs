//! Reading and writing nonblocking pipes.

use rustix::io::Errno;
use std::os::fd::OwnedFd;

/// Bytes of one read; on the stack, so that an idle cell holds no buffer.
const PIECE_BYTES: usize = 16 << 10;

/// Hands what waits in `pipe`, up to `max` bytes, to `take`. False when the other side has closed it: nothing will come.
pub fn read_some(pipe: &OwnedFd, mut max: usize, mut take: impl FnMut(&[u8])) -> bool {
    let mut piece = [0; PIECE_BYTES];
    while max > 0 {
        let want = max.min(PIECE_BYTES);
        match rustix::io::read(pipe, &mut piece[..want]) {
            Ok(0) => return false,
            Ok(read) => {
                take(&piece[..read]);
                max -= read;
                if read < want {
                    return true; // empty for now; asking again would only cost a system call
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return true,
            // A pipe of ours has no other way to fail; if one does, nothing more comes out of it.
            Err(_) => return false,
        }
    }
    true
}

/// Writes what `pipe` has room for and says how much that was. A closed pipe takes everything: whoever held its other end
/// is gone, and its end is reported where processes are reaped.
pub fn write_some(pipe: &OwnedFd, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::write(pipe, &bytes[written..]) {
            Ok(more) => written += more,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return written,
            Err(_) => return bytes.len(),
        }
    }
    written
}
