//! Hosts with version 2 alone, as loopd may find them. Each scene makes one, and leaves nothing behind that the next would find.

use super::host::{Host, LIMITS, TOP, cgroup, diagnosed, hand_down, patient, remove, tell, told, until, within};
use loopd_tests::cli;
use loopd_tests::http::fenced;
use loopd_tests::server::Options;
use rustix::fs::{XattrFlags, setxattr};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub const SCENES: [&str; 10] = [
    "unified::a_container_with_a_tree_that_is_read_only",
    "unified::a_container_with_a_tree_of_its_own",
    "unified::a_threaded_cgroup",
    "unified::a_unit_of_root_that_was_given_over",
    "unified::a_unit_that_has_others_in_it",
    "unified::a_unit_whose_servers_have_a_part_of_it",
    "unified::an_ordinary_user_in_a_cgroup_of_others",
    "unified::an_ordinary_user_with_a_part_of_the_controllers",
    "unified::an_ordinary_user_with_a_unit_of_its_own",
    "unified::root_at_the_top",
];

const USER: u32 = 1_000;
const CONTROLLERS: &str = "+memory +pids +cpu +io";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of a test in `cgroup2.rs`, in its machine"]
async fn root_at_the_top() {
    let options = patient(Options::default());
    diagnosed(&options, &LIMITS, "");
    let place = TempDir::with_prefix("loopd-test-").expect("a directory");
    let said = cli::run(place.path(), &["invoke", "--model", "builtin/shell", &fenced("echo it-$((40 + 2))")]).ok();
    assert!(said.contains("│ it-42") && said.contains("end_turn"), "{said}");

    let mut host = Host::start(options, Path::new(TOP));
    host.waiting().await;
    let room = host.limited().await;
    room.sees_nothing_above().await;
    room.memory_is_kept().await;
    room.processes_are_kept().await;
    room.processor_is_kept().await;
    room.disk_is_kept().await;
    // The next server finds the room, and goes on to tell what it reaches.
    room.runs("MARK=kept").await;
    let of_first = room.cgroup.parent().expect("a server's").to_owned();
    host.server.kill();
    host.server.start_again();
    let room = room.at(&host.server);
    let said = room.runs("echo its mark is $MARK").await;
    assert!(said.contains("its mark is kept"), "its shell is the one that it was: {said}");
    room.memory_is_kept().await;
    room.ends().await;
    until("the first server's cgroup is gone", || !of_first.exists()).await;
    host.server.terminate();
}

/// A cgroup as a manager of services gives it over: with a mark, and with controllers.
fn unit(path: &str, owner: Option<u32>, controllers: &str) -> PathBuf {
    remove(&Path::new(TOP).join(path));
    let unit = cgroup(path);
    hand_down(path, controllers);
    for mark in ["trusted.delegate", "user.delegate"] {
        setxattr(&unit, mark, b"1", XattrFlags::empty()).expect("marked");
    }
    if let Some(owner) = owner {
        for name in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            chown(unit.join(name), Some(owner), Some(owner)).expect("given");
        }
    }
    unit
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of a test in `cgroup2.rs`, in its machine"]
async fn a_unit_of_root_that_was_given_over() {
    let given = || unit("system.slice/loopd.service", None, CONTROLLERS);
    let options = within(&given(), &[]);
    diagnosed(&options, &LIMITS, "");
    let unit = given();
    let mut host = Host::start(options, &unit);
    host.waiting().await;
    assert_eq!(told(&unit.join("loopd-server/cgroup.procs")).lines().next(), Some(&*host.server.pid().to_string()));
    let room = host.limited().await;
    room.memory_is_kept().await;
    room.processor_is_kept().await;
    room.ends().await;
    host.server.terminate();
}

/// As with `DelegateSubgroup=`: what restarts can enter, although rooms live on in the unit.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of a test in `cgroup2.rs`, in its machine"]
async fn a_unit_whose_servers_have_a_part_of_it() {
    let unit = unit("system.slice/restarts.service", Some(USER), CONTROLLERS);
    let part = cgroup("system.slice/restarts.service/server");
    for name in ["", "cgroup.procs"] {
        chown(part.join(name), Some(USER), Some(USER)).expect("given");
    }
    let mut host = Host::start(within(&part, &[]).user(USER), &unit);
    let room = host.limited().await;
    room.runs("MARK=kept").await;
    let of_first = room.cgroup.parent().expect("a server's").to_owned();
    host.server.kill();
    host.server.start_again();
    let room = room.at(&host.server);
    let said = room.runs("echo its mark is $MARK").await;
    assert!(said.contains("its mark is kept"), "its shell is the one that it was: {said}");
    room.memory_is_kept().await;
    room.ends().await;
    until("the first server's cgroup is gone", || !of_first.exists()).await;
    host.server.terminate();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of a test in `cgroup2.rs`, in its machine"]
async fn a_unit_that_has_others_in_it() {
    let unit = unit("shared.slice/app.scope", Some(USER), CONTROLLERS);
    let mut other = std::process::Command::new("sleep").arg("1000").spawn().expect("it starts");
    tell(&unit.join("cgroup.procs"), &other.id().to_string());
    let options = within(&unit, &[]).user(USER);
    diagnosed(&options, &[], "other processes");
    other.kill().expect("it runs");
    other.wait().expect("it ran");
    diagnosed(&options, &LIMITS, "");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of a test in `cgroup2.rs`, in its machine"]
async fn an_ordinary_user_with_a_unit_of_its_own() {
    let given = || unit("user.slice/user-1000.slice/app.scope", Some(USER), CONTROLLERS);
    let options = within(&given(), &[]).user(USER);
    diagnosed(&options, &LIMITS, "");
    let unit = given();
    let mut host = Host::start(options, &unit);
    host.waiting().await;
    let room = host.limited().await;
    room.memory_is_kept().await;
    room.processes_are_kept().await;
    room.ends().await;
    host.server.terminate();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of a test in `cgroup2.rs`, in its machine"]
async fn an_ordinary_user_with_a_part_of_the_controllers() {
    let unit = unit("part.slice/app.scope", Some(USER), "+memory +pids");
    let options = within(&unit, &[]).user(USER);
    diagnosed(&options, &LIMITS[..2], "was not handed it");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of a test in `cgroup2.rs`, in its machine"]
async fn an_ordinary_user_in_a_cgroup_of_others() {
    let foreign = cgroup("login.slice/session.scope");
    let options = within(&foreign, &[]).user(USER);
    diagnosed(&options, &[], "ermission denied");
    // Then each process is limited, and the model hears of it what the program says.
    let host = Host::start(options, &foreign);
    let http = host.server.http();
    let answer = http.shell("echo works; ulimit -u").await;
    let said = loopd_tests::http::text(&answer["output"]);
    assert!(said.contains("works\n512"), "{said}");
}

/// As container engines start a program: in a cgroup that it takes for the top, mounted with these options.
fn container(path: &str, mount: &str) -> (PathBuf, Options) {
    remove(&Path::new(TOP).join(path));
    let container = cgroup(path);
    hand_down(path, CONTROLLERS);
    let mount = format!("umount {TOP} && mount -t cgroup2 -o {mount} cgroup2 {TOP} && exec \"$@\"");
    let options = within(&container, &["unshare", "--mount", "--cgroup", "sh", "-c", &mount, "sh"]);
    (container, options)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of a test in `cgroup2.rs`, in its machine"]
async fn a_container_with_a_tree_that_is_read_only() {
    let (_, options) = container("containers/closed", "ro");
    diagnosed(&options, &[], "ead-only file system");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of a test in `cgroup2.rs`, in its machine"]
async fn a_container_with_a_tree_of_its_own() {
    let (_, options) = container("containers/open", "rw");
    diagnosed(&options, &LIMITS, "");
    let (container, options) = container("containers/open", "rw");
    let mut host = Host::start(options, &container);
    host.waiting().await;
    let room = host.limited().await;
    room.memory_is_kept().await;
    room.ends().await;
    host.server.terminate();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of a test in `cgroup2.rs`, in its machine"]
async fn a_threaded_cgroup() {
    let threaded = cgroup("threads/t");
    tell(&threaded.join("cgroup.type"), "threaded");
    for name in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        chown(threaded.join(name), Some(USER), Some(USER)).expect("given");
    }
    let options = within(&threaded, &[]).user(USER);
    diagnosed(&options, &[], "threaded");
}
