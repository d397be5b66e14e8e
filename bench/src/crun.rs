//! crun as a peer: containers of a bundle with the host's `/usr`, read-only. Without cgroups, which it would have to share with
//! loopd; in a mount namespace without the unified tree, as its version in Debian refuses to run beside a mixed one.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;
use tokio::time::Instant;

const KEPT_MOUNTS: [&str; 4] = ["/proc", "/dev", "/dev/pts", "/dev/shm"];

pub struct Crun {
    directory: PathBuf,
}

impl Crun {
    /// Makes two bundles: `true` ends at once, `sleep` stays.
    pub fn prepare(directory: &Path) -> Result<Self> {
        for (name, arguments) in [("true", json!(["/bin/true"])), ("sleep", json!(["/bin/sleep", "600"]))] {
            let bundle = directory.join(name);
            for part in ["usr", "proc", "dev", "tmp"] {
                std::fs::create_dir_all(bundle.join("rootfs").join(part))?;
            }
            for link in ["bin", "sbin", "lib", "lib64"] {
                symlink(format!("usr/{link}"), bundle.join("rootfs").join(link))?;
            }
            let mut spec = std::process::Command::new("crun");
            let made = spec
                .arg("spec")
                .current_dir(&bundle)
                .status()
                .context("starting `crun`; the Debian package is `crun`")?;
            ensure!(made.success(), "`crun spec`: {made}");
            let path = bundle.join("config.json");
            let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
            config["process"]["terminal"] = json!(false);
            config["process"]["args"] = arguments;
            let mounts = config["mounts"].as_array().context("`crun spec` names no mounts")?;
            let kept = mounts.iter().filter(|mount| KEPT_MOUNTS.iter().any(|kept| mount["destination"] == *kept));
            let ours = [
                json!({"destination": "/usr", "source": "/usr", "type": "bind", "options": ["rbind", "ro"]}),
                json!({"destination": "/tmp", "source": "tmpfs", "type": "tmpfs"}),
            ];
            config["mounts"] = kept.cloned().chain(ours).collect();
            if let Some(linux) = config["linux"].as_object_mut() {
                linux.remove("resources");
            }
            std::fs::write(&path, config.to_string())?;
        }
        Ok(Crun { directory: directory.to_owned() })
    }

    /// Containers that come and go in a second.
    pub async fn rate(&self, count: usize, lanes: usize) -> Result<f64> {
        let begun = Instant::now();
        let lane = |lane: usize| {
            self.shell(format!(
                "for i in $(seq {}); do $crun run -b {} true-{lane}-$i || exit 1; done",
                count / lanes,
                self.directory.join("true").display()
            ))
        };
        futures_util::future::try_join_all((0..lanes).map(lane)).await?;
        Ok((count / lanes * lanes) as f64 / begun.elapsed().as_secs_f64())
    }

    /// Starts so many that stay, as many at a time as there are lanes. Answers their processes.
    pub async fn start_many(&self, count: usize, lanes: usize) -> Result<Vec<u32>> {
        let (bundle, pids) = (self.directory.join("sleep"), self.directory.join("pids"));
        std::fs::create_dir_all(&pids)?;
        let (bundle, place) = (bundle.display(), pids.display());
        let lane = |lane: usize| {
            self.shell(format!(
                "for i in $(seq {lane} {lanes} {count}); do $crun run -d --pid-file {place}/$i -b {bundle} sleep-$i || exit 1; done"
            ))
        };
        futures_util::future::try_join_all((1..=lanes).map(lane)).await?;
        let read = |i| Ok(std::fs::read_to_string(pids.join(format!("{i}")))?.trim().parse()?);
        (1..=count).map(read).collect()
    }

    pub async fn end_many(&self, count: usize) -> Result<()> {
        self.shell(format!("for i in $(seq {count}); do $crun delete -f sleep-$i; done")).await
    }

    async fn shell(&self, script: String) -> Result<()> {
        let root = self.directory.join("state");
        let setup = "umount /sys/fs/cgroup/unified 2>/dev/null";
        let script = format!("{setup}; crun='crun --root {} --cgroup-manager=disabled'; {script}", root.display());
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let ended = command.kill_on_drop(true).status().await.context("starting `unshare`")?;
        ensure!(ended.success(), "`crun` failed: {ended}");
        Ok(())
    }
}
