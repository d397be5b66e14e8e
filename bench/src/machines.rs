//! Rooms with a kernel of their own: how a session starts in one, what one costs, and what sleep costs.
//!
//! A machine boots, or it is a copy of one that was frozen when it had booted; some copies wait in advance. Starts are measured from the
//! request to the model request at the provider, through the door that users have. All of it is another matter under KVM than in
//! software: the report says which it was.

use crate::fake::Fake;
use crate::loopd::Loopd;
use crate::ours::session_id;
use crate::place::Place;
use crate::process;
use crate::report::{Report, Target, cells, ratio, short};
use crate::stats::Samples;
use anyhow::{Context, Result, ensure};
use loopd_domain::environment::Accelerator;
use loopd_domain::limits::MACHINES_WAITING_MAX;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::Instant;

const FIRSTS: usize = 3;
const ROUNDS: usize = 20;
/// Until the next machine waits, also in software.
const REST: Duration = Duration::from_millis(1_500);
/// Machines that live at once: with sessions that have run no command, and with ones that have run one.
const QUIET: usize = 20;
const CROWD: usize = 150;
/// No more machines are started when available memory is below this, or when starting them has taken so long.
const SPARE_KB: u64 = 1_536 << 10;
const CROWD_WAIT: Duration = Duration::from_secs(200);
/// For machines to come to rest.
const CALM: Duration = Duration::from_secs(5);
const SLEEPS: usize = 5;
/// How long an idle session keeps its machine where they fall asleep.
const IDLE_SECONDS: u64 = 1;
/// Longer than all takes where they must not.
const LONG_SECONDS: u64 = 3_600;
const WORKING_SET_MB: u64 = 200;
const PATIENCE: Duration = Duration::from_secs(120);
const BREATH: Duration = Duration::from_millis(100);
const NONE_WAITS: &str = "[microvm]\nwaiting = 0\n";

pub async fn run(place: &Place) -> Result<Report> {
    let scene = Scene::set(place).await?;
    let mut report = Report::new("machines");
    starts(&mut report, &scene).await?;
    crowd(&mut report, &scene).await?;
    sleep(&mut report, &scene).await?;
    Ok(report)
}

/// What all servers here have in common.
struct Scene<'a> {
    place: &'a Place,
    fake: Fake,
    work: TempDir,
    /// Of the guest.
    image: PathBuf,
    /// Known from the first session on.
    accelerator: OnceLock<Accelerator>,
}

impl Scene<'_> {
    async fn set(place: &Place) -> Result<Scene<'_>> {
        let (fake, work) = (Fake::start().await?, tempfile::tempdir_in(&place.work)?);
        Ok(Scene { place, fake, work, image: image(place).await?, accelerator: OnceLock::new() })
    }

    fn data(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// A server on a directory that has the image, and no template yet.
    async fn serve(&self, name: &str, settings: &str) -> Result<Loopd> {
        let data = self.data(name);
        let guest = data.join("guest");
        std::fs::create_dir_all(&guest)?;
        for shelf in ["bases", "initramfs", "kernels"] {
            let link = guest.join(shelf);
            if !link.exists() {
                std::os::unix::fs::symlink(self.image.join(shelf), link)?;
            }
        }
        std::fs::copy(self.image.join("current.json"), guest.join("current.json"))?;
        let config = data.with_extension("toml");
        std::fs::write(&config, settings)?;
        let config = config.to_str().context("a path that is no UTF-8")?.to_owned();
        Loopd::start_with(&self.place.loopd, &data, &self.fake, &["--config", &config]).await
    }

    /// A server whose machines all boot: a file lies where it would keep templates, so that it can make none.
    async fn serve_without_templates(&self, name: &str) -> Result<Loopd> {
        let guest = self.data(name).join("guest");
        std::fs::create_dir_all(&guest)?;
        std::fs::write(guest.join("templates"), "")?;
        self.serve(name, NONE_WAITS).await
    }

    /// Milliseconds from the request to the model request, and the session.
    async fn to_first_request(&self, loopd: &Loopd) -> Result<(f64, String)> {
        self.fake.take_arrival();
        let sent = Instant::now();
        let answer = loopd.invoke(&request("workspace", None)).await?;
        let arrival = self.fake.take_arrival().with_context(|| format!("no model request arrived: {answer}"))?;
        Ok(((arrival - sent).as_secs_f64() * 1e3, session_id(&answer)?))
    }

    /// A server's first session, which leaves behind what is found out and made once. Its milliseconds to the model request.
    async fn first(&self, loopd: &Loopd) -> Result<f64> {
        let (took, session) = self.to_first_request(loopd).await?;
        self.note_accelerator(loopd, &session).await?;
        loopd.delete(&session).await?;
        Ok(took)
    }

    /// Every server finds out for itself whether KVM works, and machines of both kinds do not belong into one table.
    async fn note_accelerator(&self, loopd: &Loopd, session: &str) -> Result<()> {
        let events = loopd.events(session).await?;
        let started = events.iter().find(|event| event.kind == "loopd.room_started");
        let told = started.and_then(|event| event.accelerator).context("the history names no accelerator")?;
        let known = *self.accelerator.get_or_init(|| told);
        ensure!(
            known == told,
            "one server's machines run with `{}`, another's with `{}`",
            known.as_str(),
            told.as_str()
        );
        Ok(())
    }
}

/// The guest image, made as an operator makes it and kept from run to run.
async fn image(place: &Place) -> Result<PathBuf> {
    let data = place.work.join("guest-image");
    let mut build = Command::new(&place.loopd);
    build.args(["image", "build", "--data"]).arg(&data).stdout(Stdio::null());
    ensure!(build.status().await?.success(), "`loopd image build` failed");
    Ok(data.join("guest"))
}

fn request(hibernation: &str, script: Option<&str>) -> Value {
    // With the default limits: those that wait are of that shape.
    let environment = json!({"isolation": "microvm", "hibernation": hibernation});
    let Some(command) = script else {
        return json!({"model": "openai/read-0", "input": "go", "environment": environment});
    };
    let input = format!("```sh\n{command}\n```");
    json!({"model": "builtin/shell", "input": input, "environment": environment})
}

/// Sessions' starts, by how their machines come about.
struct Starts {
    /// The first of a shape.
    first: Samples,
    /// Booted for the session, copied for it, copied in advance: round by round.
    booted: Samples,
    copied: Samples,
    waited: Samples,
}

async fn starts(report: &mut Report, scene: &Scene<'_>) -> Result<()> {
    let mut first = Samples::default();
    for round in 0..FIRSTS {
        let loopd = scene.serve(&format!("first-{round}"), NONE_WAITS).await?;
        first.push(scene.first(&loopd).await?);
        loopd.stop().await?;
    }
    let [booted, copied, waited] = rounds(scene).await?;
    let accelerator = match scene.accelerator.get().context("no session has a machine")? {
        Accelerator::Kvm => "under KVM",
        Accelerator::Emulation => "in software, which is slow",
    };
    report.say(&format!("All machines of this run ran {accelerator}, as their sessions' histories say."));
    tell_starts(report, &Starts { first, booted, copied, waited });
    Ok(())
}

/// One session of each kind in turn, every time beginning with another kind.
async fn rounds(scene: &Scene<'_>) -> Result<[Samples; 3]> {
    let servers = [
        scene.serve_without_templates("booting").await?,
        scene.serve("copying", NONE_WAITS).await?,
        scene.serve("waiting", &format!("[microvm]\nwaiting = {MACHINES_WAITING_MAX}\n")).await?,
    ];
    for loopd in &servers {
        scene.first(loopd).await?;
    }
    let mut taken = <[Samples; 3]>::default();
    for round in 0..ROUNDS {
        for offset in 0..servers.len() {
            let index = (round + offset) % servers.len();
            tokio::time::sleep(REST).await;
            let (took, session) = scene.to_first_request(&servers[index]).await?;
            taken[index].push(took);
            ensure!(index != 0 || has_booted(&servers[0])?, "what should have booted is a copy");
            servers[index].delete(&session).await?;
        }
    }
    for loopd in servers {
        loopd.stop().await?;
    }
    Ok(taken)
}

/// Whether all machines of a server's sessions began with their kernel: QEMU is told one then, and none for a copy.
fn has_booted(loopd: &Loopd) -> Result<bool> {
    let machines = loopd.rooms()?;
    let has_kernel = |pid: &u32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == b"-kernel")
    };
    Ok(!machines.is_empty() && machines.iter().all(has_kernel))
}

fn tell_starts(report: &mut Report, starts: &Starts) {
    let Starts { first, booted, copied, waited } = starts;
    report.say(&format!(
        "From the request to the model request at the provider, {ROUNDS} rounds of one of each kind in turn, and {FIRSTS} first sessions \
         before, ms:"
    ));
    let row =
        |name: &str, samples: &Samples, to_boot: String| [&[name.to_owned()][..], &cells(samples), &[to_boot]].concat();
    report.table(
        &["what", "p50", "p99", "p10 to p90", "this / a boot, round by round"],
        &[
            row("a session whose machine boots for it, where there are no templates", booted, ratio(booted, booted)),
            row("a session in a copy that is made for it", copied, ratio(copied, booted)),
            row("a session in a copy that waited", waited, ratio(waited, booted)),
            row(
                "the first session of its shape on a new server: QEMU is found and KVM tried, a machine boots, is frozen as the template and \
                 ends, and a copy of it is made for the session",
                first,
                "other rounds".to_owned(),
            ),
        ],
    );
    let half = Target::AtMost(0.5, "");
    report.figure("a copy / a boot, round by round, p50", copied.over(booted).p50(), half);
    report.figure("one that waited / a boot, round by round, p50", waited.over(booted).p50(), half);
    report.figure("one that waited / a copy, round by round, p50", waited.over(copied).p50(), Target::AtMost(1.0, ""));
    report.figure("a copy / the first of its shape, p50 of each", copied.p50() / first.p50(), half);
    report.figure("one that waited / the first of its shape, p50 of each", waited.p50() / first.p50(), half);
}

/// Processes of machines, on a machine where nobody else has any.
fn machines() -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if process::name(pid).starts_with("qemu-system") {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Machines of one server, copies of one template all of them.
struct Machines {
    working: Vec<u32>,
    waiting: Vec<u32>,
}

impl Machines {
    fn of(loopd: &Loopd) -> Result<Machines> {
        let working = loopd.rooms()?;
        let waiting = machines()?.into_iter().filter(|pid| !working.contains(pid)).collect();
        Ok(Machines { working, waiting })
    }

    /// As soon as so many are sessions', and as many wait as ever do; and all have come to rest.
    async fn settled(loopd: &Loopd, working: usize) -> Result<Machines> {
        let begun = Instant::now();
        loop {
            let now = Machines::of(loopd)?;
            let counts = (now.working.len(), now.waiting.len());
            if counts == (working, MACHINES_WAITING_MAX) {
                tokio::time::sleep(CALM).await;
                return Ok(now);
            }
            ensure!(begun.elapsed() < PATIENCE, "{counts:?} machines work and wait, of {working} that should work");
            tokio::time::sleep(BREATH).await;
        }
    }

    /// What some of them weigh, as a row.
    fn row(&self, what: &str, some: &[u32]) -> Result<Vec<String>> {
        let memory = process::memory(some);
        ensure!(memory.processes == some.len() && !some.is_empty(), "of {} machines some have ended", some.len());
        let each = |kb: u64| short(kb as f64 / 1024.0 / some.len() as f64);
        let sharers = self.working.len() + self.waiting.len();
        let counts = [some.len().to_string(), sharers.to_string()];
        Ok([&[what.to_owned()][..], &counts, &[each(memory.pss_kb), each(memory.private_kb)]].concat())
    }
}

async fn nobody_elses() -> Result<()> {
    // Those of servers before go in a moment.
    let begun = Instant::now();
    while !machines()?.is_empty() {
        ensure!(
            begun.elapsed() < PATIENCE,
            "another program runs machines here; their memory would be counted as ours"
        );
        tokio::time::sleep(BREATH).await;
    }
    Ok(())
}

async fn crowd(report: &mut Report, scene: &Scene<'_>) -> Result<()> {
    nobody_elses().await?;
    let settings = format!("room_idle_seconds = {LONG_SECONDS}\n[microvm]\nwaiting = {MACHINES_WAITING_MAX}\n");
    let loopd = scene.serve("crowd", &settings).await?;
    scene.first(&loopd).await?;
    let resting = Machines::settled(&loopd, 0).await?;
    let mut rows = vec![resting.row("waits for a session, and no session has one", &resting.waiting)?];
    let quiet = open(&loopd, &request("workspace", None), QUIET).await?;
    let living = Machines::settled(&loopd, quiet.len()).await?;
    rows.push(living.row("has a session that has run no command", &living.working)?);
    close(&loopd, &quiet).await?;
    Machines::settled(&loopd, 0).await?;
    let (before_kb, begun) = (available_kb()?, Instant::now());
    let sessions = open(&loopd, &request("workspace", Some("true")), CROWD).await?;
    let took = begun.elapsed();
    let living = Machines::settled(&loopd, sessions.len()).await?;
    let after_kb = available_kb()?;
    rows.push(living.row("has a session that has run a command", &living.working)?);
    close(&loopd, &sessions).await?;
    loopd.stop().await?;
    report.say(&format!(
        "Memory of a machine, MB: proportional set size, for which pages that several have are divided among all that live, those that \
         wait included; and of it what no other process has. No more than {MACHINES_WAITING_MAX} ever wait:"
    ));
    report.table(&["a machine that", "weighed", "that share", "PSS each", "of it private"], &rows);
    tell_crowd(report, sessions.len(), took, before_kb, after_kb);
    Ok(())
}

fn tell_crowd(report: &mut Report, alive: usize, took: Duration, before_kb: u64, after_kb: u64) {
    let each_kb = before_kb.saturating_sub(after_kb) as f64 / alive as f64;
    let gb = |kb: u64| short(kb as f64 / f64::from(1 << 20));
    let cut =
        if alive < CROWD { format!("; {CROWD} were wanted, and memory or time ran short") } else { String::new() };
    report.say(&format!(
        "Really alive at once: {alive} with a session that has run a command, started one after the other in {:.1} s, the commands \
         included{cut}. Available memory fell by {} MB for each. Extrapolated from these {alive}, and not tried: {:.0} at once in the {} GB \
         that were available before, with {} GB to spare.",
        took.as_secs_f64(),
        short(each_kb / 1024.0),
        before_kb.saturating_sub(SPARE_KB) as f64 / each_kb.max(1.0),
        gb(before_kb),
        gb(SPARE_KB),
    ));
}

/// Sessions one after the other: as many as are wanted, if memory and time suffice.
async fn open(loopd: &Loopd, body: &Value, wanted: usize) -> Result<Vec<String>> {
    let begun = Instant::now();
    let mut sessions = Vec::new();
    while sessions.len() < wanted && available_kb()? > SPARE_KB && begun.elapsed() < CROWD_WAIT {
        sessions.push(session_id(&loopd.invoke(body).await?)?);
    }
    Ok(sessions)
}

async fn close(loopd: &Loopd, sessions: &[String]) -> Result<()> {
    for session in sessions {
        loopd.delete(session).await?;
    }
    Ok(())
}

fn available_kb() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).context("no `MemAvailable` in /proc/meminfo")
}

async fn sleep(report: &mut Report, scene: &Scene<'_>) -> Result<()> {
    let settings = format!("room_idle_seconds = {IDLE_SECONDS}\n[microvm]\nwaiting = 0\n");
    let loopd = scene.serve("sleep", &settings).await?;
    // Random, so that nothing can be left out of it.
    let hold = format!(
        "python3 -c 'import os, time; held = os.urandom({}); time.sleep(10000)' > /dev/null 2>&1 & sleep 3; echo held",
        WORKING_SET_MB << 20
    );
    let [mut asleep, mut awake, mut bytes] = <[Samples; 3]>::default();
    let session = session_id(&loopd.invoke(&request("memory", Some(&hold))).await?)?;
    let memory = scene.data("sleep").join("sessions").join(&session).join("machine.suspended");
    for _ in 0..SLEEPS {
        let idle = Instant::now();
        while !memory.exists() {
            ensure!(idle.elapsed() < PATIENCE, "the session does not fall asleep");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        asleep.push(idle.elapsed().as_secs_f64() * 1e3 - IDLE_SECONDS as f64 * 1e3);
        bytes.push(std::fs::metadata(&memory)?.len() as f64 / 1048576.0);
        let sent = Instant::now();
        let answer = loopd.invoke(&json!({"session": session, "input": "```sh\npgrep -c python3\n```"})).await?;
        awake.push(sent.elapsed().as_secs_f64() * 1e3);
        ensure!(answer["output"].to_string().contains('1'), "the process is gone: {answer}");
    }
    scene.note_accelerator(&loopd, &session).await?;
    loopd.delete(&session).await?;
    loopd.stop().await?;
    report.say(&format!(
        "A machine with a process that holds {WORKING_SET_MB} MB of random bytes falls asleep and wakes, {SLEEPS} times, ms; \
         {} MB on disk:",
        short(bytes.p50())
    ));
    let row = |name: &str, samples: &Samples| [&[name.to_owned()][..], &cells(samples)].concat();
    report.table(
        &["what", "p50", "p99", "p10 to p90"],
        &[
            row("falls asleep: from the end of its idle time until its memory is on disk", &asleep),
            row("wakes: from the request to the end of a turn that runs a command in it", &awake),
        ],
    );
    Ok(())
}
