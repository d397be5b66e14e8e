//! Moves bytes between the link and the machine's socket.
//!
//! It reads whatever there is to send: else two ends that wait for each other would wait for ever.

use super::LinkDead;
use super::shared::Shared;
use loopd_protocol::link::{Event, Link};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::Instant;

const READ_BYTES: usize = 64 << 10;

/// Until the guest has answered the reset. What follows the answer is in the link.
pub(super) async fn greet(socket: &mut UnixStream, link: &mut Link) -> Result<(), LinkDead> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let ready = socket.ready(interest(link)).await.map_err(lost)?;
        if ready.is_writable() {
            send(socket, link)?;
        }
        if ready.is_readable() {
            link.push(receive(socket, &mut buffer)?);
            if let Some(Event::Reset { .. }) = link.next()? {
                return Ok(());
            }
        }
    }
}

/// Until the link is over, which it says to `shared`.
pub(super) async fn run(socket: UnixStream, shared: Arc<Shared>, silence: Duration) {
    if let Err(why) = pump(&socket, &shared, silence).await {
        shared.die(why);
    }
}

async fn pump(socket: &UnixStream, shared: &Shared, silence: Duration) -> Result<(), LinkDead> {
    let mut buffer = vec![0; READ_BYTES];
    // What came with the answer.
    shared.hear(&[])?;
    loop {
        let (interest, silent_at) = {
            let state = shared.state();
            if state.dead.is_some() {
                return Ok(());
            }
            (interest(&state.link), state.silent_since() + silence)
        };
        let ready = tokio::select! {
            // What has come is heard first: that this process was kept from running is not the guest's silence.
            biased;
            ready = socket.ready(interest) => ready.map_err(lost)?,
            () = shared.pump.notified() => continue,
            () = tokio::time::sleep_until(silent_at) => {
                match shared.state().silent_since() + silence <= Instant::now() {
                    true => return Err(LinkDead::Silent { ms: silence.as_millis() }),
                    false => continue,
                }
            }
        };
        if ready.is_writable() {
            send(socket, &mut shared.state().link)?;
            // Whoever waited for space has it now, and no word of the guest's may come to say so.
            shared.notice()?;
        }
        if ready.is_readable() {
            let bytes = receive(socket, &mut buffer)?;
            if !bytes.is_empty() {
                shared.hear(bytes)?;
            }
        }
    }
}

fn interest(link: &Link) -> Interest {
    match link.output().is_empty() {
        true => Interest::READABLE,
        false => Interest::READABLE | Interest::WRITABLE,
    }
}

/// As much as goes.
fn send(socket: &UnixStream, link: &mut Link) -> Result<(), LinkDead> {
    while !link.output().is_empty() {
        match socket.try_write(link.output()) {
            Ok(sent) => link.sent(sent),
            Err(fault) if fault.kind() == ErrorKind::WouldBlock => break,
            Err(fault) => return Err(lost(fault)),
        }
    }
    Ok(())
}

/// Nothing, where nothing was there after all.
fn receive<'a>(socket: &UnixStream, buffer: &'a mut [u8]) -> Result<&'a [u8], LinkDead> {
    match socket.try_read(buffer) {
        Ok(0) => Err(LinkDead::Closed),
        Ok(read) => Ok(&buffer[..read]),
        Err(fault) if fault.kind() == ErrorKind::WouldBlock => Ok(&[]),
        Err(fault) => Err(lost(fault)),
    }
}

fn lost(fault: io::Error) -> LinkDead {
    match fault.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => LinkDead::Closed,
        _ => LinkDead::Socket(fault.to_string()),
    }
}
