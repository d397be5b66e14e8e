//! Rooms made of virtual machines: the suite that every kind of room passes, and what is this kind's own. They are emulated where KVM boots
//! no kernel, so they take their time.

#![allow(clippy::unwrap_used, reason = "tests and their helpers")]

#[path = "microvm/images.rs"]
mod images;
#[path = "microvm/killed.rs"]
mod killed;
#[path = "microvm/rogue.rs"]
mod rogue;
#[path = "microvm/support.rs"]
mod support;

use loopd_domain::Epoch;
use loopd_sandbox::conformance::{self, Subject, Visitor};
use loopd_sandbox::files::{Content, FileEntry, FileKind, FileSink};
use loopd_sandbox::{CheckVerdict, RoomExit, RoomSpec};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use support::Ground;
use tokio::io::AsyncReadExt;

/// How many copies of one machine draw, when nobody names a number.
const COPIES: usize = 20;
const COPIES_NAMED: &str = "E2E_COPIES";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let Some(ground) = Ground::with_test_cell() else { return };
    conformance::all(&ground.subject()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_probe_tries_everything() {
    let Some(ground) = Ground::with_test_cell() else { return };
    let checks = ground.subject().sandbox().probe().await;
    for check in &checks {
        println!("{check:?}");
        assert_ne!(check.verdict, CheckVerdict::Broken, "{check:?}");
    }
    for name in ["virtual machines", "guest image", "machine template", "a whole room", "memory limit"] {
        assert!(checks.iter().any(|check| check.name == name), "{name}: {checks:?}");
    }
    let left = std::fs::read_dir(ground.data().join("rooms")).unwrap().count();
    assert_eq!(left, 0, "the probe leaves nothing behind");
}

/// Copies of one machine's memory, of which each has the same state of its generators. The last word is what a TLS client
/// says of itself first: its random, without the rest of its greeting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_copies_draw_the_same_and_each_knows_the_time() {
    const DRAWS: &str = r#"head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n'; echo; cat /proc/sys/kernel/random/uuid
        cat /proc/sys/kernel/random/boot_id; openssl rand -hex 16
        python3 -c 'import os, ssl, uuid
print(os.getrandom(16).hex(), uuid.uuid4())
heard, said = ssl.MemoryBIO(), ssl.MemoryBIO()
client = ssl.create_default_context().wrap_bio(heard, said, server_hostname="tls.test")
try: client.do_handshake()
except ssl.SSLWantReadError: print(said.read()[11:43].hex())'
        date +%s.%N"#;
    let Some(ground) = Ground::with_test_cell() else { return };
    let subject = ground.subject();
    let copies = std::env::var(COPIES_NAMED).ok().map_or(COPIES, |text| text.parse().unwrap());
    let mut seen = HashSet::new();
    for _ in 0..copies {
        let spec = subject.spec();
        let mut room = subject.enter(&spec).await;
        assert!(is_copy(&mut room), "it was booted");
        let before = now();
        let drawn = room.tool(DRAWS).await;
        let after = now();
        assert_eq!(drawn.status, 0, "{drawn:?}");
        let mut words: Vec<&str> = drawn.text.split_whitespace().collect();
        let told: f64 = words.pop().unwrap().parse().unwrap();
        assert!(before - 1.0 < told && told < after + 1.0, "{before} {told} {after}");
        assert_eq!(words.len(), 7, "{words:?}");
        for word in words {
            assert!(word.len() >= 32 && seen.insert(word.to_owned()), "`{word}` was drawn twice");
        }
        room.leave().await;
        subject.sandbox().remove(&spec).await.unwrap();
    }
}

/// Its VMM was told to take over a frozen machine's state instead of booting.
fn is_copy(room: &mut Visitor) -> bool {
    let arguments = std::fs::read(format!("/proc/{}/cmdline", room.room().guard.pid().unwrap())).unwrap();
    arguments.split(|byte| *byte == 0).any(|argument| argument == b"-incoming")
}

/// A template of which no machine comes up any more is found out, and gone; the session gets a machine that was booted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_copy_does_not_come_up_a_machine_is_booted() {
    let Some(ground) = Ground::with_own_templates() else { return };
    let subject = ground.subject();
    let mut room = subject.enter(&subject.spec()).await;
    assert!(is_copy(&mut room));
    drop(room);
    let templates =
        || std::fs::read_dir(ground.data().join("guest/templates")).unwrap().map(|entry| entry.unwrap().path());
    let [template] = templates().collect::<Vec<_>>().try_into().unwrap();
    let state = template.join("state");
    let half = std::fs::metadata(&state).unwrap().len() / 2;
    std::fs::OpenOptions::new().write(true).open(&state).unwrap().set_len(half).unwrap();
    let mut room = subject.enter(&subject.spec()).await;
    assert!(!is_copy(&mut room), "half a state is none");
    assert_eq!(room.tool("echo $((6 * 7))").await.text, "42\n");
    assert_eq!(templates().count(), 0);
    // The next one makes a new one.
    assert!(is_copy(&mut subject.enter(&subject.spec()).await));
}

/// The VMM of a living room is a stranger on its host: no user of the host's, no rights, no network, and no file but its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_machine_is_confined() {
    let Some(ground) = Ground::with_test_cell() else { return };
    let subject = ground.subject();
    let mut room = subject.enter(&subject.spec()).await;
    let machine = PathBuf::from(format!("/proc/{}", room.room().guard.pid().unwrap()));
    let status = std::fs::read_to_string(machine.join("status")).unwrap();
    let fact = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
        line.unwrap_or_else(|| panic!("no `{name}` in {status}")).split_whitespace().next().unwrap()
    };
    if rustix::process::geteuid().is_root() {
        assert_ne!(fact("Uid"), "0");
    }
    assert_eq!(u64::from_str_radix(fact("CapEff"), 16), Ok(0));
    assert_eq!((fact("NoNewPrivs"), fact("Seccomp")), ("1", "2"));
    assert!(fact("Seccomp_filters").parse::<u32>().unwrap() >= 2, "its own filter and ours: {status}");
    for kind in ["mnt", "pid", "net", "ipc", "uts"] {
        let of = |process: &Path| std::fs::read_link(process.join("ns").join(kind)).unwrap();
        assert_ne!(of(&machine), of(Path::new("/proc/self")), "{kind}");
    }
    assert_eq!(std::fs::read_to_string(machine.join("net/dev")).unwrap().lines().count(), 3, "only `lo`");
    for descriptor in std::fs::read_dir(machine.join("fd")).unwrap() {
        let open = std::fs::read_link(descriptor.unwrap().path()).unwrap();
        let name = open.to_string_lossy();
        let is_no_file = ["socket:", "pipe:", "anon_inode:", "/memfd:"].iter().any(|kind| name.starts_with(kind));
        let is_its_own = open.starts_with(ground.data()) || open.starts_with(Ground::cache());
        let is_known = ["/dev/null", "/dev/urandom", "/dev/kvm"].contains(&&*name);
        assert!(is_no_file || is_its_own || is_known, "{name}");
    }
}

#[allow(clippy::disallowed_methods, reason = "it is compared with a guest's")]
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn later(spec: &RoomSpec) -> RoomSpec {
    RoomSpec { epoch: Epoch(spec.epoch.0 + 1), ..spec.clone() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_sleeps_and_wakes_with_its_processes_under_another_server() {
    let Some(ground) = Ground::with_test_cell() else { return };
    let subject = ground.subject();
    let spec = subject.spec();
    let mark = "16180.33";
    let mut room = subject.enter(&spec).await;
    room.tool(&format!("echo remembered > /tmp/memory; echo kept > /workspace/disk; sleep {mark} >/dev/null 2>&1 &"))
        .await;
    assert_eq!(room.count(mark).await, 1);
    let machine = room.room().guard.pid().unwrap();
    subject.sandbox().suspend(&spec, room.into_room()).await.unwrap();
    until_gone(machine).await;
    assert!(spec.directory.join("machine.suspended").is_file());
    let files = read(&subject, &spec).await;
    assert!(files.iter().any(|(name, text)| name == "workspace/disk" && text == "kept\n"), "{files:?}");
    assert!(spec.directory.join("machine.suspended").is_file(), "reading files leaves it asleep");

    let next = subject.another();
    let woken = next.adopt(&later(&spec)).await.unwrap().expect("it sleeps");
    let mut room = Visitor::greeted(woken).await;
    assert!(!spec.directory.join("machine.suspended").exists());
    assert_eq!(room.tool("cat /tmp/memory /workspace/disk").await.text, "remembered\nkept\n");
    assert_eq!(room.count(mark).await, 1);
    let (before, told, after) = (now(), room.tool("date +%s.%N").await.text, now());
    let told: f64 = told.trim().parse().unwrap();
    assert!(before - 1.0 < told && told < after + 1.0, "{before} {told} {after}");

    // One whose memory cannot be read any more keeps its files.
    let spec = later(&spec);
    next.suspend(&spec, room.into_room()).await.unwrap();
    std::fs::write(spec.directory.join("machine.suspended"), "torn").unwrap();
    assert!(next.adopt(&spec).await.unwrap().is_none());
    assert!(!spec.directory.join("machine.suspended").exists());
    let mut room = Visitor::greeted(next.start(&spec).await.unwrap()).await;
    assert_eq!(room.tool("cat /workspace/disk; cat /tmp/memory").await.status, 1);
    assert_eq!(room.tool("cat /workspace/disk").await.text, "kept\n");
}

/// What one sink is handed.
#[derive(Default)]
struct Kept(Vec<(String, String)>);

impl FileSink for Kept {
    fn put(&mut self, entry: &FileEntry, content: Content<'_>) -> io::Result<()> {
        let mut text = String::new();
        match content {
            Content::Stream(from) => drop(from.read_to_string(&mut text)?),
            Content::File(mut from) => drop(from.read_to_string(&mut text)?),
            Content::None => {}
        }
        self.0.push((entry.path.display().to_string(), text));
        Ok(())
    }
}

async fn read(subject: &Subject, spec: &RoomSpec) -> Vec<(String, String)> {
    let (sandbox, spec) = (subject.another(), spec.clone());
    tokio::task::spawn_blocking(move || {
        let mut kept = Kept::default();
        sandbox.read_files(&spec, &mut kept).unwrap();
        kept.0
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_go_in_before_there_is_a_room_and_come_out_with_and_without_one() {
    let Some(ground) = Ground::with_test_cell() else { return };
    let subject = ground.subject();
    let spec = subject.spec();
    assert_eq!(read(&subject, &spec).await, [], "a session that never had a room has nothing");
    let sandbox: Arc<dyn loopd_sandbox::Sandbox> = subject.another().into();
    let (into, wanted) = (Arc::clone(&sandbox), spec.clone());
    tokio::task::spawn_blocking(move || {
        let mut writer = into.write_files(&wanted).unwrap();
        let entry = FileEntry {
            path: PathBuf::from("workspace/given"),
            kind: FileKind::File { bytes: 5 },
            mode: 0o640,
            modified_s: 1_000_000_000,
        };
        writer.put(&entry, Content::Stream(&mut &b"given"[..])).unwrap();
        writer.finish().unwrap();
    })
    .await
    .unwrap();
    let mut room = Visitor::greeted(sandbox.start(&spec).await.unwrap()).await;
    assert_eq!(
        room.tool("cat given; stat -c ' %a %U %Y' given; echo made > made").await.text,
        "given 640 agent 1000000000\n"
    );
    let has = |files: &[(String, String)], name: &str, text: &str| files.contains(&(name.to_owned(), text.to_owned()));
    // Of the room that this server holds.
    let (from, wanted) = (Arc::clone(&sandbox), spec.clone());
    let files = tokio::task::spawn_blocking(move || {
        let mut kept = Kept::default();
        from.read_files(&wanted, &mut kept).unwrap();
        kept.0
    })
    .await
    .unwrap();
    assert!(has(&files, "workspace/made", "made\n") && has(&files, "workspace/given", "given"), "{files:?}");
    assert_eq!(room.ask("echo", "undisturbed").await.text, "undisturbed");
    room.leave().await;
    let files = read(&subject, &spec).await;
    assert!(has(&files, "workspace/made", "made\n") && has(&files, "workspace/given", "given"), "{files:?}");
}

/// Says that it has begun, and waits with every entry until the test lets it go on.
struct Patient {
    begun: std::sync::mpsc::Sender<()>,
    go: std::sync::mpsc::Receiver<()>,
}

impl FileSink for Patient {
    fn put(&mut self, _entry: &FileEntry, _content: Content<'_>) -> io::Result<()> {
        let _ = self.begun.send(());
        // Once the test has let go, there is nobody to wait for.
        let _ = self.go.recv();
        Ok(())
    }
}

/// A machine has one link: whoever takes it over would cut the reading off, and the other way about.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_a_machine_that_nobody_holds_and_who_takes_it_over_wait_for_each_other() {
    let Some(ground) = Ground::with_test_cell() else { return };
    let subject = ground.subject();
    let spec = subject.spec();
    let sandbox: Arc<dyn loopd_sandbox::Sandbox> = subject.another().into();
    let mut room = Visitor::greeted(subject.another().start(&spec).await.unwrap()).await;
    // More than can be on its way.
    room.tool("head -c 30000000 /dev/zero > above; echo kept > here").await;
    room.abandon();
    let (let_go, go) = std::sync::mpsc::channel();
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (from, wanted) = (Arc::clone(&sandbox), spec.clone());
    let reading = tokio::task::spawn_blocking(move || from.read_files(&wanted, &mut Patient { begun, go }));
    tokio::task::spawn_blocking(move || has_begun.recv().unwrap()).await.unwrap();
    let later = RoomSpec { epoch: Epoch(spec.epoch.0 + 1), ..spec.clone() };
    let adopting = tokio::spawn({
        let (sandbox, later) = (Arc::clone(&sandbox), later.clone());
        async move { sandbox.adopt(&later).await }
    });
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    drop(let_go);
    assert_ne!(reading.await.unwrap().expect("read to its end").files, 0);
    let mut room = Visitor::greeted(adopting.await.unwrap().unwrap().expect("it lives")).await;
    // Held now, so its own link serves both.
    let (from, wanted) = (Arc::clone(&sandbox), later);
    let again = tokio::task::spawn_blocking(move || from.read_files(&wanted, &mut Kept::default()).map(|_| ()));
    again.await.unwrap().expect("read again");
    assert_eq!(room.tool("cat here").await.text, "kept\n");
    room.leave().await;
}

/// Its host has let go of it then, and it stands still: it must not be woken for its files, nor lose what is being written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_a_machine_that_falls_asleep_waits_and_it_wakes_with_its_memory() {
    let Some(ground) = Ground::with_test_cell() else { return };
    let subject = ground.subject();
    let spec = subject.spec();
    let sandbox: Arc<dyn loopd_sandbox::Sandbox> = subject.another().into();
    let mut room = Visitor::greeted(sandbox.start(&spec).await.unwrap()).await;
    room.tool("echo kept > here; echo remembered > /tmp/memory").await;
    let suspending = tokio::spawn({
        let (sandbox, spec) = (Arc::clone(&sandbox), spec.clone());
        async move { sandbox.suspend(&spec, room.into_room()).await }
    });
    let note = ground.data().join("rooms").join(spec.session.as_str()).join("suspension");
    while !note.exists() {
        assert!(!suspending.is_finished(), "it sleeps before anybody asked for its files");
        tokio::time::sleep(std::time::Duration::from_micros(200)).await;
    }
    let (from, wanted) = (Arc::clone(&sandbox), spec.clone());
    let reading = tokio::task::spawn_blocking(move || from.read_files(&wanted, &mut Kept::default()));
    suspending.await.unwrap().expect("it sleeps");
    assert_ne!(reading.await.unwrap().expect("read").files, 0);
    let mut room = Visitor::greeted(sandbox.adopt(&spec).await.unwrap().expect("it wakes")).await;
    assert_eq!(room.tool("cat here /tmp/memory").await.text, "kept\nremembered\n");
    room.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_waits_is_given_to_a_new_session_and_goes_with_its_server() {
    let Some(ground) = Ground::with_test_cell() else { return };
    let subject = ground.subject_with_waiting(1);
    let first = subject.enter(&subject.spec()).await;
    let waiting = loop {
        match machines_on_ground(&ground).as_slice() {
            [one] => break *one,
            _ => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    };
    // It is on record before it has come up: who asks meanwhile has a machine of its own.
    let mut given = None;
    for _ in 0..TRIES {
        let spec = subject.spec();
        let mut room = subject.enter(&spec).await;
        if room.room().guard.pid() == Some(waiting) {
            given = Some((spec, room));
            break;
        }
    }
    let (spec, mut second) = given.expect("one of the sessions has the machine that waited");
    second.tool("echo kept > here").await;
    second.leave().await;
    // One that has a disk gets a machine of its own, on that disk.
    let mut again = subject.enter(&spec).await;
    assert_eq!(again.tool("cat here").await.text, "kept\n");
    drop((first, again));
    drop(subject);
    while !machines_on_ground(&ground).is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// How many sessions may be made before a machine has come up, which takes no longer than another one does.
const TRIES: u32 = 10;

/// Machines of no session.
fn machines_on_ground(ground: &Ground) -> Vec<u32> {
    let below = |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let records = below(ground.data().join("machines")).flat_map(below).map(|path| path.join("place/record"));
    let pid =
        |text: String| text.lines().find_map(|line| line.strip_prefix("process ")?.split(' ').next()?.parse().ok());
    let pids = records.filter_map(|path| std::fs::read_to_string(path).ok()).filter_map(pid);
    pids.filter(|pid| *pid != 0 && std::path::Path::new(&format!("/proc/{pid}")).exists()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_dies_stops_or_burns_costs_its_own_session_only() {
    let Some(ground) = Ground::with_test_cell() else { return };
    let subject = ground.subject();
    let mut neighbour = subject.enter(&subject.spec()).await;
    let mut burning = subject.enter(&subject.spec()).await;
    burning.tool("for i in 1 2 3 4; do (while :; do :; done) >/dev/null 2>&1 & done").await;
    assert_eq!(neighbour.tool("echo unharmed").await.text, "unharmed\n");
    let mut killed = subject.enter(&subject.spec()).await;
    kill_process(pid_of(&mut killed), Signal::KILL).unwrap();
    let exit = killed.exit().await;
    assert!(matches!(exit, RoomExit::Lost(_)), "{exit:?}");
    assert_eq!(neighbour.tool("echo unharmed").await.text, "unharmed\n");
    drop(burning);
    // One that stops answering is given up, however long that takes.
    let mut stopped = subject.enter(&subject.spec()).await;
    kill_process(pid_of(&mut stopped), Signal::STOP).unwrap();
    let exit = stopped.room().exit.wait_for(Option::is_some).await.unwrap().clone();
    assert!(matches!(&exit, Some(RoomExit::Lost(why)) if why.contains("no sign of life")), "{exit:?}");
    assert_eq!(stopped.room().channel.read(&mut [0; 8]).await.unwrap_or(0), 0, "nothing more comes of it");
    assert_eq!(neighbour.tool("echo unharmed").await.text, "unharmed\n");
}

/// By its kernel's crash, by switching itself off, by restarting: its session goes on in another machine, with its files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_dies_by_itself_costs_its_own_machine_and_says_what_it_died_of() {
    let Some(ground) = Ground::of_doomed() else { return };
    let subject = ground.subject();
    let mut neighbour = subject.enter(&subject.spec()).await;
    let mut spec = subject.spec();
    let of_session = |spec: &RoomSpec| spec.session.as_str().to_lowercase().replace('_', "-");
    let mut room = subject.enter(&spec).await;
    let told = room.tool("echo facts > next && mv next doom; until cat facts 2>/dev/null; do sleep 0.05; done").await;
    assert_eq!(told.text, format!("{}\nlo", of_session(&spec)), "the guest's name, and no network card");
    room.leave().await;
    let ways = [("panic", "Kernel panic"), ("off", "switched it off"), ("restart", "restarted it")];
    for (deaths, (word, told)) in ways.into_iter().enumerate() {
        let mut room = subject.enter(&spec).await;
        let machine = room.room().guard.pid().unwrap();
        let kept = room.tool(&format!("cat deaths 2>/dev/null; echo {word} >> deaths")).await;
        assert_eq!((kept.status, kept.text.lines().count()), (0, deaths), "{word}: {kept:?}");
        // What was written is on the disk before the answer is passed on; the end may come before this one is.
        room.tell("tool", &format!("echo {word} > next && mv next doom; sleep 1000")).await.unwrap();
        let exit = room.exit().await;
        assert!(matches!(&exit, RoomExit::Lost(why) if why.contains(told)), "{word}: {exit:?}");
        until_gone(machine).await;
        assert_eq!(room.room().channel.read(&mut [0; 8]).await.unwrap_or(0), 0, "{word}: nothing more comes of it");
        drop(room);
        assert_eq!(neighbour.tool("echo unharmed").await.text, "unharmed\n", "{word}");
        spec = later(&spec);
        // Without its machine, as a server that did not see it end.
        assert!(subject.another().adopt(&spec).await.unwrap().is_none(), "{word}");
    }
}

/// Ended and reaped, by whoever has it as a child.
async fn until_gone(process: u32) {
    while std::path::Path::new(&format!("/proc/{process}")).exists() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn pid_of(room: &mut Visitor) -> Pid {
    Pid::from_raw(room.room().guard.pid().unwrap() as i32).unwrap()
}

/// A raised limit is there for a room that begins afresh, and for one that slept. What was written before stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_grows_with_its_limit() {
    const FILL: &str =
        "cat kept; head -c $((MIB << 20)) /dev/zero > filler && rm filler && df -m --output=size . | tail -n 1";
    let Some(ground) = Ground::with_test_cell() else { return };
    let subject = ground.subject();
    let mut spec = subject.spec();
    spec.limits.disk_bytes = 64 << 20;
    let mut room = subject.enter(&spec).await;
    assert_eq!(room.tool("echo kept > kept; head -c 100000000 /dev/zero > filler").await.status, 1);
    room.tool("rm filler").await;
    room.leave().await;
    spec.limits.disk_bytes = 300 << 20;
    let mut room = subject.enter(&spec).await;
    let filled = room.tool(&FILL.replace("MIB", "200")).await;
    assert!(filled.status == 0 && filled.text.starts_with("kept\n"), "{filled:?}");
    subject.sandbox().suspend(&spec, room.into_room()).await.unwrap();
    spec.limits.disk_bytes = 600 << 20;
    let mut room = Visitor::greeted(subject.another().adopt(&spec).await.unwrap().expect("it sleeps")).await;
    let filled = room.tool(&FILL.replace("MIB", "400")).await;
    assert!(filled.status == 0 && filled.text.starts_with("kept\n"), "{filled:?}");
}

/// A machine has all the memory that its room may use, and what its kernel keeps of files, and is not ended for using it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_may_use_all_of_its_memory() {
    let Some(ground) = Ground::with_test_cell() else { return };
    let subject = ground.subject();
    let mut spec = subject.spec();
    spec.limits.memory_bytes = 640 << 20;
    spec.limits.disk_bytes = 1 << 30;
    let mut room = subject.enter(&spec).await;
    // What is written stays in its memory for as long as nothing else needs that.
    for part in ["one", "two", "three"] {
        let written = room.tool(&format!("head -c 250M /dev/zero > {part}")).await;
        assert_eq!(written.status, 0, "{written:?}");
    }
    assert_eq!(room.tool("echo still here").await.text, "still here\n");
}
