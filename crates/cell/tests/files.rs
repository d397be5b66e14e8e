//! The tools that are functions, through the real program: each in a process of its own that cannot harm the cell.

mod host;

use host::{Host, failed, is_root, runs, text, within};
use loopd_agent_loop::{Command, Input};
use loopd_domain::content::ContentBlock;
use loopd_domain::event::Outcome;
use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt;

/// The process of the first call.
fn first_child(host: &Host) -> String {
    let children = format!("/proc/{pid}/task/{pid}/children", pid = host.pid());
    let first = || fs::read_to_string(&children).ok()?.split_whitespace().next().map(str::to_owned);
    within("it runs", first)
}

#[test]
fn every_tool_answers() {
    let mut host = Host::start();
    let shown = host.directory().join("src/a.txt").display().to_string();
    let write = host.run("write", json!({"file_path": "src/a.txt", "content": "one\ntwo\n"}));
    assert_eq!((text(&write), write.is_error), (format!("wrote 8 bytes to {shown}").as_str(), false));
    let edit = host.run("edit", json!({"file_path": "src/a.txt", "old_string": "two", "new_string": "zwei"}));
    assert_eq!(text(&edit), format!("edited {shown} (1 replacement)"));
    assert_eq!(text(&host.run("read", json!({"file_path": "src/a.txt"}))), "one\nzwei\n");
    assert_eq!(text(&host.run("glob", json!({"pattern": "**/*.txt"}))), "src/a.txt");
    assert_eq!(text(&host.run("grep", json!({"pattern": "z.ei"}))), "src/a.txt:2:zwei");
    fs::write(host.directory().join("p.gif"), b"GIF89a\x01\0\x01\0").expect("written");
    let image = host.run("read", json!({"file_path": "p.gif"}));
    assert!(matches!(image.content.as_slice(), [ContentBlock::Image { .. }]), "{image:?}");
}

#[test]
fn a_process_for_functions_waits_while_the_model_thinks() {
    let mut host = Host::start();
    host.tools = vec!["read".into()];
    host.begin(&[]);
    assert!(matches!(host.batch().commands.as_slice(), [Command::CallModel { .. }]));
    let waiting = first_child(&host);
    fs::write(host.directory().join("f"), "content").expect("written");
    assert_eq!(text(&host.run("read", json!({"file_path": "f"}))), "content");
    assert_eq!(first_child(&host), waiting, "the call ran in another process");
}

#[test]
fn faults_are_results() {
    let mut host = Host::start();
    let absent = host.run("read", json!({"file_path": "absent"}));
    assert!(failed(&absent, Outcome::Completed).ends_with("No such file or directory (os error 2)"));
    let missing = host.run("grep", json!({}));
    assert_eq!(failed(&missing, Outcome::Completed), "`pattern` is missing or empty; accepted: a regular expression");
    let unknown = host.run("fly", json!({}));
    assert!(failed(&unknown, Outcome::NotRun).starts_with("no tool `fly` here; accepted: `bash`, `read`"));
}

#[test]
fn calls_of_one_step_run_side_by_side() {
    let mut host = Host::start();
    fs::write(host.directory().join("f"), "content").expect("written");
    let read = ("read", json!({"file_path": "f"}));
    let slow = ("bash", json!({"command": "sleep 0.5; n=$((n+1)); echo $n"}));
    let ids = host.begin(&[slow.clone(), read.clone(), slow, read]);
    let mut order = Vec::new();
    while order.len() < ids.len() {
        order.extend(host.batch().results.into_iter().map(|r| (r.id.clone(), text(&r).to_owned())));
    }
    let place = |n: usize| order.iter().position(|(id, _)| *id == ids[n]).expect("each call has a result");
    assert!(place(1) < place(0) && place(3) < place(0) && place(0) < place(2), "{order:?}");
    assert_eq!((order[place(0)].1.as_str(), order[place(2)].1.as_str()), ("1\n", "2\n"));
}

#[test]
fn a_worker_that_hangs_can_be_interrupted() {
    let mut host = Host::start();
    // Walking a large tree takes longer than this test.
    host.begin(&[("grep", json!({"pattern": "no such text anywhere [0-9]{40}x", "path": "/usr"}))]);
    let worker = first_child(&host);
    host.input(Input::Interrupt);
    let batch = host.batch();
    assert_eq!(
        failed(&batch.results[0], Outcome::Interrupted),
        "Tool execution was interrupted before completion. Please retry."
    );
    within("it is dead", || (!runs(&worker)).then_some(()));
}

#[test]
fn a_worker_that_dies_is_explained() {
    let mut host = Host::start();
    host.begin(&[("grep", json!({"pattern": "no such text anywhere [0-9]{40}x", "path": "/usr"}))]);
    let worker = first_child(&host);
    let pid = worker.parse().ok().and_then(rustix::process::Pid::from_raw).expect("one process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    let batch = host.batch();
    let text = failed(&batch.results[0], Outcome::Completed);
    assert!(text.starts_with("the process of `grep` was killed by signal 9"), "{text}");
}

#[test]
fn tools_run_as_their_own_user() {
    if !is_root("tools_run_as_their_own_user") {
        return;
    }
    let mut host = Host::start_as("1000", "");
    let facts = host.prints("id -u; id -g; id -G; grep -E 'CapEff|CapPrm|NoNewPrivs|SigBlk' /proc/self/status");
    let expected = "1000\n1000\n1000\nSigBlk:\t0000000000000000\nCapPrm:\t0000000000000000\n\
                    CapEff:\t0000000000000000\nNoNewPrivs:\t1\n";
    assert_eq!(facts, expected);
    let ignored = host.prints("sed -n 's/SigIgn:.//p' /proc/self/status");
    let ignored = u64::from_str_radix(ignored.trim(), 16).expect("a mask");
    assert_eq!(ignored & 0x7fff_ffff, 0, "no signal of programs is ignored: {ignored:x}");
    assert_eq!(host.prints("env | grep -c LOOPD; true"), "0\n");
    let cell = host.pid();
    let attack = format!("cat /proc/{cell}/environ; ls /proc/{cell}/fd; kill -9 {cell}; kill -0 {cell}");
    assert!(failed(&host.bash(&attack), Outcome::Completed).matches("ermi").count() >= 3);
    host.run("write", json!({"file_path": "f", "content": "x"}));
    let result = host.bash("head -c 300000 /dev/zero | tr '\\0' x");
    let spilled = host.directory().join("loopd").join(format!("{}.out", result.id));
    for path in [host.directory().join("f"), spilled] {
        assert_eq!(fs::metadata(&path).map(|m| m.uid()).ok(), Some(1000), "{}", path.display());
    }
    fs::write(host.directory().join("secret"), "x").expect("written");
    fs::set_permissions(host.directory().join("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("mode");
    assert!(
        failed(&host.run("read", json!({"file_path": "secret"})), Outcome::Completed).contains("Permission denied")
    );
}

#[test]
fn one_process_serves_many_calls_and_may_be_killed() {
    let mut host = Host::start();
    let path = host.directory().join("note");
    fs::write(&path, "here").expect("written");
    let read = |host: &mut Host| host.run("read", json!({"file_path": path}));
    assert_eq!(text(&read(&mut host)), "here");
    let others = format!("pgrep -P {} | grep -v $$", host.pid());
    let pid = host.prints(&others);
    for _ in 0..3 {
        assert_eq!(text(&read(&mut host)), "here");
        assert_eq!(host.prints(&others), pid, "the same one");
    }
    let pid_only = pid.trim();
    host.prints(&format!("kill -9 {pid_only}; while [ -d /proc/{pid_only} ]; do sleep 0.01; done"));
    assert_eq!(text(&read(&mut host)), "here");
    assert_ne!(host.prints(&others), pid);
    let large = "x".repeat(1 << 20);
    let written = host.run("write", json!({"file_path": host.directory().join("large"), "content": large}));
    assert!(!written.is_error, "{written:?}");
    assert_eq!(fs::read_to_string(host.directory().join("large")).expect("there"), large);
}

#[test]
fn a_shell_that_is_killed_leaves_the_process_of_the_other_tools() {
    let mut host = Host::start();
    fs::write(host.directory().join("note"), "here").expect("written");
    host.run("read", json!({"file_path": "note"}));
    let before = host.prints(&format!("pgrep -P {} | grep -v $$", host.pid()));
    host.run("bash", json!({"command": "sleep 60", "timeout_ms": 100}));
    assert_eq!(host.prints(&format!("pgrep -P {} | grep -v $$", host.pid())), before);
    assert_eq!(text(&host.run("read", json!({"file_path": "note"}))), "here");
}
