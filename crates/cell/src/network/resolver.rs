//! The sockets on which DNS is spoken, over UDP and over TCP. What is answered is the caller's.

use super::dns::{self, Answer, Malformed, Query, Wanted};
use crate::limits::{DNS_CONNECTIONS_MAX, DNS_PATIENCE, ROUND_ACCEPTS_MAX, ROUND_QUERIES_MAX};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, recvfrom, send, sendto};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

/// Bytes of the largest query over TCP that anybody honest sends.
const QUERY_BYTES_MAX: usize = 2 << 10;

#[derive(Debug)]
pub struct Resolver {
    udp: OwnedFd,
    tcp: OwnedFd,
    clients: Vec<Client>,
}

/// Somebody who asks over TCP.
#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    received: Vec<u8>,
    until: Instant,
}

impl Resolver {
    /// Takes over sockets that do not block.
    pub fn new(udp: OwnedFd, tcp: OwnedFd) -> Self {
        Resolver { udp, tcp, clients: Vec::new() }
    }

    /// `accepts`: whether new connections are wanted.
    pub fn poll_fds<'a>(&'a self, accepts: bool, fds: &mut Vec<PollFd<'a>>) {
        fds.push(PollFd::new(&self.udp, PollFlags::IN));
        if accepts && self.clients.len() < DNS_CONNECTIONS_MAX {
            fds.push(PollFd::new(&self.tcp, PollFlags::IN));
        }
        fds.extend(self.clients.iter().map(|client| PollFd::new(&client.socket, PollFlags::IN)));
    }

    /// When to call [`Resolver::advance`] even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        self.clients.iter().map(|client| client.until).min()
    }

    /// Answers what is there.
    pub fn advance(&mut self, buffer: &mut [u8], now: Instant, mut answer: impl FnMut(&Wanted) -> Answer) {
        for _ in 0..ROUND_QUERIES_MAX {
            let Ok((read, _, Some(from))) = recvfrom(&self.udp, &mut *buffer, RecvFlags::DONTWAIT) else { break };
            if let Some(packet) = reply(dns::parse(&buffer[..read]), &mut answer) {
                // Whoever does not take its answer asks again.
                let _ = sendto(&self.udp, &packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &from);
            }
        }
        self.clients.retain_mut(|client| client.serve(buffer, now, &mut answer));
    }

    /// Takes new connections. `false`: descriptors or memory are used up.
    pub fn accept(&mut self, now: Instant) -> bool {
        for _ in 0..ROUND_ACCEPTS_MAX {
            if self.clients.len() >= DNS_CONNECTIONS_MAX {
                return true;
            }
            match accept_with(&self.tcp, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => {
                    self.clients.push(Client { socket, received: Vec::new(), until: now + DNS_PATIENCE });
                }
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}

impl Client {
    /// `false`: it is to be closed.
    fn serve(&mut self, buffer: &mut [u8], now: Instant, answer: &mut impl FnMut(&Wanted) -> Answer) -> bool {
        loop {
            let room = QUERY_BYTES_MAX + 2 - self.received.len();
            match recv(&self.socket, &mut buffer[..room], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return false,
                Ok((read, _)) => self.received.extend_from_slice(&buffer[..read]),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return now < self.until,
                Err(_) => return false,
            }
            while let Some((length, rest)) = self.received.split_first_chunk::<2>() {
                let length = usize::from(u16::from_be_bytes(*length));
                if length > QUERY_BYTES_MAX {
                    return false;
                }
                let Some(packet) = rest.get(..length) else { break };
                let Some(packet) = reply(dns::parse(packet), answer) else { return false };
                let framed = [&(packet.len() as u16).to_be_bytes()[..], &packet].concat();
                // Who asks on and on without reading answers is not waited for.
                if send(self.socket.as_fd(), &framed, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) != Ok(framed.len()) {
                    return false;
                }
                self.received.drain(..2 + length);
                self.until = now + DNS_PATIENCE;
            }
        }
    }
}

/// What is sent back, if anything.
fn reply(read: Result<Query, Malformed>, answer: &mut impl FnMut(&Wanted) -> Answer) -> Option<Vec<u8>> {
    match read {
        Ok(query) => Some(dns::encode(&query, &answer(&query.wanted))),
        Err(malformed) => dns::encode_malformed(malformed),
    }
}
