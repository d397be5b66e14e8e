//! Hosts come and go: what runs goes on, what has ended is kept, and only the latest host is obeyed.

mod host;

use host::{Host, attach, failed, frames, runs, text, within};
use loopd_agent_loop::{Call, Command, Input};
use loopd_domain::event::Outcome;
use loopd_protocol::{FromCell, VERSION};
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// A host whose cell runs a command that says so and then waits for a file `go`.
fn waiting() -> (Host, Call) {
    let mut host = Host::start();
    let command = "echo started >>effects; until [ -e go ]; do sleep 0.02; done; echo done";
    let call = host.call("bash", json!({ "command": command }));
    host.begin_with(vec![call.clone()]);
    within("it runs", || fs::read_to_string(host.directory().join("effects")).ok());
    (host, call)
}

fn go(host: &Host) {
    fs::write(host.directory().join("go"), "").expect("written");
}

/// What was said on a connection until it was closed.
fn last_words(mut channel: UnixStream) -> Vec<FromCell> {
    let (mut bytes, mut decoder) = (Vec::new(), loopd_protocol::codec::Decoder::default());
    channel.read_to_end(&mut bytes).expect("closed");
    decoder.push(&bytes);
    std::iter::from_fn(|| decoder.next().expect("a frame")).collect()
}

#[test]
fn a_call_goes_on_without_a_host_and_its_result_is_the_next_ones() {
    let (mut host, call) = waiting();
    drop(host.dial_again());
    assert_eq!(host.attach(), std::slice::from_ref(&call.id));
    host.begin_with(vec![call.clone()]);
    go(&host);
    let batch = host.batch();
    assert_eq!((text(&batch.results[0]), &batch.results[0].id), ("done\n", &call.id));
    assert!(matches!(batch.commands.as_slice(), [Command::CallModel { .. }]), "{batch:?}");
    assert_eq!(fs::read_to_string(host.directory().join("effects")).expect("written"), "started\n", "started once");
}

#[test]
fn a_result_that_nobody_took_is_kept_until_a_next_step() {
    let (mut host, call) = waiting();
    drop(host.dial_again());
    go(&host);
    within("it ends", || fs::read_to_string(host.directory().join("effects")).ok());
    // Again and again: a host that vanishes before the journal has it asks anew.
    for _ in 0..3 {
        assert_eq!(host.attach(), std::slice::from_ref(&call.id));
        host.begin_with(vec![call.clone()]);
        assert_eq!(text(&host.batch().results[0]), "done\n");
        host.dial_again();
    }
    assert_eq!(fs::read_to_string(host.directory().join("effects")).expect("written"), "started\n", "started once");
    host.attach();
    host.begin(&[]);
    host.batch();
    host.dial_again();
    assert_eq!(host.attach(), Vec::new(), "a turn without it needs its result no more");
}

#[test]
fn what_the_next_host_does_not_want_is_stopped() {
    let (mut host, _) = waiting();
    drop(host.dial_again());
    host.attach();
    host.begin(&[]);
    assert!(host.batch().results.is_empty());
    assert_eq!(host.prints("echo alive"), "alive\n", "the shell is free again");
}

#[test]
fn a_call_that_was_interrupted_meanwhile_ends_for_the_next_host() {
    let (mut host, call) = waiting();
    drop(host.dial_again());
    host.attach();
    host.begin_with(vec![call]);
    host.input(Input::Interrupt);
    failed(&host.batch().results[0], Outcome::Interrupted);
}

#[test]
fn the_latest_host_is_obeyed_and_the_one_before_is_cut_off() {
    let (mut host, call) = waiting();
    let before = host.dial_again();
    assert_eq!(host.attach(), std::slice::from_ref(&call.id));
    assert!(last_words(before).iter().all(|frame| matches!(frame, FromCell::Output { .. })));
    let mut zombie = host.dial_again();
    std::mem::swap(&mut zombie, &mut host.channel);
    zombie.write_all(&frames(&[attach(VERSION, 1)])).expect("sent");
    let message = "epoch `1` is over; accepted: from 2".to_owned();
    assert_eq!(last_words(zombie), [FromCell::Log { message }]);
    host.begin_with(vec![call]);
    go(&host);
    assert_eq!(text(&host.batch().results[0]), "done\n");
}

#[test]
fn what_a_stranger_says_costs_its_own_connection_only() {
    let mut host = Host::start();
    let refused = |host: &mut Host, bytes: &[u8], why: &str| {
        let ours = host.dial_again();
        let mut stranger = std::mem::replace(&mut host.channel, ours);
        stranger.write_all(bytes).expect("sent");
        let words = last_words(stranger);
        assert!(matches!(words.as_slice(), [FromCell::Log { message }] if message.contains(why)), "{words:?}");
    };
    let version = format!("version `{}` of the protocol; accepted: {VERSION}", VERSION + 1);
    refused(&mut host, &frames(&[attach(VERSION + 1, 9)]), &version);
    refused(&mut host, b"\x02\0\0\0xx", "cannot be read");
    refused(&mut host, b"\xff\xff\xff\xff", "at most");
    refused(&mut host, &frames(&[loopd_protocol::ToCell::Shutdown]), "the first frame");
    let another = r#"{"frame":"attach","version":2,"session":"sesn_2","epoch":9}"#;
    let another = [&(another.len() as u32).to_le_bytes()[..], another.as_bytes()].concat();
    refused(&mut host, &another, "another session");
    // Silent ones make way.
    let _silent: Vec<UnixStream> = (0..20)
        .map(|_| {
            let ours = host.dial_again();
            std::mem::replace(&mut host.channel, ours)
        })
        .collect();
    assert_eq!(host.prints("echo alive"), "alive\n");
}

#[test]
fn garbage_of_the_host_ends_its_connection_and_not_the_room() {
    let mut host = Host::start();
    assert_eq!(host.prints("x=kept; echo set"), "set\n");
    host.channel.write_all(b"\xff\xff\xff\xff").expect("sent");
    assert!(matches!(host.receive(), Some(FromCell::Log { .. })));
    assert_eq!(host.receive(), None);
    host.dial_again();
    host.attach();
    assert_eq!(host.prints("echo $x"), "kept\n");
}

#[test]
fn a_room_waits_for_its_first_host_as_long_as_that_stays_connected() {
    let mut host = Host::launch("same", "", "1");
    // Longer than it would be alone; slower is fine.
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    assert_eq!(host.attach(), Vec::new());
    assert_eq!(host.prints("echo alive"), "alive\n");
    let mut host = Host::launch("same", "", "1");
    host.channel.shutdown(std::net::Shutdown::Both).expect("closed");
    assert!(host.ended().success());
}

#[test]
fn a_room_that_no_host_wants_ends() {
    let mut host = Host::launch("same", "", "1");
    host.attach();
    let pid = host.prints("sleep 100 & echo $!");
    drop(host.dial_again());
    // The new connection says nothing, so it is nobody's.
    assert!(host.ended().success());
    within("all are dead", || (!runs(pid.trim())).then_some(()));
}
