//! One lane: a server on a directory of its own, struck round after round.
//!
//! ```text
//!  sessions begin a turn ──► faults at random moments ──► every turn has ended ──► judge ──► next round
//!                                                              └── not in time: stuck
//! ```
//!
//! A round that finds fault keeps its directory, and the lane goes on with a fresh one.

use crate::args::Args;
use crate::client::{Manner, Session};
use crate::counter::Counter;
use crate::desk::Desk;
use crate::faults::{self, During, FailPoint, Kind};
use crate::plan::Plan;
use crate::report::Report;
use crate::rng::Rng;
use crate::server::{Server, Started};
use crate::{evidence, processes, room, verdict};
use anyhow::{Context, Result, bail};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

/// A session that has not ended its turn this long after the last fault is stuck.
const STUCK: Duration = Duration::from_secs(40);
/// Faulty rounds after which a lane gives up: more of the same says nothing new.
const FAILURES_MAX: usize = 5;
/// Second faults that strike while the first is being recovered from.
const SECOND_FAULT_PERCENT: u64 = 35;
/// What `abort` ends a process with.
const SIGABRT: i32 = 6;

pub struct Lane {
    args: Args,
    number: u64,
    counter: Counter,
    server: Server,
    sessions: Vec<Session>,
    report: Report,
    made: u64,
    directories: u64,
}

type Turns = JoinSet<(Session, Result<()>)>;

impl Lane {
    pub async fn start(args: Args, number: u64) -> Result<Self> {
        processes::adopt_orphans()?;
        let counter = Counter::start().await?;
        let server = Server::new(args.binary.clone(), PathBuf::new(), args.isolation);
        let mut lane = Lane {
            args,
            number,
            counter,
            server,
            sessions: Vec::new(),
            report: Report::default(),
            made: 0,
            directories: 0,
        };
        lane.begin_directory().await?;
        Ok(lane)
    }

    /// A fresh directory and a server on it.
    async fn begin_directory(&mut self) -> Result<()> {
        self.directories += 1;
        let root = self.args.directory.join(format!("lane-{}-{}", self.number, self.directories));
        std::fs::create_dir_all(&root).with_context(|| format!("`{}`", root.display()))?;
        if let Some(guest) = &self.args.guest {
            room::lend_guest(guest, &root.join("data"))?;
        }
        if let Some(text) = self.args.isolation.configuration() {
            std::fs::write(root.join("loopd.toml"), text).context("the server's configuration")?;
        }
        self.sessions.clear();
        self.server = Server::new(self.args.binary.clone(), root, self.args.isolation);
        self.server.start_plain().await
    }

    /// Strikes until the lane's points are reached or its time is up, and puts everything away.
    pub async fn run(mut self, points: u64, until: Option<Instant>) -> Result<Report> {
        let began = Instant::now();
        let kinds = Kind::drawn_from(&self.args.only, self.args.isolation);
        let mut round = self.args.first_round;
        while self.report.struck() < points && until.is_none_or(|until| Instant::now() < until) {
            let outcome = self.round(round, &kinds).await;
            if let Err(fault) = outcome {
                self.fail(round, &format!("{fault:#}")).await?;
                if self.report.failures.len() >= FAILURES_MAX {
                    break;
                }
                self.begin_directory().await?;
            }
            round += 1;
        }
        if self.report.failures.len() < FAILURES_MAX
            && let Err(fault) = self.put_away().await
        {
            self.fail(round, &format!("{fault:#}")).await?;
        }
        self.report.seconds = began.elapsed().as_secs_f64();
        Ok(self.report)
    }

    async fn round(&mut self, number: u64, kinds: &[(Kind, u64)]) -> Result<()> {
        let mut rng = Rng::of(&[self.args.seed, self.number, number]);
        let first = Kind::first(number, &mut rng, kinds).context("no fault has such a name")?;
        let mut struck = Vec::new();
        if first.needs_new_session() {
            self.sessions.iter_mut().take(1).for_each(Session::give_up);
        }
        if let Kind::FailPoint(point) = first
            && point.during == During::Deletion
        {
            let hit = self.strike_in_deletion(point, &mut rng).await?;
            struck.push((first, Instant::now(), hit));
        }
        self.replace_finished(&mut rng, number).await?;
        let second = rng.percent(SECOND_FAULT_PERCENT).then(|| Kind::draw(&mut rng, kinds)).flatten();
        let armed = match first {
            Kind::FailPoint(point) if matches!(point.during, During::Work | During::Rest | During::Farewell) => {
                // At rest, so that what follows begins with the armed server.
                self.server.kill().await?;
                Some((point, self.arm(point, &mut rng).await?))
            }
            _ => None,
        };
        let window = self.window();
        let mut turns = self.begin_turns(&mut rng);
        let mut ended = Vec::new();
        match armed {
            Some((point, died)) => {
                let hit = died || self.pass(point, &mut rng, window, &mut turns, &mut ended).await?;
                struck.push((Kind::FailPoint(point), Instant::now(), hit));
                self.restart_unarmed(hit).await?;
            }
            None if struck.is_empty() => self.strike_at_random(first, &mut rng, window, &mut struck).await?,
            None => {}
        }
        let in_midst = |kind: &Kind| !matches!(kind, Kind::FailPoint(p) if p.during != During::Recovery);
        if let Some(second) = second.filter(in_midst) {
            self.strike_at_random(second, &mut rng, window / 2, &mut struck).await?;
        }
        self.until_quiet(&mut turns, &mut ended).await.map_err(|fault| told(fault, number, &struck))?;
        self.take_down(&struck, &ended);
        self.judge(ended).await.map_err(|fault| told(fault, number, &struck))?;
        self.report.rounds += 1;
        Ok(())
    }

    /// Sessions whose plan is done are deleted, and new ones take their places.
    async fn replace_finished(&mut self, rng: &mut Rng, round: u64) -> Result<()> {
        let (finished, going): (Vec<Session>, Vec<Session>) =
            std::mem::take(&mut self.sessions).into_iter().partition(Session::is_over);
        self.sessions = going;
        for session in finished {
            verdict::delete(&self.server, &session.id).await?;
        }
        while (self.sessions.len() as u64) < self.args.sessions {
            self.made += 1;
            self.report.sessions += 1;
            let tag = format!("l{}-r{round}-s{}", self.number, self.made);
            let plan = Plan::draw(rng, &tag, &self.args.classes);
            self.sessions.push(Session::new(tag, plan, self.next_sleeps()));
        }
        Ok(())
    }

    /// Every second session of a lane does, and one at least. Not drawn, so that a seed's plans are the same with all rooms.
    fn next_sleeps(&self) -> bool {
        let sleepers = self.sessions.iter().filter(|session| session.sleeps).count();
        2 * sleepers <= self.sessions.len()
    }

    fn begin_turns(&mut self, rng: &mut Rng) -> Turns {
        let mut turns = JoinSet::new();
        for mut session in std::mem::take(&mut self.sessions) {
            let mut desk = self.desk();
            let manner = Manner::draw(rng);
            turns.spawn(async move {
                let outcome = session.run_turn(&mut desk, manner).await;
                (session, outcome)
            });
        }
        turns
    }

    fn desk(&self) -> Desk {
        let tools = verdict::tools(&self.counter, &self.args.classes);
        Desk { http: verdict::http(), url: self.server.url(), tools, isolation: self.args.isolation }
    }

    /// In which a fault may strike: until about when half of the sessions are done.
    fn window(&self) -> Duration {
        let mut lasts: Vec<u64> = self.sessions.iter().map(|s| s.plan.lasts_ms(s.turns)).collect();
        lasts.sort_unstable();
        let half = Duration::from_millis(lasts.get(lasts.len() / 2).copied().unwrap_or(0) + 1);
        self.args.isolation.patience(half)
    }

    /// Starts the server with the fail point armed. True: it was hit before the server served.
    async fn arm(&mut self, point: &FailPoint, rng: &mut Rng) -> Result<bool> {
        let nth = 1 + rng.below(point.hits);
        let died = self.server.start(Some(&faults::actions(point, nth))).await? == Started::Died;
        if died {
            self.server.start_plain().await?;
        }
        Ok(died)
    }

    /// Lets an armed server work until it aborts. False: the turns ended without that.
    async fn pass(
        &mut self,
        point: &FailPoint,
        rng: &mut Rng,
        window: Duration,
        turns: &mut Turns,
        ended: &mut Vec<Session>,
    ) -> Result<bool> {
        if point.during == During::Farewell {
            sleep(Duration::from_millis(rng.below(window.as_millis() as u64))).await;
            self.server.signal(rustix::process::Signal::TERM);
        }
        let status = tokio::select! {
            status = self.server.ended() => status?,
            outcome = finish(turns, ended) => {
                outcome?;
                let Some(status) = self.ends_at_rest(point).await? else { return Ok(false) };
                status
            }
        };
        match (status.signal(), point.during) {
            (Some(SIGABRT), _) => Ok(true),
            // It said farewell to all without passing the point that often.
            (None, During::Farewell) if status.success() => Ok(false),
            _ => bail!("the server ended with {status} at {}", point.name),
        }
    }

    /// The turns are over, and what is passed at rest is yet to come. `None`: it does not come.
    async fn ends_at_rest(&mut self, point: &FailPoint) -> Result<Option<ExitStatus>> {
        if point.during != During::Rest {
            return Ok(None);
        }
        match timeout(self.args.isolation.patience(room::IDLE), self.server.ended()).await {
            Ok(status) => status.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// After a fail point: a server without one.
    async fn restart_unarmed(&mut self, hit: bool) -> Result<()> {
        if !hit {
            self.server.kill().await?;
        }
        match self.server.pid() {
            Some(_) => Ok(()),
            None => self.server.start_plain().await,
        }
    }

    async fn strike_at_random(
        &mut self,
        kind: Kind,
        rng: &mut Rng,
        window: Duration,
        struck: &mut Vec<(Kind, Instant, bool)>,
    ) -> Result<()> {
        sleep(Duration::from_millis(rng.below(window.as_millis() as u64))).await;
        let at = Instant::now();
        let hit = match kind {
            Kind::FailPoint(point) => self.strike_in_recovery(point, rng).await?,
            kind => self.strike_when_possible(kind, rng).await?,
        };
        struck.push((kind, at, hit));
        Ok(())
    }

    /// Rooms come and go: a fault that needs one waits a moment for it.
    async fn strike_when_possible(&mut self, kind: Kind, rng: &mut Rng) -> Result<bool> {
        for _ in 0..8 {
            if faults::strike(kind, &mut self.server, rng).await? {
                return Ok(true);
            }
            sleep(Duration::from_millis(15)).await;
        }
        Ok(false)
    }

    /// Deletes a session that rests; the server aborts on the way, and the next one must know of the session as before, or
    /// leave nothing of it. Whether something was left is judged at the lane's end.
    async fn strike_in_deletion(&mut self, point: &FailPoint, rng: &mut Rng) -> Result<bool> {
        let Some(session) = self.sessions.pop() else { return Ok(false) };
        self.server.kill().await?;
        if self.arm(point, rng).await? {
            bail!("the server passed {} before anybody deleted anything", point.name);
        }
        let gone = verdict::delete(&self.server, &session.id).await;
        let status = timeout_at(Instant::now() + self.stuck_after(), self.server.ended())
            .await
            .context("it did not abort")??;
        if gone.is_ok() || status.signal() != Some(SIGABRT) {
            bail!("the server ended with {status} at {}, and the deletion came to {gone:?}", point.name);
        }
        self.restart_unarmed(true).await?;
        if verdict::exists(&self.server, &session.id).await? {
            verdict::delete(&self.server, &session.id).await?;
        }
        Ok(true)
    }

    /// Kills the server in mid-turn; the one that recovers aborts at the fail point, and a third one recovers from both.
    async fn strike_in_recovery(&mut self, point: &FailPoint, rng: &mut Rng) -> Result<bool> {
        self.server.kill().await?;
        if self.arm(point, rng).await? {
            return Ok(true);
        }
        let aborted = timeout_at(Instant::now() + Duration::from_millis(500), self.server.ended()).await;
        let hit = match aborted {
            Ok(status) => {
                let status = status?;
                if status.signal() != Some(SIGABRT) {
                    bail!("the server ended with {status} at {}", point.name);
                }
                true
            }
            Err(_) => false,
        };
        self.restart_unarmed(hit).await?;
        Ok(hit)
    }

    /// Waits until every turn has ended. A server that ends by itself meanwhile is a fault of its own.
    async fn until_quiet(&mut self, turns: &mut Turns, ended: &mut Vec<Session>) -> Result<()> {
        let (patience, deadline) = (self.stuck_after(), Instant::now() + self.stuck_after());
        tokio::select! {
            outcome = finish(turns, ended) => outcome,
            status = self.server.ended() => bail!("the server ended by itself: {}", status?),
            () = sleep_until(deadline) => {
                turns.abort_all();
                bail!("{} sessions are stuck {patience:?} after the last fault\n{}", turns.len(), self.stuck().await)
            }
        }
    }

    fn stuck_after(&self) -> Duration {
        self.args.isolation.patience(STUCK)
    }

    async fn stuck(&self) -> String {
        match verdict::unfinished(&self.server).await {
            Ok(ids) => evidence::journals(&self.server.data(), &ids),
            Err(fault) => format!("(the server does not say which: {fault:#})"),
        }
    }

    fn take_down(&mut self, struck: &[(Kind, Instant, bool)], sessions: &[Session]) {
        for (n, (kind, at, hit)) in struck.iter().enumerate() {
            let point = self.report.points.entry(kind.name()).or_default();
            point.tried += 1;
            if !hit {
                continue;
            }
            point.struck += 1;
            // What follows the next fault tells of that one.
            let until = struck.get(n + 1).map(|(_, next, _)| *next);
            let counts = |seen: &Instant| until.is_none_or(|until| *seen < until);
            let next = sessions.iter().filter_map(|s| s.seen.iter().find(|seen| seen.at > *at));
            let next = next.filter(|seen| counts(&seen.at));
            point.recovered_ms.extend(next.map(|seen| seen.at.duration_since(*at).as_millis() as u64));
        }
    }

    async fn judge(&mut self, sessions: Vec<Session>) -> Result<()> {
        let mut faults = Vec::new();
        for session in &sessions {
            let found = verdict::session(&self.server, &self.counter, session, &mut self.report).await?;
            if !found.is_empty() {
                let shown = evidence::journals(&self.server.data(), std::slice::from_ref(&session.id));
                faults.push(format!("session {}:\n  {}\n{shown}", session.id, found.join("\n  ")));
            }
        }
        self.report.turns += sessions.len() as u64;
        self.sessions = sessions;
        match faults.is_empty() {
            true => Ok(()),
            false => bail!("{}", faults.join("\n")),
        }
    }

    /// Writes down what went wrong and where its evidence lies, and ends everything that is left.
    async fn fail(&mut self, round: u64, fault: &str) -> Result<()> {
        let lane = self.number;
        let text = format!(
            "seed {} lane {lane} round {round} (repeat: --seed {} --lane {lane} --first-round {round} --points 1)\n\
             kept: {}\n{fault}\nlast lines of the log:\n{}",
            self.args.seed,
            self.args.seed,
            self.server.data().display(),
            self.server.log_tail(25)
        );
        eprintln!("FAILED: {text}\n");
        self.report.failures.push(text);
        self.server.kill().await?;
        evidence::end_all()
    }

    /// Deletes every session and stops the server: nothing may be left of them.
    async fn put_away(&mut self) -> Result<()> {
        for session in std::mem::take(&mut self.sessions) {
            verdict::delete(&self.server, &session.id).await?;
        }
        self.server.terminate().await?;
        let left = verdict::left_over(&self.server.data()).await?;
        if !left.is_empty() {
            evidence::end_all()?;
            bail!("after every session was deleted and the server stopped, there is left: {}", left.join(", "));
        }
        let root = self.server.data();
        let root = root.parent().context("the data directory has a parent")?;
        std::fs::remove_dir_all(root).with_context(|| format!("`{}`", root.display()))
    }
}

/// Every turn that is still under way, to its end.
async fn finish(turns: &mut Turns, ended: &mut Vec<Session>) -> Result<()> {
    while let Some(joined) = turns.join_next().await {
        let (session, outcome) = joined.context("a client's task ended early")?;
        outcome.with_context(|| format!("session {} ({})", session.id, session.tag))?;
        ended.push(session);
    }
    Ok(())
}

fn told(fault: anyhow::Error, round: u64, struck: &[(Kind, Instant, bool)]) -> anyhow::Error {
    let done: Vec<String> = struck
        .iter()
        .map(|(kind, _, hit)| format!("{}{}", kind.name(), if *hit { "" } else { " (not hit)" }))
        .collect();
    fault.context(format!("round {round}, after: {}", done.join(", then ")))
}
