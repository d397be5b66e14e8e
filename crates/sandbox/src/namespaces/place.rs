//! What rooms of namespaces have in their place besides its record ([`crate::room::place`]):
//!
//! ```text
//!  rooms/<session>/cell      the socket on which the cell listens; hosts connect
//!                 /outlet/   the room's way out, see [`super::outlet`]; the only part that a room is given
//! ```

use super::outlet;
use super::spares::Spares;
use crate::Channel;
use crate::room::place;
use loopd_domain::limits::CELL_HOSTS_WAITING_MAX;
use rustix::io::Errno;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

const SOCKET: &str = "cell";

/// A place whose lock is held until this is dropped.
pub(super) struct Place {
    place: place::Place,
    /// Made in advance, for the first room.
    socket: Option<(OwnedFd, OwnedFd)>,
    outlet: Option<OwnedFd>,
}

impl From<place::Place> for Place {
    fn from(place: place::Place) -> Self {
        Place { place, socket: None, outlet: None }
    }
}

impl Deref for Place {
    type Target = place::Place;

    fn deref(&self) -> &place::Place {
        &self.place
    }
}

impl Place {
    /// Takes a place, made if it is not there; `spares` may have one.
    pub(super) async fn make(path: &Path, spares: &Spares) -> io::Result<Self> {
        if let Some(place) = Self::find(path).await? {
            return Ok(place);
        }
        match spares.claim_place(path)? {
            Some(place) => Ok(place),
            None => Ok(place::Place::make(path).await?.into()),
        }
    }

    /// Takes a place that is there.
    pub(super) async fn find(path: &Path) -> io::Result<Option<Self>> {
        Ok(place::Place::find(path).await?.map(Place::from))
    }

    /// Makes one for a session to come, with all that its first room needs.
    pub(super) fn spare(path: &Path) -> io::Result<Self> {
        let place = place::Place::spare(path)?;
        let listener = place.listen(SOCKET, CELL_HOSTS_WAITING_MAX)?;
        let socket = Some((listener, place.connect(SOCKET)?));
        let outlet = Some(outlet::listen(place.as_fd())?);
        Ok(Place { place, socket, outlet })
    }

    /// Moves a spare one to where a session's is, if nothing is there.
    pub(super) fn settle(self, path: &Path) -> Result<Self, (Self, Errno)> {
        let Place { place, socket, outlet } = self;
        match place.settle(path) {
            Ok(place) => Ok(Place { place, socket, outlet }),
            Err((place, errno)) => Err((Place { place, socket, outlet }, errno)),
        }
    }

    /// A new socket for a cell, and a host's connection to it, which need not wait for the cell to be there.
    pub(super) fn socket(&mut self) -> io::Result<(OwnedFd, Channel)> {
        let (listener, channel) = match self.socket.take() {
            Some(spare) => spare,
            None => (self.listen(SOCKET, CELL_HOSTS_WAITING_MAX)?, self.connect(SOCKET)?),
        };
        Ok((listener, Channel::from_std(channel.into())?))
    }

    /// A socket at which the room's wishes for connections arrive, and which only `owner` may connect to: the cell's user, where
    /// it has one of its own.
    pub(super) fn outlet(&mut self, owner: Option<u32>) -> io::Result<OwnedFd> {
        let listener = match self.outlet.take() {
            Some(spare) => spare,
            None => outlet::listen(self.as_fd())?,
        };
        outlet::give(self.as_fd(), owner)?;
        Ok(listener)
    }

    /// Where the socket for that is.
    pub(super) fn outlet_directory(&self) -> PathBuf {
        self.path().join(outlet::DIRECTORY)
    }

    /// A connection to the cell that listens here.
    pub(super) fn reach(&self) -> io::Result<Channel> {
        Channel::from_std(self.connect(SOCKET)?.into())
    }

    /// Removes the place with all that is in it. The room must be gone.
    pub(super) fn remove(self) -> io::Result<()> {
        self.place.remove()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::process;

    /// With so many places made in advance.
    fn spares(data: &Path, count: usize) -> Spares {
        let spares = Spares::open(data, &process::server_name().unwrap(), "b-1").unwrap();
        (0..count).for_each(|_| spares.add_place().unwrap());
        spares
    }

    #[tokio::test]
    async fn one_that_was_made_in_advance_is_taken() {
        let data = tempfile::tempdir().unwrap();
        let spares = spares(data.path(), 1);
        let path = data.path().join("sesn_1");
        let place = Place::make(&path, &spares).await.unwrap();
        assert_eq!(spares.places(), 0);
        place.remove().unwrap();
        assert!(Place::find(&path).await.unwrap().is_none());
        let _again = Place::make(&path, &spares).await.unwrap();
    }

    #[tokio::test]
    async fn a_host_can_connect_before_the_cell_is_there_and_not_after_it_is_gone() {
        for count in [0, 1] {
            let data = tempfile::tempdir().unwrap();
            let spares = spares(data.path(), count);
            // Longer than a socket's address.
            let parent = data.path().join("x".repeat(200));
            std::fs::create_dir(&parent).unwrap();
            let mut place = Place::make(&parent.join("sesn_1"), &spares).await.unwrap();
            for _ in 0..2 {
                let (listener, _channel) = place.socket().unwrap();
                let _another = place.reach().unwrap();
                drop(listener);
                assert_eq!(place.reach().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
            }
        }
    }
}
