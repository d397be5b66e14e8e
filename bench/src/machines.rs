//! Rooms with a kernel of their own: how a session starts in one, what one costs, and what sleep costs.
//!
//! The first session of a shape boots a machine, and keeps it as a template; later ones are copies of that, and some wait in
//! advance. Each is measured from the request to the model request at the provider, through the door that users have.

use crate::fake::Fake;
use crate::loopd::Loopd;
use crate::ours::session_id;
use crate::place::Place;
use crate::process;
use crate::report::{Report, Target, cells, short};
use crate::stats::Samples;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::Instant;

const BOOTS: usize = 3;
const COPIES: usize = 20;
/// Until the next machine waits, also in software.
const REST: Duration = Duration::from_millis(1_500);
const CROWD: usize = 50;
const SLEEPS: usize = 5;
/// How long an idle session keeps its machine where they fall asleep.
const IDLE_SECONDS: u64 = 1;
const WORKING_SET_MB: u64 = 200;
const PATIENCE: Duration = Duration::from_secs(120);
const BREATH: Duration = Duration::from_millis(100);

pub async fn run(place: &Place) -> Result<Report> {
    let fake = Fake::start().await?;
    let work = tempfile::tempdir_in(&place.work)?;
    let image = image(place).await?;
    let mut report = Report::new("machines");
    starts(&mut report, place, &fake, work.path(), &image).await?;
    crowd(&mut report, place, &fake, work.path(), &image).await?;
    sleep(&mut report, place, &fake, work.path(), &image).await?;
    Ok(report)
}

/// The guest image, made as an operator makes it and kept from run to run.
async fn image(place: &Place) -> Result<PathBuf> {
    let data = place.work.join("guest-image");
    let mut build = Command::new(&place.loopd);
    build.args(["image", "build", "--data"]).arg(&data).stdout(Stdio::null());
    ensure!(build.status().await?.success(), "`loopd image build` failed");
    Ok(data.join("guest"))
}

/// A server on a directory that has the image, and no template yet.
async fn serve(place: &Place, fake: &Fake, data: &Path, image: &Path, settings: &str) -> Result<Loopd> {
    let guest = data.join("guest");
    std::fs::create_dir_all(&guest)?;
    for shelf in ["bases", "initramfs", "kernels"] {
        let link = guest.join(shelf);
        if !link.exists() {
            std::os::unix::fs::symlink(image.join(shelf), link)?;
        }
    }
    std::fs::copy(image.join("current.json"), guest.join("current.json"))?;
    let config = data.with_extension("toml");
    std::fs::write(&config, settings)?;
    let config = config.to_str().context("a path that is no UTF-8")?.to_owned();
    Loopd::start_with(&place.loopd, data, fake, &["--config", &config]).await
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

/// Milliseconds from the request to the model request, and the session.
async fn to_first_request(loopd: &Loopd, fake: &Fake, body: &Value) -> Result<(f64, String)> {
    fake.take_arrival();
    let sent = Instant::now();
    let answer = loopd.invoke(body).await?;
    let arrival = fake.take_arrival().with_context(|| format!("no model request arrived: {answer}"))?;
    Ok(((arrival - sent).as_secs_f64() * 1e3, session_id(&answer)?))
}

async fn starts(report: &mut Report, place: &Place, fake: &Fake, work: &Path, image: &Path) -> Result<()> {
    let body = request("workspace", None);
    let [mut booted, mut copied, mut waited] = <[Samples; 3]>::default();
    for round in 0..BOOTS {
        let loopd = serve(place, fake, &work.join(format!("boots-{round}")), image, "[microvm]\nwaiting = 0\n").await?;
        booted.push(to_first_request(&loopd, fake, &body).await?.0);
        loopd.stop().await?;
    }
    let copying = serve(place, fake, &work.join("copying"), image, "[microvm]\nwaiting = 0\n").await?;
    let waiting = serve(place, fake, &work.join("waiting"), image, "[microvm]\nwaiting = 2\n").await?;
    for loopd in [&copying, &waiting] {
        let (_, session) = to_first_request(loopd, fake, &body).await?;
        loopd.delete(&session).await?;
    }
    for _ in 0..COPIES {
        for (loopd, samples) in [(&copying, &mut copied), (&waiting, &mut waited)] {
            tokio::time::sleep(REST).await;
            let (took, session) = to_first_request(loopd, fake, &body).await?;
            samples.push(took);
            loopd.delete(&session).await?;
        }
    }
    copying.stop().await?;
    waiting.stop().await?;
    report.say(&format!(
        "From the request to the model request at the provider, {BOOTS} boots, then {COPIES} rounds of one copy and one machine that waited, ms:"
    ));
    let row = |name: &str, samples: &Samples| [&[name.to_owned()][..], &cells(samples)].concat();
    report.table(
        &["what", "p50", "p99", "p10 to p90"],
        &[
            row("the first session of its shape: a machine boots, becomes the template, and is copied", &booted),
            row("a session in a copy that is made for it", &copied),
            row("a session in a copy that waited", &waited),
        ],
    );
    report.figure("a copy / the first of its shape, p50 of each", copied.p50() / booted.p50(), Target::AtMost(0.5, ""));
    report.figure("one that waited / a copy, p50 of each", waited.p50() / copied.p50(), Target::AtMost(1.0, ""));
    Ok(())
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

async fn crowd(report: &mut Report, place: &Place, fake: &Fake, work: &Path, image: &Path) -> Result<()> {
    // Those of servers before go in a moment.
    let begun = Instant::now();
    while !machines()?.is_empty() {
        ensure!(
            begun.elapsed() < PATIENCE,
            "another program runs machines here; their memory would be counted as ours"
        );
        tokio::time::sleep(BREATH).await;
    }
    let loopd = serve(place, fake, &work.join("crowd"), image, "[microvm]\nwaiting = 2\n").await?;
    let body = request("workspace", Some("true"));
    let first = session_id(&loopd.invoke(&body).await?)?;
    loopd.delete(&first).await?;
    tokio::time::sleep(4 * REST).await;
    let waiting = process::memory(&machines()?);
    let begun = Instant::now();
    let before = available_kb()?;
    let mut sessions = Vec::new();
    for _ in 0..CROWD {
        sessions.push(session_id(&loopd.invoke(&body).await?)?);
    }
    let took = begun.elapsed();
    let alive = process::memory(&machines()?);
    let each = (before.saturating_sub(available_kb()?)) as f64 / CROWD as f64;
    ensure!(alive.processes >= CROWD, "only {} machines live", alive.processes);
    for session in &sessions {
        loopd.delete(session).await?;
    }
    loopd.stop().await?;
    let mb = |memory: process::Memory| short(memory.pss_kb as f64 / 1024.0 / memory.processes.max(1) as f64);
    report.say(&format!(
        "Memory of a machine, proportional set size, shared pages divided among all: {} MB each of {} that wait, {} MB each of {} of which {CROWD} \
         have run a command. They were started one after the other in {:.1} s, their commands included. Available memory fell by {} MB for each: \
         24 GB hold about {:.0} at once.",
        mb(waiting),
        waiting.processes,
        mb(alive),
        alive.processes,
        took.as_secs_f64(),
        short(each / 1024.0),
        24.0 * 1024.0 * 1024.0 / each.max(1.0),
    ));
    Ok(())
}

fn available_kb() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).context("no `MemAvailable` in /proc/meminfo")
}

async fn sleep(report: &mut Report, place: &Place, fake: &Fake, work: &Path, image: &Path) -> Result<()> {
    let data = work.join("sleep");
    let settings = format!("room_idle_seconds = {IDLE_SECONDS}\n[microvm]\nwaiting = 0\n");
    let loopd = serve(place, fake, &data, image, &settings).await?;
    // Random, so that nothing can be left out of it.
    let hold = format!(
        "python3 -c 'import os, time; held = os.urandom({}); time.sleep(10000)' > /dev/null 2>&1 & sleep 3; echo held",
        WORKING_SET_MB << 20
    );
    let [mut asleep, mut awake, mut bytes] = <[Samples; 3]>::default();
    let session = session_id(&loopd.invoke(&request("memory", Some(&hold))).await?)?;
    let memory = data.join("sessions").join(&session).join("machine.suspended");
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
