//! Hears what a machine's guest says for as long as this process holds the machine, and tells how it ended.
//!
//! A guest that breaks the link's rules, or gives no sign of life, costs its own machine. One whose link was taken over by a later owner
//! is left alone, as every kill asks the record first.

use super::hold::{Hold, Holds};
use super::link::LinkDead;
use super::raising::last;
use crate::room::cgroup::RoomCgroup;
use crate::{RoomExit, RoomGuard};
use loopd_domain::limits::{MACHINE_END_MS, MACHINE_LOGS_MAX};
use loopd_protocol::guest::{FromGuest, GuestEnd};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// How long a machine may take to go when its cell has ended.
const END_WAIT: Duration = Duration::from_millis(MACHINE_END_MS);

pub(super) struct Attendance {
    pub hold: Arc<Hold>,
    pub holds: Holds,
    pub from: mpsc::Receiver<FromGuest>,
    pub dead: watch::Receiver<Option<LinkDead>>,
    pub exit: watch::Sender<Option<RoomExit>>,
    pub cgroup: RoomCgroup,
}

/// What is known of the end before it is there.
#[derive(Default)]
struct Signs {
    /// What the guest said of its cell's end, and until when the machine may go by itself.
    end: Option<(GuestEnd, Instant)>,
    dead: Option<LinkDead>,
    is_quiet: bool,
    logs: u32,
}

pub(super) async fn attend(attendance: Attendance) {
    let Attendance { hold, holds, mut from, mut dead, exit, cgroup } = attendance;
    let mut signs = Signs::default();
    let mut ended = hold.machine.ended.clone();
    let mut left = hold.left();
    let words = loop {
        let deadline = signs.end.as_ref().map(|(_, deadline)| *deadline);
        tokio::select! {
            biased;
            _ = left.wait_for(|left| *left) => return holds.remove(&hold),
            words = ended.wait_for(Option::is_some) => break words.ok().and_then(|words| words.clone()),
            said = from.recv(), if !signs.is_quiet => match said {
                Some(said) => hear(&hold, said, &mut signs),
                None => signs.is_quiet = true,
            },
            why = dead.wait_for(Option::is_some), if signs.dead.is_none() => {
                let why = why.ok().and_then(|why| why.clone()).unwrap_or(LinkDead::GivenUp);
                // What it said before is heard first; of its own end it had no time to say more.
                while let Ok(said) = from.try_recv() {
                    hear(&hold, said, &mut signs);
                }
                if signs.end.is_none() {
                    tracing::warn!(session = %hold.session, %why, "a machine is ended");
                    hold.reaper.kill();
                }
                signs.dead = Some(why);
            },
            () = until(deadline), if deadline.is_some() => {
                hold.reaper.kill();
                signs.end = signs.end.map(|(end, _)| (end, Instant::now() + END_WAIT));
            }
        }
    };
    holds.remove(&hold);
    hold.let_go();
    exit.send_replace(Some(how(signs, hold.was_killed(), words.as_deref().unwrap_or_default())));
    tokio::task::spawn_blocking(move || cgroup.remove());
}

fn hear(hold: &Hold, said: FromGuest, signs: &mut Signs) {
    match said {
        FromGuest::Reached { memory, processes } => hold.signals.reached(memory, processes),
        FromGuest::DiskFull { used_bytes } => hold.signals.disk_full(used_bytes),
        FromGuest::Ended { end } => {
            signs.end.get_or_insert((end, Instant::now() + END_WAIT));
        }
        FromGuest::Synced => hold.synced.notify_one(),
        FromGuest::Log { .. } | FromGuest::Failed { .. } if signs.logs >= MACHINE_LOGS_MAX => {}
        FromGuest::Failed { doing, reason } => {
            signs.logs += 1;
            tracing::warn!(session = %hold.session, %doing, %reason, "a guest cannot do something");
        }
        FromGuest::Log { text } => {
            signs.logs += 1;
            tracing::info!(session = %hold.session, %text, "a guest says");
        }
        FromGuest::Ready { .. }
        | FromGuest::Prepared
        | FromGuest::Bound
        | FromGuest::Awake
        | FromGuest::Pong { .. } => {}
    }
}

fn how(signs: Signs, was_killed: bool, words: &str) -> RoomExit {
    match (signs.end, signs.dead) {
        (Some((GuestEnd::Code { code }, _)), _) => RoomExit::Code(code),
        (Some((GuestEnd::Signal { signal }, _)), _) => RoomExit::Signal(signal),
        (Some((GuestEnd::Failed { reason }, _)), _) => RoomExit::Failed(reason),
        (None, _) if was_killed => RoomExit::Signal(rustix::process::Signal::KILL.as_raw()),
        (None, Some(why)) if !matches!(why, LinkDead::Closed | LinkDead::Socket(_) | LinkDead::GivenUp) => {
            RoomExit::Lost(why.to_string())
        }
        (None, _) => match last(words).as_str() {
            "" => RoomExit::Lost("the machine ended, and why is not known".to_owned()),
            words => RoomExit::Lost(format!("the machine ended: {words}")),
        },
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
