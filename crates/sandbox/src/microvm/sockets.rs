//! What a machine's place holds besides its record:
//!
//! ```text
//!  rooms/<session>/link         the VMM's socket: whoever connects has the machine's link
//!                 /control      the VMM's socket: whoever connects can suspend the machine, or take its link over
//!                 /token        what a host says at a reset, in hexadecimal; there once the machine is the session's
//!                 /made         see [`super::made`]
//!                 /suspension   see [`super::suspending`]
//! ```

use crate::room::place::Place;
use loopd_protocol::link::{TOKEN_BYTES, Token};
use std::io;
use std::os::fd::OwnedFd;
use tokio::net::UnixStream;

const LINK: &str = "link";
const CONTROL: &str = "control";
const TOKEN: &str = "token";
/// Hosts whose connections wait for the VMM.
const WAITING: i32 = 8;

/// Listening sockets, for a VMM.
pub(super) struct Sockets {
    pub link: OwnedFd,
    pub control: OwnedFd,
}

pub(super) fn listen(place: &Place) -> io::Result<Sockets> {
    Ok(Sockets { link: listen_link(place)?, control: place.listen(CONTROL, WAITING)? })
}

pub(super) fn listen_link(place: &Place) -> io::Result<OwnedFd> {
    place.listen(LINK, WAITING)
}

/// In a tokio runtime.
pub(super) fn link(place: &Place) -> io::Result<UnixStream> {
    UnixStream::from_std(place.connect(LINK)?.into())
}

/// In a tokio runtime.
pub(super) fn control(place: &Place) -> io::Result<UnixStream> {
    UnixStream::from_std(place.connect(CONTROL)?.into())
}

pub(super) fn write_token(place: &Place, token: &Token) -> io::Result<()> {
    place.write_file(TOKEN, token.to_hex().as_bytes())
}

pub(super) fn token(place: &Place) -> io::Result<Token> {
    let text = place.read_file(TOKEN, 2 * TOKEN_BYTES as u64 + 1)?.unwrap_or_default();
    let token = std::str::from_utf8(&text).ok().and_then(Token::from_hex);
    token.ok_or_else(|| io::Error::other("the machine's token is not there"))
}
