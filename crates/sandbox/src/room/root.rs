//! Where directory trees that rooms are made of may lie: in the data directory, or in one that the operator named.

use crate::SandboxError;
use loopd_domain::limits::{IMAGE_LAYERS_MAX, ROOT_PATH_CHARS_MAX};
use std::path::{Component, Path, PathBuf};

/// A tree, by the directory that it may lie in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Placed {
    /// Below the data directory.
    Data(PathBuf),
    /// Below the root directory of this number.
    Root(usize, PathBuf),
}

/// Where each of the layers lies, or why they are refused.
pub(crate) fn place(data: &Path, roots: &[PathBuf], layers: &[PathBuf]) -> Result<Vec<Placed>, SandboxError> {
    if layers.is_empty() || layers.len() > IMAGE_LAYERS_MAX {
        return Err(SandboxError::Environment(format!(
            "it has {} layers; accepted: 1 to {IMAGE_LAYERS_MAX}",
            layers.len()
        )));
    }
    layers.iter().map(|path| layer(data, roots, path)).collect()
}

fn layer(data: &Path, roots: &[PathBuf], path: &Path) -> Result<Placed, SandboxError> {
    let refused = |why: &str| Err(SandboxError::Environment(format!("layer `{}` {why}", path.display())));
    if path.as_os_str().len() > ROOT_PATH_CHARS_MAX || path.components().any(|part| part == Component::ParentDir) {
        return refused("has no such path as is accepted");
    }
    if let Ok(rest) = path.strip_prefix(data) {
        return Ok(Placed::Data(rest.to_owned()));
    }
    let below = roots.iter().enumerate().find_map(|(number, directory)| {
        let rest = path.strip_prefix(directory).ok()?;
        Some(Placed::Root(number, rest.to_owned()))
    });
    match below {
        Some(placed) => Ok(placed),
        None => refused("lies neither in the data directory nor in one that rooms may be made of"),
    }
}
