//! The machine becomes one of a shape: layers are mounted, a launcher is started, and it parks a room.

use super::{Machine, State};
use crate::disk::Disk;
use crate::fault::{Fault, While};
use crate::ground::DATA;
use crate::launcher::{Launcher, ROOM};
use crate::session;
use loopd_domain::limits::IMAGE_LAYERS_MAX;
use loopd_jail::wire::{End, News, Root};
use loopd_protocol::guest::{FromGuest, GuestEnd, GuestRoot};
use std::path::Path;

/// What a launcher is still to be told.
pub(super) struct Preparing {
    root: Option<Root>,
}

impl Machine {
    pub(super) fn prepare(&mut self, authority: Option<String>, root: GuestRoot) -> Result<(), Fault> {
        match &self.state {
            State::Booted => {}
            // A host that comes after one that left: it is told when all is ready.
            State::Preparing(_) => return Ok(()),
            State::Prepared => {
                self.control.say(&FromGuest::Prepared);
                return Ok(());
            }
            State::Bound => return Err(Fault::new("preparing", "the machine is a session's already")),
            State::Broken(fault) => return Err(fault.clone()),
        }
        match self.begin(authority, root) {
            Ok(preparing) => self.state = State::Preparing(preparing),
            Err(fault) => self.break_down(fault),
        }
        Ok(())
    }

    fn begin(&mut self, authority: Option<String>, root: GuestRoot) -> Result<Preparing, Fault> {
        session::make_place()?;
        let root = match root {
            GuestRoot::Base => Root::Stage,
            GuestRoot::Layers { disks } => Root::Layers(mount_layers(disks)?),
            GuestRoot::BaseWith { disks } => Root::Over(mount_layers(disks)?),
        };
        self.launcher = Some(Launcher::start(&self.jail, &self.cell, authority)?);
        Ok(Preparing { root: Some(root) })
    }

    /// Takes what the launcher says.
    pub(super) fn hear_launcher(&mut self) -> Result<(), Fault> {
        while let Some(launcher) = &self.launcher {
            match launcher.hear() {
                Ok(None) => break,
                Ok(Some(news)) => self.on_news(news)?,
                Err(fault) => {
                    self.launcher = None;
                    self.on_room_end(GuestEnd::Failed { reason: fault.to_string() }, fault)?;
                }
            }
        }
        Ok(())
    }

    fn on_news(&mut self, news: News) -> Result<(), Fault> {
        match news {
            News::Ready => {
                if let (State::Preparing(preparing), Some(launcher)) = (&mut self.state, &mut self.launcher)
                    && let Some(root) = preparing.root.take()
                    && let Err(fault) = launcher.enter().and_then(|()| launcher.park(root))
                {
                    self.break_down(fault);
                }
            }
            // All that come of it inherit this: when memory runs out in the room, somebody in it is to go.
            News::Parked { pid, .. } => {
                let protected = std::fs::write(format!("/proc/{pid}/oom_score_adj"), "0");
                if let Err(fault) = protected.while_doing("exposing the room to the lack of memory") {
                    self.break_down(fault);
                }
            }
            News::Waits { .. } => {
                if matches!(self.state, State::Preparing(_)) {
                    self.state = State::Prepared;
                    self.control.say(&FromGuest::Prepared);
                }
            }
            News::Ended { room: ROOM, end } => {
                let (end, reason) = match end {
                    End::Code(code) => (GuestEnd::Code { code }, format!("it ended with code {code}")),
                    End::Signal(signal) => (GuestEnd::Signal { signal }, format!("it ended by signal {signal}")),
                    End::Failed(fault) => (GuestEnd::Failed { reason: fault.to_string() }, fault.to_string()),
                };
                self.on_room_end(end, Fault::new("preparing a room", reason))?;
            }
            News::Ended { .. } => {}
            News::Unable(fault) => {
                let reason = fault.to_string();
                let end = GuestEnd::Failed { reason: reason.clone() };
                self.on_room_end(end, Fault::new("preparing the launcher", reason))?;
            }
        }
        Ok(())
    }

    /// A session's room ends the machine; one that waited makes it useless.
    fn on_room_end(&mut self, end: GuestEnd, fault: Fault) -> Result<(), Fault> {
        match &self.state {
            State::Bound if self.room.is_some() => self.end(end),
            // It was not needed.
            State::Bound => Ok(()),
            State::Broken(_) => Ok(()),
            State::Booted | State::Preparing(_) | State::Prepared => {
                self.break_down(fault);
                Ok(())
            }
        }
    }

    fn break_down(&mut self, fault: Fault) {
        self.fail(fault.clone());
        self.state = State::Broken(fault);
    }
}

/// Mounts so many layers. Answers their paths as the launcher knows them.
fn mount_layers(disks: u32) -> Result<Vec<Vec<u8>>, Fault> {
    if disks as usize > IMAGE_LAYERS_MAX {
        let told = format!("{disks} layers; accepted: up to {IMAGE_LAYERS_MAX}");
        return Err(Fault::new("mounting the layers of the room's root", told));
    }
    let mount = |number| {
        let place = format!("layers/{number}");
        Disk::Layer(number).mount(&Path::new(DATA).join(&place))?;
        Ok(format!("data/{place}").into_bytes())
    };
    (0..disks).map(mount).collect()
}
