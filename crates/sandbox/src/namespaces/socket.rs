//! The control socket, waited on without blocking a thread.

#![allow(unsafe_code)]

use loopd_jail::channel;
use loopd_jail::wire::{News, Order};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use tokio::io::unix::AsyncFd;

pub(super) struct Socket(AsyncFd<OwnedFd>);

impl Socket {
    /// In a tokio runtime.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` is open and one and the same descriptor for as long as it lives; nobody takes it out of there.
        Ok(Socket(unsafe { AsyncFd::register(socket) }?))
    }

    /// Nothing can be said any more, in either direction: the launcher sees that nobody is there.
    pub(super) fn close(&self) {
        // Fails when the launcher is gone already.
        let _ = rustix::net::shutdown(self.0.get_ref(), rustix::net::Shutdown::Both);
    }

    pub(super) async fn send(&self, order: &Order, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let packet = order.encode();
        loop {
            let mut ready = self.0.writable().await?;
            if let Ok(sent) = ready.try_io(|socket| Ok(channel::send(socket, &packet, descriptors, false)?)) {
                return sent;
            }
        }
    }

    /// The next piece of news; `None` when the launcher is gone. Loses nothing when it is cancelled.
    pub(super) async fn receive(&self) -> io::Result<Option<(News, Vec<OwnedFd>)>> {
        loop {
            let mut ready = self.0.readable().await?;
            let Ok(received) = ready.try_io(|socket| Ok(channel::receive(socket, false)?)) else { continue };
            let Some((packet, descriptors)) = received? else { return Ok(None) };
            let news = News::decode(&packet).map_err(|_| io::Error::other("a packet that is not news"))?;
            return Ok(Some((news, descriptors)));
        }
    }
}
