//! A new session: from the request to the first model request leaving the host, with a room that waits and with a
//! cell that is started for it, in turn with a start of bubblewrap.

use crate::fake::Fake;
use crate::floor::Floor;
use crate::loopd::{Event, Loopd, check_turn};
use crate::ours::{Via, request, session_id};
use crate::place::Place;
use crate::report::{Report, Target, cells, short};
use crate::stats::Samples;
use crate::subject::Turn;
use crate::wall;
use anyhow::{Context, Result, ensure};
use loopd_domain::Timestamp;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::time::Instant;

const ROUNDS: usize = 200;
const WARM_UP: usize = 5;
/// Lets the kernel finish taking the last room down, ours and theirs, before the next one is timed.
const REST: Duration = Duration::from_millis(15);

/// All namespaces, a read-only /usr, its own /proc, /dev and /tmp: the nearest to a room that bubblewrap builds.
pub const BWRAP: &str = "--unshare-all --ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib \
    --symlink usr/lib64 /lib64 --proc /proc --dev /dev --tmpfs /tmp /bin/true";

/// One start of a session, in milliseconds from the request.
struct Start {
    whole: f64,
    accepted: f64,
    asked: f64,
}

#[derive(Default)]
struct Taken {
    whole: Samples,
    accepted: Samples,
    asked: Samples,
    leaving: Samples,
    started: Samples,
    bwrap: Samples,
    floor: Samples,
}

pub async fn run(place: &Place) -> Result<Report> {
    let fake = Fake::start().await?;
    let work = tempfile::tempdir_in(&place.work)?;
    let loopd = Loopd::start(&place.loopd, &work.path().join("loopd"), &fake).await?;
    let building = Loopd::start_without_waiting_rooms(&place.loopd, &work.path().join("building"), &fake).await?;
    let floor = Floor::new()?;
    let mut taken = Taken::default();
    for round in 0..WARM_UP + ROUNDS {
        let theirs = start_bwrap().await?;
        tokio::time::sleep(REST).await;
        let ours = start_session(&loopd, &fake).await?;
        tokio::time::sleep(REST).await;
        let started = start_session(&building, &fake).await?;
        tokio::time::sleep(REST).await;
        let least = floor.take(&loopd, &fake).await?;
        tokio::time::sleep(REST).await;
        if round >= WARM_UP {
            taken.floor.push(least);
            taken.bwrap.push(theirs);
            taken.started.push(started.whole);
            taken.whole.push(ours.whole);
            taken.accepted.push(ours.accepted);
            taken.asked.push(ours.asked - ours.accepted);
            taken.leaving.push(ours.whole - ours.asked);
        }
    }
    loopd.stop().await?;
    building.stop().await?;
    Ok(tell(&taken))
}

fn tell(taken: &Taken) -> Report {
    let mut report = Report::new("start");
    report.say(&format!("{ROUNDS} rounds, one of each in turn, ms:"));
    let row = |name: &str, samples: &Samples| [&[name.to_owned()][..], &cells(samples)].concat();
    report.table(
        &["what", "p50", "p99", "p10 to p90"],
        &[
            row("**loopd**: `POST /v1/invoke`, new session, to the model request at the provider", &taken.whole),
            row("of which: until the input has its time (request read and checked)", &taken.accepted),
            row("of which: until the cell's question has its time (room claimed, loop begun)", &taken.asked),
            row("of which: until it arrives (request sent, while session and question go to disk)", &taken.leaving),
            row(
                "**loopd** without waiting rooms: the same, the cell started for the session, in walls that were there",
                &taken.started,
            ),
            row("bubblewrap, all namespaces, `/bin/true`", &taken.bwrap),
            row(
                "what it could not be less than: the same server answers a request with 404, a warm client's request \
                 arrives at the provider",
                &taken.floor,
            ),
        ],
    );
    let rows = [
        ("a waiting room", &taken.whole),
        ("a cell started for it", &taken.started),
        ("what it could not be less than", &taken.floor),
    ];
    for (name, samples) in rows {
        let ratio = samples.over(&taken.bwrap);
        let (low, high) = ratio.spread();
        let (p50, low, high) = (short(ratio.p50()), short(low), short(high));
        report.say(&format!("Ratio of each round with {name} to bubblewrap: p50 {p50} ({low} to {high})."));
    }
    let over = |samples: &Samples| samples.p50() / taken.bwrap.p50();
    report.figure("a waiting room / bubblewrap, p50 of each", over(&taken.whole), Target::AtMost(0.125, ""));
    report.figure("a cell started for it / bubblewrap, p50 of each", over(&taken.started), Target::AtMost(0.75, ""));
    report
}

async fn start_session(loopd: &Loopd, fake: &Fake) -> Result<Start> {
    fake.take_arrival();
    let body = request(Turn { tool: "read", steps: 0 }, Via::Http);
    let (sent_at, sent) = (wall::now(), Instant::now());
    let answer = loopd.invoke(&body).await?;
    let arrival = fake.take_arrival().context("no model request arrived")?;
    let id = session_id(&answer)?;
    let events = loopd.events(&id).await?;
    check_turn(&events, 0)?;
    loopd.delete(&id).await?;
    let after = |kind: &str| Ok::<f64, anyhow::Error>((first(&events, kind)?.micros() - sent_at.micros()) as f64 / 1e3);
    Ok(Start {
        whole: (arrival - sent).as_secs_f64() * 1e3,
        accepted: after("user.message")?,
        asked: after("span.model_request_start")?,
    })
}

fn first(events: &[Event], kind: &str) -> Result<Timestamp> {
    let event = events.iter().find(|e| e.kind == kind).with_context(|| format!("no `{kind}` in the history"))?;
    event.at.with_context(|| format!("`{kind}` has no time"))
}

/// Milliseconds from starting the program to its end.
async fn start_bwrap() -> Result<f64> {
    tokio::task::spawn_blocking(|| {
        let start = Instant::now();
        let mut command = Command::new("bwrap");
        command.args(BWRAP.split_whitespace()).stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.status().context("starting `bwrap`; the Debian package is `bubblewrap`")?;
        let took = start.elapsed().as_secs_f64() * 1e3;
        ensure!(status.success(), "`bwrap` failed: {status}");
        Ok(took)
    })
    .await?
}
