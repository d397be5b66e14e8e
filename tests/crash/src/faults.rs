//! The faults, how often each is drawn, and how it is done.

use crate::processes::{self, Process};
use crate::rng::Rng;
use crate::room::Isolation;
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
    /// The only kind of rooms with which it is passed.
    rooms: Option<Isolation>,
}

/// What makes the server pass it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum During {
    /// Turns.
    Work,
    /// A session that has rested for its idle time, while others work or after the last turn.
    Rest,
    /// The start after a kill in mid-turn.
    Recovery,
    /// The end after SIGTERM in mid-turn.
    Farewell,
    /// The deletion of a session.
    Deletion,
}

const fn point(name: &'static str, during: During, hits: u64) -> FailPoint {
    FailPoint { name, during, hits, rooms: None }
}

impl FailPoint {
    const fn only_with(self, rooms: Isolation) -> Self {
        FailPoint { rooms: Some(rooms), ..self }
    }

    fn is_passed_with(&self, rooms: Isolation) -> bool {
        self.rooms.is_none_or(|only| only == rooms)
    }
}

/// Every fail point of the server but those of [`UNREACHED`]; a test compares both with its sources.
pub static FAIL_POINTS: [FailPoint; 28] = [
    point("store::before_commit", During::Work, 24),
    point("store::after_commit", During::Work, 24),
    point("session::before_create", During::Work, 1),
    point("session::after_create", During::Work, 1),
    point("sandbox::waiting_recorded", During::Work, 2).only_with(Isolation::Namespaces),
    point("sandbox::directory_moved", During::Work, 1).only_with(Isolation::Namespaces),
    point("sandbox::place_moved", During::Work, 1).only_with(Isolation::Namespaces),
    // In the order of a run's first rounds: the very first machine on record becomes a template, and not a session's.
    point("sandbox::machine_bound", During::Work, 1).only_with(Isolation::Microvm),
    point("sandbox::machine_recorded", During::Work, 1).only_with(Isolation::Microvm),
    point("sandbox::suspension_noted", During::Rest, 1).only_with(Isolation::Microvm),
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

/// Those that no round passes, and why.
static UNREACHED: [(&str, &str); 1] = [(
    "sandbox::disk_moved",
    "a machine waits only for sessions with the usual limits, in a server that has started one such before; \
     sessions here have less",
)];

/// For the report of a run with such rooms: what it says nothing about.
pub fn unreached(rooms: Isolation) -> String {
    match rooms {
        Isolation::Namespaces => String::new(),
        Isolation::Microvm => UNREACHED.iter().map(|(name, why)| format!("\nNot reached: {name}: {why}.\n")).collect(),
    }
}

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

    /// Nobody passes it but a session that is being made, or nobody as surely: the others may have their machines.
    pub fn needs_new_session(self) -> bool {
        let is_made = |point: &FailPoint| point.name.ends_with("_create");
        let is_started = |point: &FailPoint| point.name.starts_with("sandbox::machine_");
        matches!(self, Kind::FailPoint(point) if is_made(point) || is_started(point))
    }

    /// The kinds whose name begins with one of `only`; all when that is empty. With their weights.
    pub fn drawn_from(only: &[String], rooms: Isolation) -> Vec<(Kind, u64)> {
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
        let passed = FAIL_POINTS.iter().filter(|point| point.is_passed_with(rooms));
        let points = passed.map(|point| (Kind::FailPoint(point), 2));
        let all = plain.into_iter().chain(points);
        all.filter(|(kind, _)| only.is_empty() || only.iter().any(|name| kind.name().starts_with(name.as_str())))
            .collect()
    }

    /// The first fault of a round. What only machines pass is not left to chance: a run with them has few rounds, and begins with it.
    pub fn first(round: u64, rng: &mut Rng, from: &[(Kind, u64)]) -> Option<Kind> {
        let is_machines = |kind: &Kind| matches!(kind, Kind::FailPoint(p) if p.rooms == Some(Isolation::Microvm));
        let mut machines = from.iter().map(|(kind, _)| *kind).filter(is_machines);
        machines.nth(round as usize).or_else(|| Kind::draw(rng, from))
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
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn kinds_are_chosen_by_name_and_drawn_by_weight() {
        let all = Kind::drawn_from(&[], Isolation::Namespaces);
        let mut rng = Rng::of(&[1]);
        let drawn: Vec<Kind> = (0..2_000).filter_map(|_| Kind::draw(&mut rng, &all)).collect();
        assert_eq!(drawn.len(), 2_000);
        assert!(all.iter().all(|(kind, _)| drawn.contains(kind)));
        let some = Kind::drawn_from(&["room".to_owned(), "fail point store".to_owned()], Isolation::Namespaces);
        assert_eq!(some.iter().map(|(kind, _)| kind.name()).collect::<Vec<_>>().len(), 3);
        assert_eq!(Kind::draw(&mut rng, &[]), None);
    }

    #[test]
    fn rooms_have_points_of_their_own_and_a_run_with_machines_begins_with_theirs() {
        let sandbox = ["fail point sandbox".to_owned()];
        let names = |rooms| Kind::drawn_from(&sandbox, rooms).iter().map(|(k, _)| k.name()).collect::<Vec<_>>();
        let (waiting, machines) = (names(Isolation::Namespaces), names(Isolation::Microvm));
        assert_eq!(waiting.len(), 3);
        assert_eq!(machines.len(), 3);
        assert!(machines.iter().all(|name| !waiting.contains(name)));
        let all = Kind::drawn_from(&[], Isolation::Microvm);
        let mut rng = Rng::of(&[1]);
        let first = (0..3).filter_map(|round| Kind::first(round, &mut rng, &all));
        assert_eq!(first.map(Kind::name).collect::<Vec<_>>(), machines);
        let plain = Kind::drawn_from(&[], Isolation::Namespaces);
        let drawn = Kind::draw(&mut rng.clone(), &plain);
        assert_eq!(Kind::first(0, &mut rng, &plain), drawn, "others begin with what is drawn");
    }

    #[test]
    fn the_list_is_what_the_sources_name() {
        let mut named = BTreeSet::new();
        named_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates"), &mut named);
        let listed = FAIL_POINTS.iter().map(|point| point.name).chain(UNREACHED.iter().map(|(name, _)| *name));
        let listed: Vec<String> = listed.map(str::to_owned).collect();
        assert_eq!(listed.len(), listed.iter().collect::<BTreeSet<_>>().len(), "one stands twice in the list");
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), named);
    }

    /// Fail points in the sources below a directory.
    fn named_below(directory: &Path, named: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                named_below(&path, named);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                named.extend(named_in(&std::fs::read_to_string(&path).expect("UTF-8")));
            }
        }
    }

    fn named_in(text: &str) -> Vec<String> {
        // What a comment names need not be passed.
        let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let code = code.join("\n");
        let name = |rest: &str| rest.trim_start().strip_prefix('"')?.split_once('"').map(|(name, _)| name.to_owned());
        let uses = code.split("fail_point!(").skip(1);
        uses.map(|rest| name(rest).expect("a fail point's name is written out where it stands")).collect()
    }

    #[test]
    fn fail_points_are_found_in_sources() {
        let text =
            "//! `fail_point!(\"a::b\");`\nfail::fail_point!(\"c::d\"); fail_point!(\n    \"e::f\",\n    |_| 1\n);";
        assert_eq!(named_in(text), ["c::d", "e::f"]);
    }

    #[test]
    fn the_nth_hit_aborts() {
        assert_eq!(actions(&FAIL_POINTS[0], 1), "store::before_commit=panic");
        assert_eq!(actions(&FAIL_POINTS[0], 4), "store::before_commit=3*off->panic");
    }
}
