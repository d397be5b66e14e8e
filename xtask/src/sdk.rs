//! The official SDKs, unmodified, against a real server on a free port.

use crate::place;
use crate::tally::Tally;
use crate::tools;
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The key that the server wants, so that both ways of showing one are tried for real.
const KEY: &str = "sk-loopd-tests";
/// Packages come from nowhere: tests want to see how that is told, and not to install any.
const CONFIG: &str = "[images]\npip_index = \"http://127.0.0.1:9/simple\"\n";

/// Base disk of the guests: what the tests' own have (`tests/src/guest.rs`), so that it is made once.
const PACKAGES: &str = "bash,coreutils,curl,findutils,grep,iproute2,procps,python3,sed,tar,util-linux";

/// With the Debian package of a guest's kernel also what is done in rooms with a kernel of their own.
pub fn run(loopd: &Path, kernel: Option<&Path>) -> Result<Tally> {
    tools::packages()?;
    let (python, node) = (tools::python()?, tools::node()?);
    let image = kernel.map(|kernel| image(loopd, kernel)).transpose()?;
    let server = Server::start(loopd, image.as_deref())?;
    let mut tally = Tally::default();

    let mut unittest = server.client(&python.program);
    // Some tests want a server with a configuration of its own.
    unittest.env("LOOPD_BINARY", loopd);
    unittest.args(["-m", "unittest", "discover", "-v", "-s", "tests/sdk/python", "-p", "test_*.py"]);
    tally += shown(&mut unittest, Tally::of_unittest)?;

    let mut files = Vec::new();
    for entry in std::fs::read_dir(place::root().join("tests/sdk/node")).context("tests/sdk/node")? {
        let path = entry?.path();
        files.extend(path.to_string_lossy().ends_with(".test.cjs").then_some(path));
    }
    files.sort();
    let mut node_tests = server.client(Path::new("node"));
    node_tests.env("LOOPD_BINARY", loopd).env("NODE_PATH", &node.modules);
    node_tests.args(["--test", "--test-reporter=tap"]).args(files);
    tally += shown(&mut node_tests, Tally::of_tap)?;
    Ok(tally)
}

/// The image that tests of machines have, built if it is not there. Answers the directory that holds it.
fn image(loopd: &Path, kernel: &Path) -> Result<PathBuf> {
    let at = loopd.parent().context("the executable lies nowhere")?.join("test-guest");
    let mut build = place::command(loopd);
    build.args(["image", "build", "--packages", PACKAGES, "--data"]).arg(&at).arg("--kernel").arg(kernel);
    place::run(&mut build)?;
    Ok(at.join("guest"))
}

/// Has a server use an image that lies elsewhere. What is in it is named by its content, and never changed.
fn lend(image: &Path, data: &Path) -> Result<()> {
    let guest = data.join("guest");
    fs::create_dir_all(&guest).with_context(|| format!("`{}`", guest.display()))?;
    for shelf in ["bases", "initramfs", "kernels"] {
        symlink(image.join(shelf), guest.join(shelf)).with_context(|| format!("lending `{shelf}`"))?;
    }
    fs::copy(image.join("current.json"), guest.join("current.json")).context("lending `current.json`")?;
    Ok(())
}

/// Runs a suite, shows what it prints, and counts. A suite that counts nothing, or fails without saying so, did not run.
fn shown(command: &mut Command, count: fn(&str) -> Tally) -> Result<Tally> {
    println!("+ {}", place::typed(command));
    let done = command.output().with_context(|| format!("`{}` cannot be started", place::typed(command)))?;
    let text = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    println!("{text}");
    let tally = count(&text);
    if tally == Tally::default() || (!done.status.success() && tally.failed == 0) {
        bail!("`{}` ended with {} before its tests did", place::typed(command), done.status);
    }
    Ok(tally)
}

/// A server that ends with this value.
struct Server {
    process: Child,
    url: String,
    data: PathBuf,
    has_machines: bool,
}

impl Server {
    fn start(loopd: &Path, image: Option<&Path>) -> Result<Self> {
        let data = place::target().join(format!("sdk-tests-{}", std::process::id()));
        std::fs::create_dir_all(&data).with_context(|| format!("`{}`", data.display()))?;
        let config = data.join("loopd.toml");
        std::fs::write(&config, CONFIG).with_context(|| format!("`{}`", config.display()))?;
        if let Some(image) = image {
            lend(image, &data)?;
        }
        let mut command = place::command(loopd);
        command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(&config).arg("--data").arg(&data);
        command.env("LOOPD_API_KEY", KEY).env("LOOPD_LOG", "warn").stdout(Stdio::piped());
        let mut process = command.spawn().with_context(|| format!("`{}` cannot be started", place::typed(&command)))?;
        let mut line = String::new();
        let out = process.stdout.take().expect("standard output is piped");
        BufReader::new(out).read_line(&mut line).context("the server's first line cannot be read")?;
        let url = line.trim().strip_prefix("loopd serves ").map(str::to_owned);
        let mut server = Server { process, url: String::new(), data, has_machines: image.is_some() };
        server.url = url.with_context(|| format!("the server did not say where it serves, but `{}`", line.trim()))?;
        Ok(server)
    }

    fn client(&self, program: &Path) -> Command {
        let mut command = place::command(program);
        command.env("LOOPD_URL", &self.url).env("LOOPD_API_KEY", KEY);
        command.env("ANTHROPIC_BASE_URL", &self.url).env("ANTHROPIC_API_KEY", KEY);
        command.env_remove("ANTHROPIC_AUTH_TOKEN");
        if self.has_machines {
            command.env("LOOPD_TEST_MACHINES", "1");
        }
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(fault) = self.process.kill().and_then(|()| self.process.wait()) {
            eprintln!("the server for the SDK tests did not end: {fault}");
        }
        if let Err(fault) = std::fs::remove_dir_all(&self.data) {
            eprintln!("`{}` stays behind: {fault}", self.data.display());
        }
    }
}
