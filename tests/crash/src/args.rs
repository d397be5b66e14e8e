//! What the harness is told.

use crate::plan::Class;
use crate::room::Isolation;
use anyhow::{Context, Result};
use clap::Parser;
use std::path::PathBuf;

#[derive(Debug, Clone, Parser)]
#[command(name = "loopd-crash", about = "Kills a real server at random points and judges what became of its sessions")]
pub struct Args {
    /// The server under test, built with the feature `failpoints`.
    #[arg(long)]
    pub binary: PathBuf,
    /// Where data directories are made; those of failed points are kept.
    #[arg(long)]
    pub directory: PathBuf,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Faults to inject, over all lanes.
    #[arg(long, default_value_t = 200)]
    pub points: u64,
    /// A run that struck fewer has failed.
    #[arg(long, default_value_t = 1)]
    pub at_least: u64,
    /// Sessions at work in each lane when a fault strikes.
    #[arg(long, default_value_t = 6)]
    pub sessions: u64,
    /// No new round after this long; what was done until then is judged and reported.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Servers under test at the same time, each with a data directory and a process of its own.
    #[arg(long, default_value_t = 3)]
    pub lanes: u64,
    /// Only these kinds of faults, by the names that the report uses.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Only calls of these effect classes.
    #[arg(long, value_delimiter = ',', value_parser = Class::parse, default_values = Class::ALL.map(Class::name))]
    pub classes: Vec<Class>,
    /// The walls of the sessions' rooms.
    #[arg(long, value_enum, default_value = "namespaces")]
    pub isolation: Isolation,
    /// A data directory with an image of virtual machines, as `loopd image build --data` makes it.
    #[arg(long, required_if_eq("isolation", "microvm"))]
    pub guest: Option<PathBuf>,
    /// The round that a lane begins with: its faults are those of that round in a whole run.
    #[arg(long, default_value_t = 0)]
    pub first_round: u64,
    /// Writes the report as markdown.
    #[arg(long)]
    pub report: Option<PathBuf>,
    /// Set by the harness itself: be this lane.
    #[arg(long, hide = true)]
    pub lane: Option<u64>,
}

impl Args {
    /// With paths that hold wherever a server's working directory is.
    pub fn absolute(mut self) -> Result<Self> {
        let name = |path: &PathBuf| format!("`{}`", path.display());
        self.binary = std::path::absolute(&self.binary).with_context(|| name(&self.binary))?;
        self.directory = std::path::absolute(&self.directory).with_context(|| name(&self.directory))?;
        if let Some(guest) = &mut self.guest {
            *guest = std::path::absolute(&*guest).with_context(|| name(guest))?;
        }
        Ok(self)
    }
}
