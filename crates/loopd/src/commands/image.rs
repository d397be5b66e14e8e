//! `loopd image build`: what virtual machines of rooms are made of. It talks to no server: one that runs takes what was built for its
//! next room.

use crate::args::{BuildArgs, ImageCommand, Place};
use crate::compose;
use crate::exit::Exit;
use crate::settings::{Settings, process_env};
use anyhow::{Context, Result};
use loopd_domain::environment::RootSource;
use loopd_guest_image::{
    BaseSource, GuestImage, GuestImages, KernelSource, Order, Programs, Progress, Scratch, disk_bytes,
};
use loopd_images::Images;
use loopd_sandbox::programs::{CELL, GUEST, JAIL};
use loopd_sandbox::progress::Teller;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// Characters of a fingerprint that tell two apart.
const FINGERPRINT_CHARS: usize = 12;

pub async fn run(place: &Place, command: &ImageCommand) -> Result<Exit> {
    let ImageCommand::Build(args) = command;
    let settings = Settings::resolve(place, &process_env)?;
    let images = GuestImages::new(&settings.data);
    let begun = Instant::now();
    let (base, scratch) = base(args, &settings, &images).await?;
    let order = Order { kernel: kernel(args), base };
    let built = tokio::task::spawn_blocking(move || {
        let mut shown = Shown::default();
        let programs = Programs { guest: GUEST, jail: JAIL, cell: CELL };
        let built = images.build(&order, &programs, &mut |progress| shown.tell(progress));
        drop(scratch);
        shown.end();
        built
    });
    let image = built.await??;
    tell(&image, begun.elapsed(), args.json)?;
    Ok(Exit::Success)
}

fn kernel(args: &BuildArgs) -> KernelSource {
    match (&args.kernel, &args.kernel_package) {
        (Some(kernel), _) => KernelSource::File { kernel: kernel.clone(), modules: args.modules.clone() },
        (None, Some(name)) => KernelSource::Package(name.clone()),
        (None, None) => KernelSource::usual(),
    }
}

/// What the base disk is to be made of, and where that lies if it was fetched for it.
async fn base(args: &BuildArgs, settings: &Settings, images: &GuestImages) -> Result<(BaseSource, Option<Scratch>)> {
    if let Some(directory) = &args.directory {
        return Ok((BaseSource::Directory(directory.clone()), None));
    }
    if let Some(image) = &args.image {
        let scratch = images.scratch()?;
        let layers = layers(image, settings, scratch.path()).await?;
        return Ok((BaseSource::Layers(layers), Some(scratch)));
    }
    let base = match args.packages.is_empty() {
        true => BaseSource::usual(),
        false => BaseSource::Packages { names: args.packages.clone(), is_usual: false },
    };
    Ok((base, None))
}

/// Fetches or unpacks an image into a directory of its own: the server's cache of layers is the server's.
async fn layers(image: &str, settings: &Settings, into: &Path) -> Result<Vec<PathBuf>> {
    eprintln!("fetching {image}");
    let mut roots = settings.images(&process_env)?;
    let source = match std::fs::canonicalize(image) {
        Ok(path) if path.is_file() => {
            // Who runs this command is the operator, and names the file.
            roots.directories = vec![path.clone()];
            RootSource::Archive { path: path.to_str().context("the archive's path is not UTF-8")?.to_owned() }
        }
        _ => RootSource::Image { reference: image.to_owned() },
    };
    let images = Images::open(into, roots, compose::system_clock())?;
    Ok(images.resolve(&source, &Teller::silent()).await?.root.layers().to_vec())
}

/// Steps, as they begin and end, for a person who waits.
#[derive(Default)]
struct Shown {
    step: Option<Instant>,
}

impl Shown {
    fn tell(&mut self, progress: Progress) {
        match progress {
            Progress::Step(text) => {
                self.end();
                eprint!("{text} …");
                self.step = Some(Instant::now());
            }
            Progress::Done { bytes } => {
                let seconds = self.step.take().map_or(0.0, |begun| begun.elapsed().as_secs_f64());
                match bytes {
                    0 => eprintln!(" {seconds:.1} s"),
                    _ => eprintln!(" {}, {seconds:.1} s", size(bytes)),
                }
            }
            Progress::Cached => {
                self.step = None;
                eprintln!(" is there");
            }
        }
    }

    /// A step that failed has not said so.
    fn end(&mut self) {
        if self.step.take().is_some() {
            eprintln!();
        }
    }
}

fn tell(image: &GuestImage, took: Duration, as_json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let parts = [("kernel", &image.kernel), ("initramfs", &image.initramfs), ("base", &image.base)];
    if as_json {
        let mut value = json!({"fingerprint": image.fingerprint, "seconds": took.as_secs_f64()});
        for (name, path) in parts {
            value[name] = json!({"path": path, "bytes": disk_bytes(path)?});
        }
        writeln!(out, "{value}")?;
        return Ok(());
    }
    let fingerprint: String = image.fingerprint.chars().take(FINGERPRINT_CHARS).collect();
    writeln!(out, "image {fingerprint}, built in {:.1} s", took.as_secs_f64())?;
    for (name, path) in parts {
        writeln!(out, "  {name:<10}{:>9}  {}", size(disk_bytes(path)?), path.display())?;
    }
    Ok(())
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.0} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        let sizes = [0, 4_096, 26_713_492, 3_000_000_000].map(size);
        assert_eq!(sizes, ["0 kB", "4 kB", "26.7 MB", "3.0 GB"]);
    }
}
