//! The faults, how often each is drawn, and how it is done.

use crate::processes::{self, Process};
use crate::rng::Rng;
use crate::server::Server;
use anyhow::Result;
use rustix::process::Signal;
use std::time::Duration;
use tokio::time::sleep;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    ServerKilled,
    CellKilled,
    LauncherKilled,
    RoomKilled,
    ToolsKilled,
    AllKilled,
    Frozen,
    Replaced,
    FailPoint(&'static FailPoint),
}

/// A place in the server at which it can be told to abort at the n-th hit.
#[derive(Debug, PartialEq, Eq)]
pub struct FailPoint {
    pub name: &'static str,
    pub during: During,
    /// Hits that a round can be counted on to bring; the n-th is drawn up to this.
    pub hits: u64,
}

/// What makes the server pass it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum During {
    /// Turns.
    Work,
    /// The start after a kill in mid-turn.
    Recovery,
    /// The end after SIGTERM in mid-turn.
    Farewell,
    /// The deletion of a session.
    Deletion,
}

const fn point(name: &'static str, during: During, hits: u64) -> FailPoint {
    FailPoint { name, during, hits }
}

/// Every fail point of the server. One that is missing here is never struck; one that no server has is never hit, and the
/// report says so.
pub static FAIL_POINTS: [FailPoint; 25] = [
    point("store::before_commit", During::Work, 24),
    point("store::after_commit", During::Work, 24),
    point("session::before_create", During::Work, 1),
    point("session::after_create", During::Work, 1),
    point("sandbox::waiting_recorded", During::Work, 2),
    point("sandbox::directory_moved", During::Work, 1),
    point("sandbox::place_moved", During::Work, 1),
    point("session::before_admit", During::Work, 2),
    point("session::after_admit", During::Work, 2),
    point("session::before_intents", During::Work, 8),
    point("session::after_intents", During::Work, 8),
    point("session::before_results", During::Work, 8),
    point("session::after_results", During::Work, 8),
    point("session::landed", During::Work, 8),
    point("session::after_dispatch", During::Work, 8),
    point("session::before_host_call", During::Work, 4),
    point("session::after_host_call", During::Work, 4),
    point("session::after_host_result", During::Work, 4),
    point("session::before_claim", During::Recovery, 3),
    point("session::after_claim", During::Recovery, 3),
    point("session::after_adopt", During::Recovery, 2),
    point("session::after_takeover", During::Recovery, 2),
    point("session::before_release", During::Farewell, 2),
    point("session::before_delete", During::Deletion, 1),
    point("session::after_delete", During::Deletion, 1),
];

impl Kind {
    pub fn name(self) -> String {
        match self {
            Kind::ServerKilled => "server killed".to_owned(),
            Kind::CellKilled => "cell killed".to_owned(),
            Kind::LauncherKilled => "launcher killed".to_owned(),
            Kind::RoomKilled => "room killed".to_owned(),
            Kind::ToolsKilled => "tools killed".to_owned(),
            Kind::AllKilled => "everything killed".to_owned(),
            Kind::Frozen => "server stopped past its lease".to_owned(),
            Kind::Replaced => "server replaced".to_owned(),
            Kind::FailPoint(point) => format!("fail point {}", point.name),
        }
    }

    /// It strikes nobody but a session that is being made.
    pub fn needs_new_session(self) -> bool {
        matches!(self, Kind::FailPoint(point) if point.name.ends_with("_create"))
    }

    /// The kinds whose name begins with one of `only`; all when that is empty. With their weights.
    pub fn drawn_from(only: &[String]) -> Vec<(Kind, u64)> {
        let plain = [
            (Kind::ServerKilled, 22),
            (Kind::CellKilled, 10),
            (Kind::LauncherKilled, 6),
            (Kind::RoomKilled, 6),
            (Kind::ToolsKilled, 4),
            (Kind::AllKilled, 10),
            (Kind::Frozen, 3),
            (Kind::Replaced, 12),
        ];
        let points = FAIL_POINTS.iter().map(|point| (Kind::FailPoint(point), 2));
        let all = plain.into_iter().chain(points);
        all.filter(|(kind, _)| only.is_empty() || only.iter().any(|name| kind.name().starts_with(name.as_str())))
            .collect()
    }

    pub fn draw(rng: &mut Rng, from: &[(Kind, u64)]) -> Option<Kind> {
        let mut left = rng.below(from.iter().map(|(_, weight)| weight).sum());
        from.iter().find_map(|(kind, weight)| match left < *weight {
            true => Some(*kind),
            false => {
                left -= weight;
                None
            }
        })
    }
}

/// How a server is told to abort at the `nth` hit.
pub fn actions(point: &FailPoint, nth: u64) -> String {
    match nth {
        0 | 1 => format!("{}=panic", point.name),
        nth => format!("{}={}*off->panic", point.name, nth - 1),
    }
}

/// Strikes, and leaves a server that serves. False: there was nothing to strike.
pub async fn strike(kind: Kind, server: &mut Server, rng: &mut Rng) -> Result<bool> {
    match kind {
        Kind::ServerKilled => {
            server.kill().await?;
            pause(rng).await;
            server.start_plain().await?;
        }
        Kind::Replaced => server.replace(rng.percent(50)).await?,
        Kind::Frozen => server.freeze_and_replace().await?,
        Kind::AllKilled => {
            let mut victims = processes::living(&pids(server))?;
            // The server last: it must not see the rest go.
            victims.sort_by_key(|p| Some(p.pid as u32) != server.pid());
            for victim in victims {
                processes::signal(victim.pid, Signal::KILL);
            }
            server.kill().await?;
            server.start_plain().await?;
        }
        Kind::CellKilled => {
            let cells = processes::cells(&processes::living(&pids(server))?, &server.data(), server.isolation);
            return Ok(rng.pick(&cells).is_some_and(|cell| processes::signal(cell.pid, Signal::KILL)));
        }
        Kind::LauncherKilled => {
            let launchers = processes::launchers(&processes::living(&pids(server))?);
            return Ok(rng.pick(&launchers).is_some_and(|one| processes::signal(one.pid, Signal::KILL)));
        }
        Kind::RoomKilled => return kill_room(server, rng, |members| members),
        Kind::ToolsKilled => return kill_room(server, rng, |members| &members[..members.len().saturating_sub(1)]),
        // The lane arms them: they strike by themselves.
        Kind::FailPoint(_) => return Ok(false),
    }
    Ok(true)
}

fn kill_room(server: &Server, rng: &mut Rng, which: impl Fn(&[Process]) -> &[Process]) -> Result<bool> {
    let living = processes::living(&pids(server))?;
    let cells = processes::cells(&living, &server.data(), server.isolation);
    let Some(cell) = rng.pick(&cells) else { return Ok(false) };
    let members = processes::of_room(&living, cell);
    let struck = which(&members).iter().filter(|p| processes::signal(p.pid, Signal::KILL)).count();
    Ok(struck > 0)
}

fn pids(server: &Server) -> Vec<u32> {
    server.pid().into_iter().collect()
}

/// A server is sometimes started again at once, and sometimes a little later.
async fn pause(rng: &mut Rng) {
    if rng.percent(50) {
        sleep(Duration::from_millis(rng.below(120))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_chosen_by_name_and_drawn_by_weight() {
        let all = Kind::drawn_from(&[]);
        let mut rng = Rng::of(&[1]);
        let drawn: Vec<Kind> = (0..2_000).filter_map(|_| Kind::draw(&mut rng, &all)).collect();
        assert_eq!(drawn.len(), 2_000);
        assert!(all.iter().all(|(kind, _)| drawn.contains(kind)));
        let some = Kind::drawn_from(&["room".to_owned(), "fail point store".to_owned()]);
        assert_eq!(some.iter().map(|(kind, _)| kind.name()).collect::<Vec<_>>().len(), 3);
        assert_eq!(Kind::draw(&mut rng, &[]), None);
    }

    #[test]
    fn the_nth_hit_aborts() {
        assert_eq!(actions(&FAIL_POINTS[0], 1), "store::before_commit=panic");
        assert_eq!(actions(&FAIL_POINTS[0], 4), "store::before_commit=3*off->panic");
    }
}
