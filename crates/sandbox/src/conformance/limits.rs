//! What a room may use up, and that it is the room that suffers when it tries.

use super::Subject;

pub(super) async fn a_memory_bomb_ends_in_the_room(subject: &Subject) {
    if !subject.claims("memory limit").await {
        return;
    }
    let mut spec = subject.spec();
    spec.limits.memory_bytes = 64 << 20;
    let mut room = subject.enter(&spec).await;
    // `tail` keeps its whole input, which has no line end.
    let bomb = room.tool("head -c 1000000000 /dev/zero | tail -n 1 | wc -c").await;
    assert_ne!(bomb.text.trim(), "1000000000", "{bomb:?}");
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
    let count = room.cell("ls /proc | grep -c '^[0-9]'").await;
    let count: Option<u32> = count.text.trim().parse().ok();
    assert!(count.is_none_or(|count| count <= 42), "{count:?}");
    let mut neighbour = subject.enter(&subject.spec()).await;
    assert_eq!(neighbour.tool("echo unharmed").await.text, "unharmed\n");
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
