//! The peers' packages, installed once into `target/tools/bench` from the lock files beside the peers.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// Where things are: the sources of the peers, and their installed packages.
pub struct Tools {
    pub peers: PathBuf,
    installed: PathBuf,
}

impl Tools {
    pub fn new(root: &Path, target: &Path) -> Tools {
        Tools { peers: root.join("bench/peers"), installed: target.join("tools/bench") }
    }

    /// The Python interpreter that has the packages.
    pub fn python(&self) -> PathBuf {
        self.installed.join("python/bin/python")
    }

    /// The directory with `restate.mjs` beside its `node_modules`: modules are looked up from where a script lies.
    pub fn node(&self) -> PathBuf {
        self.installed.join("node")
    }

    pub async fn install(&self) -> Result<()> {
        std::fs::create_dir_all(self.node())?;
        self.install_environment("python").await?;
        self.install_node().await
    }

    /// An environment of its own: it wants older versions of what the other Python peers want.
    pub async fn install_mitmproxy(&self) -> Result<()> {
        self.install_environment("mitmproxy").await
    }

    pub fn mitmdump(&self) -> PathBuf {
        self.installed.join("mitmproxy/bin/mitmdump")
    }

    async fn install_environment(&self, name: &str) -> Result<()> {
        let requirements = self.peers.join(name).join("requirements.txt");
        let wanted = std::fs::read_to_string(&requirements)?;
        let home = self.installed.join(name);
        let stamp = home.join("installed");
        if is_stamped(&stamp, &wanted) {
            return Ok(());
        }
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home)).await?;
        run(Command::new(home.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "-r"])
            .arg(&requirements))
        .await?;
        Ok(std::fs::write(stamp, wanted)?)
    }

    async fn install_node(&self) -> Result<()> {
        let source = self.peers.join("node");
        for file in ["package.json", "package-lock.json", "restate.mjs"] {
            std::fs::copy(source.join(file), self.node().join(file)).with_context(|| format!("copying `{file}`"))?;
        }
        let wanted = std::fs::read_to_string(source.join("package-lock.json"))?;
        let stamp = self.node().join("installed");
        if is_stamped(&stamp, &wanted) {
            return Ok(());
        }
        // Scripts of packages are not needed, and one of these packages would report its installation.
        let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"];
        run(Command::new("npm").args(arguments).current_dir(self.node())).await?;
        Ok(std::fs::write(stamp, wanted)?)
    }
}

fn is_stamped(stamp: &Path, wanted: &str) -> bool {
    std::fs::read_to_string(stamp).is_ok_and(|text| text == wanted)
}

/// Runs a command to its end; its standard error goes to ours, its standard output is returned.
pub async fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{:?}", command.as_std());
    let done = command
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("starting {shown}"))?;
    ensure!(done.status.success(), "{shown} failed: {}", done.status);
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
