//! The same attacks where people run a model's shell today: bubblewrap with a usual command line, and Anthropic's sandbox
//! runtime. Both are started by an ordinary user, as they usually are; neither limits what a program may use up, so attacks
//! that would take the machine down are not tried.

use super::planted::{NEIGHBOUR_PORT, Planted};
use super::{Attack, Verdict};
use rustix::process::Pid;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;

/// `nobody`.
const USER: u32 = 65534;
const PATIENCE: Duration = Duration::from_secs(90);

/// In the names of directories.
const GROUND: &str = "peer";

pub enum Kind {
    Bubblewrap,
    /// Its directory of Node modules.
    SandboxRuntime(PathBuf),
}

pub struct Peer {
    kind: Kind,
    planted: Planted,
    data: TempDir,
    workspace: PathBuf,
    /// A second room beside the attacked one, with its secrets.
    neighbour: std::process::Child,
}

impl Peer {
    pub fn new(kind: Kind) -> Self {
        let data = TempDir::with_prefix("loopd-peer-").expect("a directory");
        let place = |name: &str| {
            let path = data.path().join("sessions").join(name).join("workspace");
            std::fs::create_dir_all(&path).expect("made");
            std::os::unix::fs::chown(&path, Some(USER), Some(USER)).expect("given to the user");
            path
        };
        std::fs::set_permissions(data.path(), std::fs::Permissions::from_mode(0o755)).expect("open");
        let (workspace, next_door) = (place("attacked"), place("neighbour"));
        if let Kind::SandboxRuntime(_) = &kind {
            for (own, name) in [(&workspace, "attacked"), (&next_door, "neighbour")] {
                std::fs::write(data.path().join(format!("{name}.json")), settings(own)).expect("written");
            }
        }
        let hides = "S=CANARY-NEIGHBOUR-here; echo $S > neighbours-secret; CANARY=$S exec sleep 600";
        let mut command = sandboxed(&kind, data.path(), &next_door, "neighbour", hides);
        let neighbour = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the neighbour starts");
        std::thread::sleep(Duration::from_secs(2));
        Peer { kind, planted: Planted::new(), data, workspace, neighbour }
    }

    pub fn attack(&self, attack: &Attack) -> Verdict {
        if let Some(why) = attack.bare.as_ref().or(attack.inside.as_ref()) {
            return Verdict::Untried(why.clone());
        }
        let mut variables = self.planted.variables();
        variables.push(("ATTACK_DATA".to_owned(), self.data.path().display().to_string()));
        variables.push(("ATTACK_NEIGHBOUR_PORT".to_owned(), NEIGHBOUR_PORT.to_string()));
        let text = attack.command(&variables, GROUND);
        let mut command = sandboxed(&self.kind, self.data.path(), &self.workspace, "attacked", &text);
        let output = self.data.path().join("output");
        let file = std::fs::File::create(&output).expect("made");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("again")).stderr(file);
        let mut child = command.spawn().expect("the peer starts");
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE && child.try_wait().expect("it can be asked").is_none() {
            // The one attack that waits to be stopped is stopped as a harness would: by a signal to what it started.
            if attack.name == "ignore-sigterm" && begun.elapsed() > Duration::from_secs(3) {
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = child.kill();
        let _ = child.wait();
        if attack.ends.is_some() {
            std::thread::sleep(Duration::from_secs(1));
            return match living(attack, &self.workspace) {
                Some(pid) => Verdict::Through(format!("process {} lives on", pid.as_raw_nonzero())),
                None => Verdict::Held("nothing of it lives on".to_owned()),
            };
        }
        let said = std::fs::read_to_string(&output).unwrap_or_default();
        let none = || Verdict::Untried(format!("no verdict: {}", said.lines().last().unwrap_or_default()));
        attack.verdict(&said).unwrap_or_else(none)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.neighbour.kill();
        let _ = self.neighbour.wait();
        // What got away from its sandbox must not get away from this machine.
        for pid in processes_in(self.data.path()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// What the documentation of each suggests: the system read-only, the workspace to write in, no network.
fn sandboxed(kind: &Kind, data: &Path, workspace: &Path, name: &str, text: &str) -> Command {
    let command = match kind {
        Kind::Bubblewrap => {
            let mut command = Command::new("bwrap");
            let workspace = workspace.to_str().expect("a path of ours");
            command.args(
                "--unshare-all --die-with-parent --new-session --ro-bind /usr /usr --ro-bind /etc /etc".split(' '),
            );
            command.args(
                "--symlink usr/bin /bin --symlink usr/sbin /sbin --symlink usr/lib /lib --symlink usr/lib64 /lib64"
                    .split(' '),
            );
            command.args([
                "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--bind", workspace, workspace, "--chdir",
                workspace,
            ]);
            command.args(["bash", "-c", text]);
            command
        }
        Kind::SandboxRuntime(modules) => {
            let mut command = Command::new("node");
            command.arg(modules.join("@anthropic-ai/sandbox-runtime/dist/cli.js"));
            command.arg("--settings").arg(data.join(format!("{name}.json"))).args(["-c", text]);
            command
        }
    };
    let program = command.get_program().to_owned();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".to_owned(), "--".to_owned()]);
    command.arg(program).args(arguments).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
    command.env("HOME", workspace).current_dir(workspace).process_group(0);
    command
}

fn settings(workspace: &Path) -> String {
    let filesystem = serde_json::json!({"denyRead": [], "allowWrite": [workspace, "/tmp"], "denyWrite": []});
    serde_json::json!({"network": {"allowedDomains": [], "deniedDomains": []}, "filesystem": filesystem}).to_string()
}

/// A process that still works for the attack.
fn living(attack: &Attack, workspace: &Path) -> Option<Pid> {
    match attack.name.as_str() {
        "outlive-call" => processes_in(workspace).into_iter().next(),
        _ => processes_in(&workspace.join(attack.directory(GROUND))).into_iter().next(),
    }
}

/// Processes whose working directory is below `directory`.
fn processes_in(directory: &Path) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").expect("it can be listed");
    let pids = entries.flatten().filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    pids.filter(|pid| {
        let link = std::fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero()));
        link.is_ok_and(|path| path.starts_with(directory))
    })
    .collect()
}
