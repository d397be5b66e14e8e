//! `bash` as the model sees it, through the real program.

mod host;

use host::{Host, failed, is_root, runs, text, within};
use loopd_agent_loop::Input;
use loopd_domain::content::ContentBlock;
use loopd_domain::event::Outcome;
use loopd_domain::limits::TOOL_RESULT_BYTES_MAX;
use loopd_protocol::ToCell;
use serde_json::json;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

const INTERRUPTED: &str = "Tool execution was interrupted before completion. Please retry.";

#[test]
fn the_shell_keeps_its_state() {
    let mut host = Host::start();
    assert_eq!(host.prints("mkdir d; cd d; x=1; export y=2; f() { echo f$x$y; }"), "(no output)");
    assert_eq!(host.prints("f; basename $PWD"), "f12\nd\n");
    assert_eq!(host.prints("sleep 100 & echo $!").trim().parse::<u32>().map(|_| ()), Ok(()));
    assert_eq!(host.prints("jobs | grep -c sleep"), "1\n");
}

#[test]
fn output_and_errors_come_in_order() {
    let mut host = Host::start();
    assert_eq!(host.prints("echo a; echo b >&2; echo c; (echo d >&2); echo e"), "a\nb\nc\nd\ne\n");
    assert_eq!(host.prints(r"printf '\033[31mred\033[0m é\n'"), "red é\n");
    assert_eq!(host.prints(r"printf 'a\0b\377c'"), "a\u{fffd}b\u{fffd}c");
}

#[test]
fn a_failure_states_its_status() {
    let mut host = Host::start();
    assert_eq!(failed(&host.bash("echo x; (exit 7)"), Outcome::Completed), "x\n[exit status 7]");
    assert_eq!(failed(&host.bash("false"), Outcome::Completed), "[exit status 1]");
    assert!(
        failed(&host.bash("no-such-program"), Outcome::Completed).ends_with("command not found\n[exit status 127]")
    );
    assert_eq!(host.prints("echo still here"), "still here\n");
}

#[test]
fn no_command_breaks_out_of_its_line() {
    let mut host = Host::start();
    assert!(failed(&host.bash("echo 'open"), Outcome::Completed).contains("unexpected EOF"));
    assert!(failed(&host.bash("f=(1 2"), Outcome::Completed).contains("unexpected EOF"));
    assert_eq!(host.prints("echo it\\'s \"'\" # and a comment '"), "it's '\n");
    assert_eq!(host.prints("cat <<'END'\n$x 'y' \"z\"\nEND"), "$x 'y' \"z\"\n");
    assert!(text(&host.bash("cat <<END\nno end")).contains("no end"));
    assert_eq!(host.prints("echo a \\"), "a \\\n");
    assert_eq!(host.prints(&format!("x='{}'; echo ${{#x}}", "y\n".repeat(100_000))), "200000\n");
    assert_eq!(host.prints("echo still here"), "still here\n");
}

#[test]
fn commands_read_nothing() {
    let mut host = Host::start();
    assert_eq!(host.prints("cat; read x; echo \"[$x]\""), "[]\n");
    assert_eq!(host.prints("bash -c 'cat'; echo end"), "end\n");
}

#[test]
fn an_end_of_the_shell_is_said_and_the_next_one_is_fresh() {
    let mut host = Host::start();
    let says = |status: u8| format!("[the shell ended with exit status {status}; the next call starts a fresh shell");
    host.prints("x=1; trap 'echo bye' EXIT");
    let result = host.bash("echo out; exit 3");
    assert!(failed(&result, Outcome::Completed).starts_with(&format!("out\nbye\n{}", says(3))), "{result:?}");
    assert_eq!(host.prints("echo [$x]"), "[]\n");
    let result = host.bash("exit");
    assert!(!result.is_error && text(&result).starts_with(&says(0)), "{result:?}");
    assert!(text(&host.bash("exec echo gone")).starts_with(&format!("gone\n{}", says(0))));
    host.prints("set -e");
    assert!(failed(&host.bash("false"), Outcome::Completed).starts_with(&says(1)));
    assert!(failed(&host.bash("kill -9 $$"), Outcome::Completed).starts_with("[the shell was killed by signal 9"));
    assert!(failed(&host.bash("echo ${unset?}"), Outcome::Completed).contains("[the shell ended with exit status 1"));
    assert_eq!(host.prints("echo ok"), "ok\n");
}

#[test]
fn descriptors_of_the_shell_are_out_of_reach() {
    let mut host = Host::start();
    host.prints("exec >/dev/null 2>&1");
    assert_eq!(host.prints("echo seen"), "seen\n");
    host.prints("exec >&- 2>&-; exec <&-");
    assert_eq!(host.prints("echo seen"), "seen\n");
    let result = host.bash("echo 'sevt_1 0' >&250; echo 'sevt_4 0' >&251; echo sevt_5 0; sleep 0.1; echo end; false");
    let text = failed(&result, Outcome::Completed);
    assert!(text.ends_with("sevt_5 0\nend\n[exit status 1]") && text.contains("250: Bad file descriptor"), "{text}");
    assert_eq!(host.prints("ls -l /proc/self/fd | grep -c pipe:"), "2\n", "standard error, and the pipe to grep");
    assert_eq!(host.prints("set -x; echo traced; set +x"), "++ echo traced\ntraced\n++ set +x\n");
}

#[test]
fn a_directory_that_is_gone() {
    let mut host = Host::start();
    host.prints("mkdir gone; cd gone; rmdir ../gone");
    assert_eq!(host.prints("echo here"), "here\n");
    assert!(failed(&host.bash("ls ./x"), Outcome::Completed).contains("No such file"));
    assert_eq!(host.prints("cd / && pwd"), "/\n");
}

#[test]
fn a_background_job_does_not_hold_its_call() {
    let mut host = Host::start();
    let result = host.bash("sleep 100 & (sleep 0.3; echo late) & echo started");
    assert_eq!((text(&result), result.is_error), ("started\n", false));
    assert!(result.duration_ms < 5_000, "{result:?}");
    sleep(Duration::from_millis(600));
    assert_eq!(host.prints("echo next"), "late\nnext\n");
    assert_eq!(host.prints("yes & disown; sleep 0.2; kill $!; echo over").lines().next(), Some("y"));
}

#[test]
fn at_the_limit_all_is_killed() {
    let mut host = Host::start();
    let command = "trap '' TERM INT HUP; bash -c 'trap \"\" TERM; echo $$ >a; sleep 100' &
        setsid sleep 101 & echo $! >b; (setsid bash -c 'echo $$ >c; exec sleep 102' &) ; while [ ! -s a -o ! -s c ]; do :; done
        echo before; sleep 103";
    let result = host.run("bash", json!({"command": command, "timeout_ms": 2000}));
    let text = failed(&result, Outcome::TimedOut);
    assert!(text.starts_with("before\n[the command ran into its time limit of 2000 ms; it and the shell were killed."));
    assert!((2_000..8_000).contains(&result.duration_ms), "{result:?}");
    for file in ["a", "b", "c"] {
        let pid = fs::read_to_string(host.directory().join(file)).expect("a pid");
        within("it is dead", || (!runs(pid.trim())).then_some(()));
    }
    assert_eq!(host.prints("echo fresh"), "fresh\n");
}

#[test]
fn variables_of_the_host_are_there_from_the_next_command_on() {
    let mut host = Host::start();
    let set = |host: &mut Host, pairs: &[(&str, &str)]| {
        host.variables = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    };
    let seen = "bash -c 'echo \"[$TOKEN] [$OTHER]\"'";
    set(&mut host, &[("TOKEN", "first")]);
    assert_eq!(host.prints(seen), "[first] []\n", "in a fresh shell");
    host.prints("x=kept");
    set(&mut host, &[("TOKEN", "it's; echo \"$HOME\"\nsecond"), ("OTHER", "o")]);
    assert_eq!(host.prints(seen), "[it's; echo \"$HOME\"\nsecond] [o]\n");
    assert_eq!(host.prints("echo $x"), "kept\n", "the shell is the same");
    // What a command makes of one stays, for as long as the host's is the same.
    host.prints("export TOKEN=own");
    assert_eq!(host.prints(seen), "[own] [o]\n");
    set(&mut host, &[("TOKEN", "third")]);
    assert_eq!(host.prints(seen), "[third] []\n");
    assert_eq!(text(&host.run("bash", json!({"restart": true}))), "bash session restarted");
    assert_eq!(host.prints(seen), "[third] []\n");
    host.prints("set -x");
    set(&mut host, &[("TOKEN", "fourth")]);
    assert!(!host.prints("true").contains("fourth"), "our line is not traced");
}

#[test]
fn restart() {
    let mut host = Host::start();
    let pid = host.prints("x=1; sleep 100 & echo $!");
    assert_eq!(text(&host.run("bash", json!({"restart": true}))), "bash session restarted");
    within("it is dead", || (!runs(pid.trim())).then_some(()));
    assert_eq!(host.prints("echo [$x]"), "[]\n");
    let both = host.run("bash", json!({"restart": true, "command": "echo hi"}));
    assert_eq!(text(&both), "bash session restarted\nhi\n");
}

#[test]
fn an_interrupt_ends_the_command_at_once() {
    let mut host = Host::start();
    let ids = host.begin(&[
        ("bash", json!({"command": "echo $$ >pid; echo begun; sleep 100"})),
        ("bash", json!({"command": "touch never"})),
    ]);
    let pid = within("it runs", || fs::read_to_string(host.directory().join("pid")).ok().filter(|p| !p.is_empty()));
    sleep(Duration::from_millis(50));
    host.input(Input::Interrupt);
    let batch = host.batch();
    assert_eq!(batch.results.iter().map(|r| r.id.clone()).collect::<Vec<_>>(), ids);
    assert!(batch.results.iter().all(|r| r.outcome == Outcome::Interrupted && r.is_error), "{batch:?}");
    assert_eq!(text(&batch.results[0]), format!("{INTERRUPTED}\nOutput until then:\nbegun\n"));
    assert_eq!(text(&batch.results[1]), INTERRUPTED);
    within("it is dead", || (!runs(pid.trim())).then_some(()));
    assert_eq!(host.prints("ls"), "pid\n");
}

#[test]
fn long_output_is_previewed() {
    let mut host = Host::start();
    let result = host.bash("for i in 1 2 3 4 5 6; do echo line $i; sleep 0.1; done");
    let previewed: String = host.previews.iter().map(|(_, text)| text.as_str()).collect();
    assert!((2..=7).contains(&host.previews.len()), "{:?}", host.previews);
    assert!(host.previews.iter().all(|(id, _)| *id == result.id));
    assert!(text(&result).starts_with(&previewed) && previewed.contains("line 2\n"), "{previewed}");
    host.previews.clear();
    host.prints("echo quick");
    assert!(host.previews.is_empty(), "a short command is told once");
}

#[test]
fn a_flood_fills_a_file_and_not_the_memory() {
    let mut host = Host::start();
    host.prints("true");
    let result = host.bash("yes 0123456789abcde | head -c 64M; echo end");
    let text = text(&result);
    assert!(text.len() <= TOOL_RESULT_BYTES_MAX && text.ends_with("abcde\nend\n"), "{} bytes", text.len());
    let file = host.directory().join("loopd").join(format!("{}.out", result.id));
    assert!(text.contains(&format!("the whole output is in `{}`", file.display())), "{}", &text[51_000..51_500]);
    assert_eq!(fs::metadata(&file).expect("the file").len(), (64 << 20) + 4);
    assert!(host.peak_kib() < 16 << 10, "{} KiB", host.peak_kib());
}

#[test]
fn a_flood_beyond_what_the_room_allows_is_stopped() {
    let mut host = Host::start();
    host.limits.output_bytes = 1 << 20;
    assert_eq!(host.prints("head -c 1000000 /dev/zero | tr '\\0' x | wc -c"), "1000000\n");
    let result = host.bash("echo $$ >pid; yes");
    let says = "[The room's output limit of 1 MiB was reached: more was printed. The command and the shell were killed; the next";
    assert!(failed(&result, Outcome::Completed).contains(says), "{result:?}");
    let pid = fs::read_to_string(host.directory().join("pid")).expect("a pid");
    within("it is dead", || (!runs(pid.trim())).then_some(()));
    // The count is of each call, and what a job in the background prints is stopped as well.
    assert_eq!(host.prints("echo fresh"), "fresh\n");
    host.prints("(sleep 0.2; echo $BASHPID >job; exec yes) & true");
    let job = within("it prints", || fs::read_to_string(host.directory().join("job")).ok().filter(|p| !p.is_empty()));
    within("it is dead", || (!runs(job.trim())).then_some(()));
    let next = host.prints("echo next");
    assert!(next.contains("The shell and its background jobs were killed; this is a fresh one]\nnext\n"), "{next}");
}

#[test]
fn no_call_runs_longer_than_the_room_allows() {
    let mut host = Host::start();
    host.limits.seconds = 1;
    let result = host.run("bash", json!({"command": "echo a; sleep 100", "timeout_ms": 50_000}));
    let says = "a\n[the room's limit of 1 s for one call was reached; it and the shell were killed.";
    assert!(failed(&result, Outcome::TimedOut).starts_with(says), "{result:?}");
    let result = host.run("bash", json!({"command": "sleep 100", "timeout_ms": 200}));
    assert!(failed(&result, Outcome::TimedOut).starts_with("[the command ran into its time limit of 200 ms;"));
}

#[test]
fn a_host_that_sees_a_limit_stops_what_runs_and_the_next_call_is_fine() {
    let mut host = Host::start();
    let ids = host.begin(&[
        ("bash", json!({"command": "(setsid sleep 100 & echo $! >orphan); echo begun; sleep 100"})),
        ("bash", json!({"command": "echo second"})),
    ]);
    let orphan =
        within("it runs", || fs::read_to_string(host.directory().join("orphan")).ok().filter(|p| !p.is_empty()));
    sleep(Duration::from_millis(50));
    host.send(&ToCell::Stop { message: "The room's disk limit was reached.".to_owned() });
    let mut results = Vec::new();
    while results.len() < 2 {
        results.extend(host.batch().results);
    }
    assert_eq!(results.iter().map(|r| r.id.clone()).collect::<Vec<_>>(), ids);
    let says = "begun\n[The room's disk limit was reached. The command and the shell were killed; the next call";
    assert!(failed(&results[0], Outcome::Completed).starts_with(says), "{results:?}");
    assert_eq!(text(&results[1]), "second\n", "one that only waited is run");
    within("it is dead", || (!runs(orphan.trim())).then_some(()));
    // With nothing to stop nothing happens, and nobody but a shell is told.
    host.send(&ToCell::Stop { message: "The room's disk limit was reached.".to_owned() });
    let next = host.prints("echo next");
    assert!(next.starts_with("[The room's disk limit was reached. The shell") && next.ends_with("]\nnext\n"), "{next}");
    let found = host.run("glob", json!({"pattern": "*"}));
    assert!(!found.is_error, "{found:?}");
}

#[test]
fn bad_input_is_told_and_nothing_runs() {
    let mut host = Host::start();
    for bad in [json!({}), json!({"command": 1}), json!({"command": "touch x", "timeout_ms": 0}), json!("touch x")] {
        let result = host.run("bash", bad);
        assert!(failed(&result, Outcome::Completed).contains("accepted: "), "{result:?}");
    }
    assert_eq!(host.prints("ls"), "(no output)");
}

#[test]
fn a_tool_of_another_user_can_open_its_output_by_name() {
    if !is_root("a_tool_of_another_user_can_open_its_output_by_name") {
        return;
    }
    let mut host = Host::start_as("1000", "");
    assert_eq!(host.prints("id -u; echo out > /proc/self/fd/1; echo err > /proc/self/fd/2"), "1000\nout\nerr\n");
}

#[test]
fn a_room_without_bash() {
    if !is_root("a_room_without_bash") {
        return;
    }
    let hide = r#"unshare --mount /bin/sh -c 'mount --bind /dev/null /usr/bin/bash && exec "$0"'"#;
    let mut host = Host::start_as("same", hide);
    let result = host.bash("touch x");
    let text = failed(&result, Outcome::Completed);
    assert!(
        text.starts_with("`/bin/bash` could not be started: Permission denied (os error 13)\n[the shell ended"),
        "{text}"
    );
    assert_eq!(host.run("glob", json!({"pattern": "*"})).content, [ContentBlock::text("no matches")]);
}
