//! The cell's manners towards its host.

mod host;

use host::{Host, is_root, runs, text, within};
use loopd_agent_loop::{Command, Input};
use loopd_domain::Epoch;
use loopd_protocol::{FromCell, ToCell};
use serde_json::json;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

/// A host whose room has a shell with a job in the background; the pid of each.
fn busy() -> (Host, Vec<String>) {
    let mut host = Host::start();
    let pids = host.prints("(setsid sleep 100 & echo $!); sleep 101 & echo $! $$");
    let pids: Vec<String> = pids.split_whitespace().map(str::to_owned).collect();
    assert!(pids.len() == 3 && pids.iter().all(|pid| runs(pid)), "{pids:?}");
    (host, pids)
}

fn all_dead(pids: &[String]) {
    within("all are dead", || (!pids.iter().any(|pid| runs(pid))).then_some(()));
}

#[test]
fn the_room_ends_when_told() {
    let (mut host, pids) = busy();
    host.send(&ToCell::Shutdown);
    assert!(host.ended().success());
    all_dead(&pids);
}

#[test]
fn an_input_without_a_turn_is_reported() {
    let mut host = Host::start();
    host.input(Input::Interrupt);
    assert!(matches!(host.receive(), Some(FromCell::Log { .. })));
    assert!(matches!(host.prints("echo alive").as_str(), "alive\n"));
}

#[test]
fn each_batch_names_the_epoch_of_its_host() {
    let mut host = Host::start();
    for expected in 1..=3 {
        host.begin(&[]);
        let batch = host.batch();
        assert_eq!(batch.epoch, Epoch(expected));
        assert!(matches!(batch.commands.as_slice(), [Command::CallModel { step: 2, .. }]), "{batch:?}");
        host.dial_again();
        host.attach();
    }
}

#[test]
fn a_new_turn_ends_what_an_old_one_left_running() {
    let mut host = Host::start();
    host.begin(&[("bash", json!({"command": "echo $$ >pid; sleep 100"}))]);
    let pid = within("it runs", || fs::read_to_string(host.directory().join("pid")).ok().filter(|p| !p.is_empty()));
    assert_eq!(host.prints("echo new"), "new\n");
    all_dead(&[pid.trim().to_owned()]);
}

#[test]
fn a_host_that_does_not_read_gets_every_result_later() {
    let mut host = Host::start();
    let flood =
        ("bash", json!({"command": "for i in $(seq 20); do head -c 200000 /dev/zero | tr '\\0' x; sleep 0.11; done"}));
    let read = ("read", json!({"file_path": "big"}));
    fs::write(host.directory().join("big"), "y".repeat(250 << 10)).expect("written");
    let ids = host.begin(&[flood, read.clone(), read.clone(), read.clone(), read]);
    // Longer than the flood takes; meanwhile the socket is full.
    sleep(Duration::from_secs(4));
    let mut results = Vec::new();
    while results.len() < ids.len() {
        results.extend(host.batch().results);
    }
    let mut got: Vec<_> = results.iter().map(|r| r.id.clone()).collect();
    got.sort();
    assert_eq!(got, ids);
    assert_eq!(results.iter().filter(|r| text(r).len() == 250 << 10).count(), 4);
    let previewed: usize = host.previews.iter().map(|(_, text)| text.len()).sum();
    assert!(previewed < 1 << 20, "{previewed} bytes of previews were kept for a host that slept");
}

#[test]
fn as_first_process_of_a_room() {
    if !is_root("as_first_process_of_a_room") {
        return;
    }
    let mut host = Host::start_as("1000", "unshare --pid --fork --kill-child --mount --mount-proc");
    assert_eq!(host.prints("cat /proc/1/comm"), "loopd-cell\n");
    host.prints("for i in 1 2 3 4 5; do (setsid sh -c 'exit 0' &) ; done; sleep 0.2");
    assert_eq!(host.prints("ps -eo stat= | grep -c Z; true"), "0\n", "orphans are reaped");
    let bomb = "f() { f & f & }; ulimit -u 300; f; (trap '' TERM; sleep 100 & setsid sleep 101 & sleep 102)";
    let result = host.run("bash", json!({"command": bomb, "timeout_ms": 500}));
    assert!(result.is_error, "{result:?}");
    let left = within("all but us are dead", || {
        let left = host.prints("ps -eo comm= | sort | uniq -c | tr -s ' '");
        (!left.contains("sleep") && left.lines().count() <= 8).then_some(left)
    });
    assert!(left.contains("1 loopd-cell"), "{left}");
    host.send(&ToCell::Shutdown);
    assert!(host.ended().success());
}
