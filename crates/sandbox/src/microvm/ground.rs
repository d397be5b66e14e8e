//! What machines stand on that no session has yet, below `<data>/machines/<server>`: a place for its sockets and its record, and a
//! disk.

use super::Machines;
use super::clearing::list;
use super::form::Form;
use crate::room::ground::ServerGround;
use crate::room::place::Place;
use crate::room::removal;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const PLACE: &str = "place";

pub(super) struct Grounds(ServerGround);

pub(super) struct Ground {
    directory: PathBuf,
    pub place: Place,
    pub disk: PathBuf,
    /// The host id that the disk belongs to.
    pub user: Option<u32>,
}

impl Ground {
    /// Leaves what became a session's, and removes the rest. Blocks.
    pub(super) fn take(self) -> (Place, PathBuf) {
        (self.place, self.directory)
    }

    /// Removes it all. The machine must be gone. Blocks.
    pub(super) fn remove(self) -> io::Result<()> {
        Ok(removal::remove(&self.directory)?)
    }
}

impl Grounds {
    /// This server's, of which those of dead servers are cleared. `boot`: of the host, now.
    pub(super) fn open(data: &Path, server: &str, boot: &str) -> io::Result<Self> {
        ServerGround::open(data.join("machines"), server, boot, PLACE).map(Grounds)
    }

    /// Where machines of all servers stand that are no session's.
    pub(super) fn places(&self) -> io::Result<Vec<PathBuf>> {
        let mut places = Vec::new();
        for server in list(self.0.all())? {
            places.extend(list(&server)?.into_iter().map(|ground| ground.join(PLACE)));
        }
        Ok(places)
    }
}

impl Machines {
    /// Ground for a machine of this form. Blocks.
    pub(super) fn ground(&self, form: &Form) -> io::Result<Ground> {
        let directory = self.grounds.0.path();
        fs::create_dir(&directory)?;
        let made = self.furnish(&directory, form);
        made.inspect_err(|_| {
            if let Err(fault) = removal::remove(&directory) {
                tracing::warn!(directory = %directory.display(), %fault, "a ground that was not finished stays behind");
            }
        })
    }

    fn furnish(&self, directory: &Path, form: &Form) -> io::Result<Ground> {
        let disk = super::disk::of(directory);
        let user = self.blank(&disk, form.shape.disk_bytes)?;
        let place = Place::spare(&directory.join(PLACE))?;
        Ok(Ground { directory: directory.to_owned(), place, disk, user })
    }
}
