//! A session gets a room: a new one, or the one that an earlier server left.
//!
//! INVARIANT: a room's first process stands in the session's record before it is given the session, so that there is no
//! living room that no record names.

use super::meter::{Disk, Meter};
use super::outlet::RoomConnections;
use super::place::Place;
use super::running::{Running, Seat};
use super::waiting::Shape;
use super::{KIND, Rooms, directory, pool, root};
use crate::room::cgroup::{Counters, RoomCgroup};
use crate::room::ending;
use crate::room::guard::Guard;
use crate::room::place::own;
use crate::room::record::Record;
use crate::{Outlet, Room, RoomOutlet, RoomSpec, SandboxError, Walls};
use loopd_domain::environment::RoomLimits;
use loopd_jail::ids::CELL_OFFSET;
use loopd_jail::wire::{self, Root, Start};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::watch;

impl Rooms {
    pub(super) async fn start(self: &Arc<Self>, spec: &RoomSpec) -> Result<Room, SandboxError> {
        match self.try_start(spec).await {
            // It had died, and that was not known yet: once more, with a new one.
            Err(SandboxError::Launcher(_)) if self.launcher.is_over().await => self.try_start(spec).await,
            other => other,
        }
    }

    async fn try_start(self: &Arc<Self>, spec: &RoomSpec) -> Result<Room, SandboxError> {
        let _counted = self.starting.count();
        let files = self.data.locate(spec)?;
        let path = self.data.place(&spec.session);
        let unusable = |source| SandboxError::Directory { path: path.clone(), source };
        let found = Place::find(&path).await.map_err(unusable)?;
        if found.is_none()
            && let Some(room) = self.claim_waiting(spec, &files, &path)?
        {
            return Ok(room);
        }
        let mut place = match found {
            Some(place) => place,
            None => Place::make(&path, &self.spares).await.map_err(unusable)?,
        };
        if let Some(record) = own(&place, spec.epoch, &path)? {
            ending::end(&record, &self.boot).await?;
        }
        let ids = self.directory(&files).await?;
        let root = root::on_stage(&self.data.path, &self.roots, &spec.root)?;
        let (running, mut seat) = self.seat(&spec.limits, root).await?;
        let (listener, channel) = place.socket().map_err(unusable)?;
        let outlet = self.open_outlet(&mut place, &spec.outlet, ids).map_err(unusable)?;
        let start = self.order(&Shape::of(spec), &seat, &files, &place, ids)?;
        place.write(&self.record(spec.epoch, &seat)).map_err(unusable)?;
        place.write_layers(&spec.root).map_err(unusable)?;
        seat.take();
        let guard = Guard::new(path, spec.epoch, seat.process, Arc::clone(&seat.pidfd));
        drop(place);
        running.start(start, listener).await?;
        let meter = Box::new(Meter::new(Counters::new(&seat.cgroups), Disk { files, limit: spec.limits.disk_bytes }));
        Ok(Room { walls: Walls::NAMESPACES, channel, outlet, exit: seat.exit.clone(), meter, guard: Box::new(guard) })
    }

    /// What a parked room is told, to come to life on these files and in this place.
    pub(super) fn order(
        &self,
        shape: &Shape,
        seat: &Seat,
        files: &Path,
        place: &Place,
        ids: Option<u32>,
    ) -> Result<Start, SandboxError> {
        let outlet = match &shape.outlet {
            RoomOutlet::Closed => None,
            RoomOutlet::Open { ports } => {
                let directory = self.data.relative(&place.outlet_directory())?;
                Some(wire::Outlet { directory, ports: ports.clone() })
            }
        };
        Ok(Start {
            room: seat.room,
            directory: self.data.relative(files)?,
            ids,
            open_files: shape.limits.open_files,
            file_bytes: shape.limits.file_bytes,
            // A file in memory counts as memory: full before the room is killed for it.
            tmp_bytes: shape.limits.memory_bytes / 2,
            processes: (!self.cgroups.limits("pids")).then_some(shape.limits.pids),
            memory_bytes: (!self.cgroups.limits("memory")).then_some(shape.limits.memory_bytes),
            orphan_seconds: self.orphan_seconds.load(Ordering::Relaxed),
            outlet,
        })
    }

    pub(super) async fn adopt(self: &Arc<Self>, spec: &RoomSpec) -> Result<Option<Room>, SandboxError> {
        let files = self.data.locate(spec)?;
        let path = self.data.place(&spec.session);
        let unusable = |source| SandboxError::Directory { path: path.clone(), source };
        let Some(mut place) = Place::find(&path).await.map_err(unusable)? else { return Ok(None) };
        let Some(record) = own(&place, spec.epoch, &path)?.filter(|record| record.kind == KIND) else {
            return Ok(None);
        };
        let Some(pidfd) = ending::living(&record, &self.boot).map_err(unusable)?.map(Arc::new) else { return Ok(None) };
        let channel = match place.reach() {
            Ok(channel) => channel,
            Err(fault) => {
                // Its launcher died before the walls were complete, or the cell is stuck with hosts waiting.
                tracing::warn!(session = %spec.session, %fault, "a room that cannot be reached is ended");
                ending::end(&record, &self.boot).await?;
                return Ok(None);
            }
        };
        let ids = directory::known(&files, self.ids.is_some()).map_err(unusable)?.flatten();
        let outlet = self.open_outlet(&mut place, &spec.outlet, ids).map_err(unusable)?;
        let process = record.process;
        let cgroup = RoomCgroup::recorded(record.cgroups.clone());
        let meter =
            Box::new(Meter::new(Counters::adopted(&record.cgroups), Disk { files, limit: spec.limits.disk_bytes }));
        place.write(&Record { epoch: spec.epoch, ..record }).map_err(unusable)?;
        let (sender, exit) = watch::channel(None);
        tokio::spawn(ending::watch(Arc::clone(&pidfd), sender, cgroup));
        let guard = Box::new(Guard::new(path, spec.epoch, process, pidfd));
        Ok(Some(Room { walls: Walls::NAMESPACES, channel, outlet, exit, meter, guard }))
    }

    /// Listens for the room's wishes for connections, if it may have some. `ids`: the first of the session's.
    pub(super) fn open_outlet(
        &self,
        place: &mut Place,
        wanted: &RoomOutlet,
        ids: Option<u32>,
    ) -> io::Result<Option<Box<dyn Outlet>>> {
        match wanted {
            RoomOutlet::Closed => Ok(None),
            RoomOutlet::Open { .. } => {
                let listener = place.outlet(ids.map(|first| first + CELL_OFFSET))?;
                Ok(Some(Box::new(RoomConnections::new(listener)?)))
            }
        }
    }

    /// A room that waits for its session, with these limits: one that was kept ready, or a new one.
    async fn seat(self: &Arc<Self>, limits: &RoomLimits, root: Root) -> Result<(Arc<Running>, Seat), SandboxError> {
        let running = self.running().await?;
        // Those that wait have the stage's root.
        let waiting = if root == Root::Stage { running.claim() } else { None };
        let Some(seat) = waiting else {
            let seat = pool::make(self, &running, *limits, root).await?;
            return Ok((running, seat));
        };
        if *limits != RoomLimits::default() {
            let (rooms, room, limits) = (Arc::clone(self), seat.room, *limits);
            let set = tokio::task::spawn_blocking(move || rooms.cgroups.limit(room, &limits)).await;
            let failed = |fault| SandboxError::Launcher(format!("limiting a room: {fault}"));
            set.map_err(io::Error::other).flatten().map_err(failed)?;
        }
        Ok((running, seat))
    }

    /// Sees to it that the session has its directory. Answers the first of its ids.
    async fn directory(self: &Arc<Self>, files: &Path) -> Result<Option<u32>, SandboxError> {
        let fault = |source: io::Error| SandboxError::Directory { path: files.to_owned(), source };
        if let Some(known) = directory::known(files, self.ids.is_some()).map_err(fault)? {
            return Ok(known);
        }
        if let Some(first) = self.spares.claim_directory(files).map_err(fault)? {
            return Ok(first);
        }
        let (rooms, wanted) = (Arc::clone(self), files.to_owned());
        let made = tokio::task::spawn_blocking(move || directory::prepare(&wanted, rooms.ids.as_ref())).await;
        made.map_err(io::Error::other).flatten().map_err(fault)
    }
}
