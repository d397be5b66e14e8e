//! A room's root in the launcher's words: paths of the host become paths of its stage.

use crate::room::{self, root::Placed};
use crate::{RoomRoot, SandboxError};
use loopd_jail::wire::{PACKET_BYTES_MAX, Root};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

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
    if *root == RoomRoot::Host {
        return Ok(Root::Stage);
    }
    let layers: Vec<Vec<u8>> = room::root::place(data, roots, root.layers())?.iter().map(staged).collect();
    let bytes: usize = ORDER_BYTES + layers.iter().map(|layer| layer.len() + LAYER_BYTES).sum::<usize>();
    match bytes <= PACKET_BYTES_MAX {
        true if matches!(root, RoomRoot::HostWith(_)) => Ok(Root::Over(layers)),
        true => Ok(Root::Layers(layers)),
        false => Err(SandboxError::Environment(format!(
            "the paths of its layers have {bytes} bytes; accepted: {PACKET_BYTES_MAX}"
        ))),
    }
}

fn staged(placed: &Placed) -> Vec<u8> {
    let (top, rest) = match placed {
        Placed::Data(rest) => (PathBuf::from("data"), rest),
        Placed::Root(number, rest) => (Path::new("roots").join(number.to_string()), rest),
    };
    // Joining nothing leaves a slash at the end.
    top.join(rest).components().collect::<PathBuf>().as_os_str().as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use loopd_domain::limits::IMAGE_LAYERS_MAX;

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
        let over = RoomRoot::HostWith(vec!["/d/x".into()]);
        assert_eq!(on_stage(Path::new("/d"), &[], &over).unwrap(), Root::Over(vec![b"data/x".to_vec()]));
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
