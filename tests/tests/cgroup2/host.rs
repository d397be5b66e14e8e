//! A loopd in a place of its own in the tree of cgroups, and what the kernel says of its rooms.

use loopd_tests::http::{fenced, text, tool_results};
use loopd_tests::server::{Options, clean, program};
use loopd_tests::{Http, PATIENCE, Server};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

pub const TOP: &str = "/sys/fs/cgroup";
const MIB: u64 = 1 << 20;
/// What limits a room here, like those of no other room.
const MEMORY: u64 = 48 * MIB;
const RATE: u64 = 4 * MIB;

/// A cgroup below the top, made with all that is above it.
pub fn cgroup(path: &str) -> PathBuf {
    let cgroup = Path::new(TOP).join(path);
    fs::create_dir_all(&cgroup).expect("made");
    cgroup
}

/// Hands these controllers down at every cgroup above this one.
pub fn hand_down(path: &str, controllers: &str) {
    let below: Vec<_> = Path::new(path).ancestors().skip(1).collect();
    for part in below.into_iter().rev() {
        tell(&Path::new(TOP).join(part).join("cgroup.subtree_control"), controllers);
    }
}

#[track_caller]
pub fn tell(file: &Path, value: &str) {
    fs::write(file, value).unwrap_or_else(|fault| panic!("`{value}` to {}: {fault}", file.display()));
}

#[track_caller]
pub fn told(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|fault| panic!("{}: {fault}", file.display())).trim().to_owned()
}

/// Removes one that nobody is in any more, with all below it, as the manager of services does when a unit has ended.
#[track_caller]
pub fn remove(cgroup: &Path) {
    directories(cgroup).iter().for_each(|below| remove(below));
    match fs::remove_dir(cgroup) {
        Err(fault) if cgroup.exists() => panic!("{}: {fault}: {:?}", cgroup.display(), directories(cgroup)),
        _ => {}
    }
}

/// Starts it in a cgroup, by these words, which become what is added to them.
pub fn within(cgroup: &Path, then: &[&str]) -> Options {
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", cgroup.display());
    patient(Options::default().within(&[&["sh", "-c", &enter, "sh"], then].concat()))
}

/// Rooms of a server that is killed wait longer for the next one than it takes here.
pub fn patient(options: Options) -> Options {
    options.env("LOOPD_ROOM_ORPHAN_SECONDS", "300")
}

/// What `loopd doctor` says of rooms: verdict, and detail with remedy.
pub fn doctor(options: &Options) -> BTreeMap<String, (String, String)> {
    let place = TempDir::with_prefix("loopd-test-").expect("a directory");
    if let Some(user) = options.user {
        std::os::unix::fs::chown(place.path(), Some(user), Some(user)).expect("given to the user");
    }
    let mut command = program(options);
    command.args(["doctor", "--json", "--data", "data"]).current_dir(place.path());
    let output = clean(&mut command).output().expect("loopd starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let json: Value = serde_json::from_str(&said).unwrap_or_else(|fault| panic!("{fault}: {said} {output:?}"));
    let checks = json["checks"].as_array().expect("a list");
    let of = |check: &Value, name: &str| check[name].as_str().unwrap_or_default().to_owned();
    checks
        .iter()
        .map(|check| (of(check, "name"), (of(check, "verdict"), of(check, "detail") + "; " + &of(check, "remedy"))))
        .collect()
}

pub const LIMITS: [&str; 4] = ["memory limit", "process limit", "processor limit", "disk traffic limit"];

/// These limits are kept by version 2, and the others are not, for a reason that has this in it.
#[track_caller]
pub fn diagnosed(options: &Options, kept: &[&str], why: &str) {
    diagnosed_in("version 2", options, kept, why);
}

#[track_caller]
pub fn diagnosed_in(version: &str, options: &Options, kept: &[&str], why: &str) {
    let checks = doctor(options);
    for name in LIMITS {
        let found = checks.iter().find(|(key, _)| key.ends_with(name) && !key.starts_with("microvm"));
        let (_, (verdict, detail)) = found.unwrap_or_else(|| panic!("nothing of the {name}: {checks:#?}"));
        println!("{name}: {verdict}: {detail}");
        if kept.contains(&name) {
            assert_eq!((verdict.as_str(), detail.contains(version)), ("works", true), "{name}: {detail}");
        } else {
            assert_eq!((verdict.as_str(), detail.contains(why)), ("degraded", true), "{name}: {detail}");
        }
    }
    let broken: Vec<_> =
        checks.iter().filter(|(key, check)| check.0 == "broken" && !key.starts_with("microvm")).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

/// A server whose rooms have their cgroups below this one.
pub struct Host {
    pub server: Server,
    pub parent: PathBuf,
}

/// A session with limits of its own, and its room's cgroup.
pub struct Limited {
    http: Http,
    pub session: String,
    pub cgroup: PathBuf,
}

impl Host {
    pub fn start(options: Options, parent: &Path) -> Self {
        Host { server: Server::with(options), parent: parent.to_owned() }
    }

    /// The cgroups of this server's rooms.
    pub fn rooms(&self) -> Vec<PathBuf> {
        let servers = directories(&self.parent).into_iter().filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&format!("loopd-{}-", self.server.pid())))
        });
        servers.flat_map(|server| directories(&server)).collect()
    }

    /// A session in a room with these limits.
    pub async fn limited(&self) -> Limited {
        let limits = json!({"memory_bytes": MEMORY, "pids": 40, "cpu_millis": 500, "io_bytes_per_second": RATE});
        let environment = json!({"limits": limits, "networking": {"type": "none"}});
        let http = self.server.http();
        let body = json!({"model": "builtin/shell", "environment": environment, "input": fenced("echo begun")});
        let answer = http.invoke(body).await;
        let session = answer["session_id"].as_str().expect("a session").to_owned();
        let record = told(&self.server.data().join("rooms").join(&session).join("record"));
        let cgroups: Vec<_> =
            record.lines().filter_map(|line| line.strip_prefix("cgroup ")).map(PathBuf::from).collect();
        let [cgroup] = &cgroups[..] else { panic!("not one cgroup: {record}") };
        // Where it is mounted elsewhere, it has another path there.
        let below = |path: &Path| path.iter().rev().take(2).map(ToOwned::to_owned).collect::<Vec<_>>();
        let (rooms, wanted) = (self.rooms(), below(cgroup));
        let cgroup = rooms.iter().find(|path| below(path) == wanted).unwrap_or_else(|| panic!("{cgroup:?}: {rooms:?}"));
        Limited { http, session, cgroup: cgroup.clone() }
    }

    /// Rooms that wait for sessions are in cgroups of their own, too.
    pub async fn waiting(&self) {
        let populated = || self.rooms().iter().filter(|path| !told(&path.join("cgroup.procs")).is_empty()).count();
        until("two rooms wait", || populated() >= 2).await;
    }
}

impl Limited {
    pub async fn runs(&self, commands: &str) -> String {
        self.http.invoke(json!({"session": self.session, "input": fenced(commands)})).await;
        let events = self.http.events(&self.session).await;
        tool_results(&events).last().map(|result| text(&result["content"])).unwrap_or_default()
    }

    /// The same session, with another server.
    pub fn at(self, server: &Server) -> Self {
        Limited { http: server.http(), ..self }
    }

    pub fn file(&self, name: &str) -> String {
        told(&self.cgroup.join(name))
    }

    pub async fn memory_is_kept(&self) {
        assert_eq!(self.file("memory.max"), MEMORY.to_string());
        if self.cgroup.join("memory.swap.max").exists() {
            assert_eq!(self.file("memory.swap.max"), "0");
        }
        // `tail` keeps its whole input, which has no line end.
        let said = self.runs("head -c 1000000000 /dev/zero | tail -n 1 | wc -c").await;
        assert!(said.contains("memory limit of 48 MiB was reached"), "{said}\n{}", self.file("memory.events"));
        assert!(!self.file("memory.events").contains("oom_kill 0"), "{}", self.file("memory.events"));
        let said = self.runs("echo it goes on").await;
        assert!(said.contains("it goes on") && !said.contains("limit"), "{said}");
    }

    pub async fn processes_are_kept(&self) {
        assert_eq!(self.file("pids.max"), "40");
        // A shell would try for long to start what it cannot.
        let bomb = "import os, sys, time\nchildren = []\ntry:\n    for _ in range(60):\n        child = os.fork()\n        \
                    if child == 0: time.sleep(1000)\n        children.append(child)\nexcept OSError as fault: print(fault)\n\
                    for child in children: os.kill(child, 9)\nsys.exit(1)";
        let said = self.runs(&format!("python3 -c '{bomb}'")).await;
        assert!(said.contains("limit of 40 processes"), "{said}\n{}", self.file("pids.events"));
        let said = self.runs("echo it goes on").await;
        assert!(said.contains("it goes on") && !said.contains("limit"), "{said}");
    }

    pub async fn processor_is_kept(&self) {
        assert_eq!((self.file("cpu.max"), self.file("cpu.weight")), ("50000 100000".to_owned(), "50".to_owned()));
        self.runs("timeout 3 bash -c 'while :; do :; done'; true").await;
        let stat = self.file("cpu.stat");
        assert!(!stat.lines().any(|line| line == "nr_throttled 0"), "{stat}");
    }

    pub async fn disk_is_kept(&self) {
        let limit = self.file("io.max");
        assert!(limit.contains(&format!("rbps={RATE} wbps={RATE}")), "{limit}");
        let device = limit.split(' ').next().expect("a device").to_owned();
        let said = self.runs("dd if=/dev/zero of=written bs=1M count=8 oflag=direct 2>&1").await;
        assert!(said.contains("8388608 bytes"), "{said}");
        let stat = self.file("io.stat");
        let line = stat.lines().find(|line| line.starts_with(&device)).unwrap_or_else(|| panic!("{device}: {stat}"));
        let written = line.split(' ').find_map(|word| word.strip_prefix("wbytes=")?.parse::<u64>().ok());
        assert!(written >= Some(8 * MIB), "{stat}");
    }

    /// What the room sees of the tree ends at itself.
    pub async fn sees_nothing_above(&self) {
        let said = self.runs("cat /proc/self/cgroup; ls /sys/fs/cgroup 2>&1; true").await;
        assert!(said.contains("0::/\n") && !said.contains("loopd-"), "{said}");
    }

    /// With its session goes the room, and its cgroup with it.
    pub async fn ends(self) {
        self.http.delete(&format!("/v1/sessions/{}", self.session)).await.ok();
        until("the room's cgroup is gone", || !self.cgroup.exists()).await;
    }
}

pub fn directories(of: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(of).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not after {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}
