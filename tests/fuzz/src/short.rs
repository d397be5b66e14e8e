//! The short form: the corpus, then mutations of it for about a second, with a fixed seed.
//!
//! The order of inputs depends on nothing but seed and corpus; a slower machine only gets less far. A failing input is
//! written to a file, and its path printed: `cargo xtask fuzz TARGET FILE` runs it again.

use crate::Target;
use mutatis::Session;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SEED: u64 = 1;
/// Longest input: readers of strangers' words have limits of their own, and small inputs find more in a second.
const INPUT_BYTES_MAX: usize = 16 << 10;
/// Mutations laid over each other.
const LAYERS_MAX: usize = 6;

/// Runs a target over its corpus, then over mutations for so long. Gives how many inputs it had.
#[allow(clippy::disallowed_methods, reason = "how far it gets is a matter of time; what it tries is not")]
pub fn run(target: &Target, time: Duration) -> usize {
    let seeds = corpus(target.name);
    assert!(!seeds.is_empty(), "`{}` has no corpus", target.name);
    seeds.iter().for_each(|seed| input(target, seed));
    let mut mutator = Mutator { session: Session::new().seed(SEED), state: SEED };
    let (end, mut count) = (Instant::now() + time, seeds.len());
    while Instant::now() < end {
        input(target, &mutator.next(&seeds));
        count += 1;
    }
    count
}

/// Runs a target over one input. A panic is passed on, after the input was written to a file.
pub fn input(target: &Target, bytes: &[u8]) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))) else { return };
    let path = failures().join(format!("{}-{}", target.name, digest(bytes)));
    let written = fs::create_dir_all(failures()).and_then(|()| fs::write(&path, bytes));
    match written {
        Ok(()) => eprintln!("`{}` fails on `{}`; again: cargo xtask fuzz {0} {1}", target.name, path.display()),
        Err(fault) => eprintln!("`{}` fails, and `{}` cannot be written: {fault}", target.name, path.display()),
    }
    resume_unwind(panic)
}

/// The seeds of a target, in the order of their names.
pub fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let entries = fs::read_dir(&directory).unwrap_or_else(|fault| panic!("`{}`: {fault}", directory.display()));
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap_or_else(|fault| panic!("`{}`: {fault}", path.display()))).collect()
}

/// Where failing inputs are kept.
pub fn failures() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("."));
    root.join("target/fuzz-failures")
}

fn digest(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes)[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Mutator {
    session: Session,
    state: u64,
}

impl Mutator {
    /// One seed, changed. `mutatis` changes bytes and lists of them; whole stretches are moved here, since a grammar is seldom
    /// found byte by byte.
    fn next(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(LAYERS_MAX) {
            match self.below(8) {
                0 => self.splice(&mut bytes, &seeds[self.state as usize % seeds.len()]),
                1 => {
                    let copy = bytes.clone();
                    self.splice(&mut bytes, &copy);
                }
                2 => {
                    let stretch = self.stretch(&bytes);
                    bytes.drain(stretch);
                }
                3 => {
                    let at = self.below(bytes.len() + 1);
                    bytes.truncate(at);
                }
                // It fails only where there is nothing left to mutate, which the next layer sees as well.
                _ => drop(self.session.mutate(&mut bytes)),
            }
        }
        bytes.truncate(INPUT_BYTES_MAX);
        bytes
    }

    /// Puts a stretch of `from` in the place of one of `into`.
    fn splice(&mut self, into: &mut Vec<u8>, from: &[u8]) {
        let (taken, place) = (self.stretch(from), self.stretch(into));
        into.splice(place, from[taken].iter().copied());
    }

    fn stretch(&mut self, of: &[u8]) -> std::ops::Range<usize> {
        let start = self.below(of.len() + 1);
        start..start + self.below((of.len() - start).min(64) + 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) as usize % end.max(1)
    }
}
