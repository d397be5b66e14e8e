//! How fast the SQLite store takes appends, and what one costs. Prints a table; asserts nothing.
//!
//! ```text
//! cargo run --release -p loopd-store --example load -- [directory] [seconds per row]
//! ```
//!
//! Each session plays steps as the loop does: an append of three entries (message, tool call, end of the request), then one
//! of two (tool result, start of the next request). The directory should be on the disk that is to be measured.

#![allow(clippy::disallowed_methods, reason = "a benchmark is its own composition root and reads the clock")]

use loopd_domain::content::ContentBlock;
use loopd_domain::event::{AnswerStop, EffectClass, EventBody, Intent, Outcome, Permission, RequestOutcome, RunsIn};
use loopd_domain::usage::{MicroUsd, Usage};
use loopd_store::Store;
use loopd_store::conformance::sample::{Pen, at, message, running, session};
use loopd_store::sqlite::SqliteStore;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().unwrap_or_else(|| ".".to_owned());
    let seconds = arguments.next().and_then(|s| s.parse().ok()).unwrap_or(5);
    println!(
        "sessions  appends/s   p50 µs   p99 µs   max µs   writer µs/append   checkpoint µs/append   all µs/append"
    );
    for sessions in [1, 32, 256] {
        let place = tempfile::tempdir_in(&directory).expect("a directory to write to");
        row(place.path(), sessions, Duration::from_secs(seconds)).await;
    }
}

async fn row(directory: &Path, sessions: usize, time: Duration) {
    let path = directory.join("loopd.db");
    let opened = Instant::now();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path).expect("a store"));
    let opened = opened.elapsed();
    let mut pens = Vec::new();
    for n in 0..sessions {
        let bodies = vec![message("go"), running(1), start(1)];
        pens.push(Pen::create(&store, session(at(n as i64)), bodies).await);
    }
    let (begin, before) = (Instant::now(), cpu());
    let mut players = tokio::task::JoinSet::new();
    for pen in pens {
        players.spawn(play(pen, begin + time));
    }
    let played = players.join_all().await;
    let (elapsed, after) = (begin.elapsed(), cpu());
    let mut waits: Vec<u128> = played.iter().flat_map(|(waits, _)| waits).copied().collect();
    let entries: u64 = played.iter().map(|(_, entries)| entries).sum();
    waits.sort_unstable();
    let appends = waits.len();
    let spent = |name: &str| (after.of(name) - before.of(name)) as f64 / appends as f64 / 1_000.0;
    println!(
        "{sessions:8}  {:9.0}  {:7}  {:7}  {:7}  {:17.1}  {:21.1}  {:14.1}",
        appends as f64 / elapsed.as_secs_f64(),
        waits[appends / 2],
        waits[appends * 99 / 100],
        waits[appends - 1],
        spent("store-writer"),
        spent("store-checkpoin"),
        spent(""),
    );
    drop(played);
    let log = std::fs::metadata(directory.join("loopd.db-wal")).map_or(0, |m| m.len());
    drop(store);
    let bytes = std::fs::metadata(&path).expect("there").len();
    println!(
        "          opened in {} ms; {entries} entries, {} bytes each on disk; log {} MiB",
        opened.as_millis(),
        bytes / entries,
        log >> 20
    );
}

/// Appends until the time is up. Returns each append's wait in microseconds, and the entries.
async fn play(mut pen: Pen, end: Instant) -> (Vec<u128>, u64) {
    let mut waits = Vec::new();
    let mut step = 1;
    while Instant::now() < end {
        let request = pen.session.fold.turn.as_ref().and_then(|t| t.request.as_ref()).expect("a request").id.clone();
        let answer = vec![said(), call(step), ended(request)];
        waits.push(timed(&mut pen, answer).await);
        let call = pen.session.fold.turn.as_ref().expect("a turn").calls[0].id.clone();
        step += 1;
        waits.push(timed(&mut pen, vec![result(call), start(step)]).await);
    }
    (waits, pen.session.fold.last_seq)
}

async fn timed(pen: &mut Pen, bodies: Vec<EventBody>) -> u128 {
    let append = pen.draft(bodies);
    let begin = Instant::now();
    pen.write(append).await.expect("appended");
    begin.elapsed().as_micros()
}

fn start(step: u32) -> EventBody {
    let (model, request_digest) = ("builtin/script".to_owned(), "0".repeat(64));
    EventBody::ModelRequestStart { step, attempt: 1, model, request_digest, messages: step * 2 }
}

fn said() -> EventBody {
    let text = "I will look at the directory and then decide what to change first.";
    EventBody::AgentMessage { content: vec![ContentBlock::text(text)], partial: false }
}

fn call(step: u32) -> EventBody {
    EventBody::AgentToolUse {
        name: "bash".to_owned(),
        input: serde_json::json!({"command": format!("ls -la /workspace/project/{step}")}),
        evaluated_permission: Permission::Allow,
        call: Intent {
            provider_call_id: format!("toolu_{step:024}"),
            runs_in: RunsIn::Room,
            effect: EffectClass::Room,
            arguments_digest: "0".repeat(64),
            malformed: None,
            raw_arguments: None,
            native: None,
        },
    }
}

fn ended(model_request_start_id: loopd_domain::EventId) -> EventBody {
    EventBody::ModelRequestEnd {
        model_request_start_id,
        is_error: false,
        model_usage: Usage { input_tokens: 1_200, output_tokens: 80, ..Usage::default() },
        outcome: RequestOutcome::Answered { stop: AnswerStop::ToolUse, stop_details: None },
        cost: Some(MicroUsd(1_234)),
        first_token_ms: Some(12),
        provider_request_id: Some("req_0123456789".to_owned()),
        response_model: Some("builtin/script".to_owned()),
    }
}

fn result(tool_use_id: loopd_domain::EventId) -> EventBody {
    EventBody::AgentToolResult {
        tool_use_id,
        content: vec![ContentBlock::text("-rw-r--r-- 1 agent agent 4096 Nov 23 20:06 file\n".repeat(4))],
        is_error: false,
        outcome: Outcome::Completed,
        duration_ms: 3,
    }
}

/// Processor time of this process's threads so far, in nanoseconds, by name.
struct Cpu(Vec<(String, u64)>);

impl Cpu {
    /// Of threads whose name begins so.
    fn of(&self, name: &str) -> u64 {
        self.0.iter().filter(|(n, _)| n.starts_with(name)).map(|(_, ns)| ns).sum()
    }
}

fn cpu() -> Cpu {
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc is mounted");
    let read = |path: std::path::PathBuf, file| std::fs::read_to_string(path.join(file)).unwrap_or_default();
    let of = |task: std::io::Result<std::fs::DirEntry>| {
        let path = task.expect("readable").path();
        let spent = read(path.clone(), "schedstat");
        (read(path, "comm"), spent.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0))
    };
    Cpu(tasks.map(of).collect())
}
