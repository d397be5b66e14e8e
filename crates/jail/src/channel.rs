//! Packets with descriptors over a `SOCK_SEQPACKET` socket.

use crate::wire::{DESCRIPTORS_MAX, PACKET_BYTES_MAX};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Two connected ends; neither survives an exec unless it is handed on.
pub fn pair() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Sends one packet. `wait: false` answers [`Errno::AGAIN`] instead of waiting for room in the socket.
pub fn send(socket: impl AsFd, packet: &[u8], descriptors: &[BorrowedFd<'_>], wait: bool) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOBIG);
    }
    let flags = if wait { SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL | SendFlags::DONTWAIT };
    rustix::io::retry_on_intr(|| rustix::net::sendmsg(&socket, &[IoSlice::new(packet)], &mut ancillary, flags))?;
    Ok(())
}

/// Takes one packet; `None` when the other end is closed. An empty or cut packet is an error.
pub fn receive(socket: impl AsFd, wait: bool) -> rustix::io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut packet = vec![0; PACKET_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let wait = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
    let flags = RecvFlags::CMSG_CLOEXEC | wait;
    let got = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(&mut packet)], &mut ancillary, flags)
    })?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Errno::MSGSIZE);
    }
    if got.bytes == 0 {
        return Ok(None);
    }
    packet.truncate(got.bytes);
    Ok(Some((packet, descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_bytes_and_descriptors_then_the_end() {
        let (here, there) = pair().unwrap();
        let (one, two) = rustix::pipe::pipe().unwrap();
        send(&here, b"two", &[one.as_fd(), two.as_fd()], true).unwrap();
        let (packet, descriptors) = receive(&there, true).unwrap().unwrap();
        assert_eq!(packet, b"two");
        rustix::io::write(&descriptors[1], b"!").unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(&descriptors[0], &mut byte), Ok(1));
        assert_eq!(receive(&there, false).unwrap_err(), Errno::AGAIN);
        drop(here);
        assert!(receive(&there, true).unwrap().is_none());
    }
}
