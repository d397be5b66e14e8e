//! Where a benchmark runs: the tree, the binary under test, the peers' packages, a directory for data.

use crate::tools::{Tools, run};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use tokio::process::Command;

pub struct Place {
    /// The repository.
    pub root: PathBuf,
    /// The release binary under test.
    pub loopd: PathBuf,
    pub tools: Tools,
    target: PathBuf,
    /// Databases and logs go here: on the disk of the build directory, not in memory.
    pub work: PathBuf,
}

impl Place {
    /// Builds the binary under test, so that what is measured is what the tree says.
    pub async fn prepare() -> Result<Place> {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate lies in the repository")?.to_owned();
        let program = std::env::current_exe()?;
        let target = program.ancestors().nth(2).context("this program lies in `target/<profile>`")?.to_owned();
        let build = ["build", "--release", "--quiet", "--package", "loopd", "--target-dir"];
        run(Command::new("cargo").args(build).arg(&target).current_dir(&root)).await?;
        let work = target.join("bench");
        std::fs::create_dir_all(&work)?;
        let tools = Tools::new(&root, &target);
        Ok(Place { loopd: target.join("release/loopd"), root, tools, target, work })
    }

    /// Builds a program that is an example of another crate, as the binary under test is built. Its path.
    pub async fn example(&self, package: &str, name: &str) -> Result<PathBuf> {
        let build = ["build", "--release", "--quiet", "--package", package, "--example", name, "--target-dir"];
        run(Command::new("cargo").args(build).arg(&self.target).current_dir(&self.root)).await?;
        Ok(self.target.join("release/examples").join(name))
    }
}
