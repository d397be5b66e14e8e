//! What a room may use up, and that it is the room that suffers when it tries.

use super::Subject;
use std::time::Duration;

pub(super) async fn a_memory_bomb_ends_in_the_room(subject: &Subject) {
    let is_limited = subject.claims("memory limit").await;
    let mut spec = subject.spec();
    spec.limits.memory_bytes = 64 << 20;
    let mut room = subject.enter(&spec).await;
    // `tail` keeps its whole input, which has no line end.
    let bomb = room.tool("head -c 1000000000 /dev/zero | tail -n 1 | wc -c").await;
    // Where nothing limits the room, each of its processes is.
    assert_ne!(bomb.text.trim(), "1000000000", "{bomb:?}");
    assert_eq!(room.room().meter.reached().memory, is_limited);
    assert!(!room.room().meter.reached().memory, "it is told once");
    let filler = room.tool("head -c 1000000000 /dev/zero > /tmp/filler").await;
    assert_ne!(filler.status, 0, "{filler:?}");
    assert_eq!(room.tool("rm -f /tmp/filler; echo still here").await.text, "still here\n");
}

pub(super) async fn a_fork_bomb_ends_in_the_room(subject: &Subject) {
    let mut spec = subject.spec();
    spec.limits.pids = 40;
    let mut room = subject.enter(&spec).await;
    let bomb = room.tool("for i in $(seq 200); do sleep 1000 >/dev/null 2>&1 & done; wait").await;
    assert_ne!(bomb.status, 0, "200 processes were started where 40 may be");
    assert_eq!(room.room().meter.reached().processes, subject.claims("process limit").await);
    let count = room.cell("ls /proc | grep -c '^[0-9]'").await;
    let count: Option<u32> = count.text.trim().parse().ok();
    assert!(count.is_none_or(|count| count <= 42), "{count:?}");
    let mut neighbour = subject.enter(&subject.spec()).await;
    assert_eq!(neighbour.tool("echo unharmed").await.text, "unharmed\n");
}

pub(super) async fn a_busy_room_gets_its_part_of_the_processor(subject: &Subject) {
    if !subject.claims("processor limit").await {
        return;
    }
    let mut spec = subject.spec();
    spec.limits.cpu_millis = 100;
    let mut room = subject.enter(&spec).await;
    if subject.has_own_kernel() {
        // What the guest believes is one thing; what its machine takes of the host is the limit.
        let machine = room.room().guard.pid().expect("a machine is a process");
        let (begun, before) = (tokio::time::Instant::now(), seconds_of(machine));
        room.tool("timeout 2 bash -c 'while :; do :; done'").await;
        let part = (seconds_of(machine) - before) / begun.elapsed().as_secs_f64();
        assert!(part > 0.0 && part < 0.3, "{part}");
        return;
    }
    // A second long, on a machine that may have more to do: it can only be less.
    let burnt = room.tool("bash -c 'TIMEFORMAT=\"%U %S\"; time timeout 1 bash -c \"while :; do :; done\"' 2>&1").await;
    let seconds: f64 = burnt.text.split_whitespace().filter_map(|word| word.parse::<f64>().ok()).sum();
    assert!(seconds > 0.0 && seconds < 0.5, "{burnt:?}");
}

/// Processor time that a process of the host has used.
fn seconds_of(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

pub(super) async fn a_disk_filler_is_noticed(subject: &Subject) {
    if !subject.claims("disk use limit").await {
        return;
    }
    if subject.has_own_kernel() {
        return a_disk_is_as_large_as_its_limit(subject).await;
    }
    let mut spec = subject.spec();
    spec.limits.disk_bytes = 4 << 20;
    let mut room = subject.enter(&spec).await;
    for place in ["/workspace", "/home/agent", "/mnt/session/outputs"] {
        let wrote = room
            .tool(&format!("mkdir -p {place}/d && head -c 2000000 /dev/zero | tr '\\0' x > {place}/d/filler"))
            .await;
        assert_eq!(wrote.status, 0, "{wrote:?}");
    }
    let bytes = tokio::time::timeout(Duration::from_secs(60), room.room().meter.disk_full(true)).await;
    let bytes = bytes.expect("it is looked at");
    assert!((6_000_000..7_000_000).contains(&bytes), "{bytes}");
    assert_eq!(room.tool("rm -r /workspace/d && echo removed").await.text, "removed\n");
}

/// A filler gets no further than that, and it is told as well.
async fn a_disk_is_as_large_as_its_limit(subject: &Subject) {
    let mut spec = subject.spec();
    spec.limits.disk_bytes = 64 << 20;
    let mut room = subject.enter(&spec).await;
    let filled = room.tool("head -c 100000000 /dev/zero | tr '\\0' x > /workspace/filler").await;
    assert!(filled.status != 0 && filled.text.contains("No space left"), "{filled:?}");
    let bytes = tokio::time::timeout(Duration::from_secs(60), room.room().meter.disk_full(true)).await;
    let bytes = bytes.expect("it is told");
    assert!((32 << 20..=64 << 20).contains(&bytes), "{bytes}");
    assert_eq!(room.tool("rm /workspace/filler && echo x > /workspace/small && echo fine").await.text, "fine\n");
}

pub(super) async fn files_are_bounded(subject: &Subject) {
    let mut spec = subject.spec();
    spec.limits.file_bytes = 1 << 20;
    spec.limits.open_files = 64;
    let mut room = subject.enter(&spec).await;
    assert_eq!(room.tool("ulimit -n; ulimit -H -n; ulimit -c").await.text, "64\n64\n0\n");
    let wrote = room.tool("head -c 2000000 /dev/zero > big; stat -c %s big").await;
    assert!(wrote.text.lines().any(|line| line == "1048576"), "{wrote:?}");
}
