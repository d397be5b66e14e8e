//! A room's root in the launcher's words: paths of the host become paths of its stage.

use crate::{RoomRoot, SandboxError};
use loopd_domain::limits::{IMAGE_LAYERS_MAX, ROOT_PATH_CHARS_MAX};
use loopd_jail::wire::{PACKET_BYTES_MAX, Root};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// What an order says besides its layers.
const ORDER_BYTES: usize = 64;
/// What a layer costs in an order besides its path.
const LAYER_BYTES: usize = 8;

/// Directories that roots may lie in are told to the launcher once, beside other things.
const DIRECTORIES_BYTES_MAX: usize = PACKET_BYTES_MAX / 2;

pub(super) fn check_directories(directories: &[PathBuf]) -> Result<(), SandboxError> {
    let bytes: usize = directories.iter().map(|path| path.as_os_str().len() + LAYER_BYTES).sum();
    match bytes <= DIRECTORIES_BYTES_MAX {
        true => Ok(()),
        false => Err(SandboxError::Environment(format!(
            "directories that roots may lie in have paths of {bytes} bytes; accepted: {DIRECTORIES_BYTES_MAX}"
        ))),
    }
}

pub(super) fn on_stage(data: &Path, roots: &[PathBuf], root: &RoomRoot) -> Result<Root, SandboxError> {
    let RoomRoot::Layers(layers) = root else { return Ok(Root::Stage) };
    if layers.is_empty() || layers.len() > IMAGE_LAYERS_MAX {
        return Err(SandboxError::Environment(format!(
            "it has {} layers; accepted: 1 to {IMAGE_LAYERS_MAX}",
            layers.len()
        )));
    }
    let layers = layers.iter().map(|path| layer(data, roots, path)).collect::<Result<Vec<_>, _>>()?;
    let bytes: usize = ORDER_BYTES + layers.iter().map(|layer| layer.len() + LAYER_BYTES).sum::<usize>();
    match bytes <= PACKET_BYTES_MAX {
        true => Ok(Root::Layers(layers)),
        false => Err(SandboxError::Environment(format!(
            "the paths of its layers have {bytes} bytes; accepted: {PACKET_BYTES_MAX}"
        ))),
    }
}

fn layer(data: &Path, roots: &[PathBuf], path: &Path) -> Result<Vec<u8>, SandboxError> {
    let refused = |why: &str| Err(SandboxError::Environment(format!("layer `{}` {why}", path.display())));
    if path.as_os_str().len() > ROOT_PATH_CHARS_MAX || path.components().any(|part| part == Component::ParentDir) {
        return refused("has no such path as is accepted");
    }
    let below = roots.iter().enumerate().find_map(|(number, directory)| {
        let rest = path.strip_prefix(directory).ok()?;
        Some(Path::new("roots").join(number.to_string()).join(rest))
    });
    let placed = match path.strip_prefix(data) {
        Ok(rest) => Some(Path::new("data").join(rest)),
        Err(_) => below,
    };
    match placed {
        // Joining nothing leaves a slash at the end.
        Some(place) => Ok(place.components().collect::<PathBuf>().as_os_str().as_bytes().to_vec()),
        None => refused("lies neither in the data directory nor in one that rooms may be made of"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staged(layers: &[&str]) -> Result<Root, String> {
        let root = RoomRoot::Layers(layers.iter().map(PathBuf::from).collect());
        let roots = ["/srv/a".into(), "/srv/roots".into()];
        on_stage(Path::new("/data"), &roots, &root).map_err(|fault| fault.to_string())
    }

    #[test]
    fn layers_lie_in_the_data_directory_or_below_a_root_directory() {
        let staged_as = |layer: &str| match staged(&[layer]) {
            Ok(Root::Layers(layers)) => String::from_utf8(layers[0].clone()).unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(staged_as("/data/images/layers/x"), "data/images/layers/x");
        assert_eq!(staged_as("/srv/roots/debian 12"), "roots/1/debian 12");
        assert_eq!(staged_as("/srv/roots"), "roots/1");
        for path in ["/etc", "/data/../etc", "/srv/rootsmore", "data/x"] {
            assert!(staged(&[path]).unwrap_err().contains(path), "{path}");
        }
        assert_eq!(on_stage(Path::new("/d"), &[], &RoomRoot::Host).unwrap(), Root::Stage);
    }

    #[test]
    fn there_is_a_most_of_layers() {
        assert!(staged(&[]).unwrap_err().contains("0 layers"));
        assert!(staged(&["/data/a"; IMAGE_LAYERS_MAX + 1]).unwrap_err().contains("129 layers"));
        let long = format!("/data/{}", "x".repeat(600));
        assert!(staged(&[long.as_str(); IMAGE_LAYERS_MAX]).unwrap_err().contains("accepted: 32768"));
        assert!(
            staged(
                &["/data/images/layers/0123456789012345678901234567890123456789012345678901234567890123";
                    IMAGE_LAYERS_MAX]
            )
            .is_ok()
        );
    }
}
