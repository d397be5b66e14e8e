//! Kernel modules that the initramfs carries: `/modules/order` names them, a line each, in the order in which they are loaded.

use crate::fault::{Fault, While};
use rustix::io::Errno;
use std::fs::{self, File};
use std::path::Path;

const DIRECTORY: &str = "/modules";

/// Loads all of them. What is loaded already, or is built in, is fine. They take no more memory afterwards than they need.
pub fn load() -> Result<(), Fault> {
    let directory = Path::new(DIRECTORY);
    let order = match fs::read_to_string(directory.join("order")) {
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.while_doing("reading /modules/order")?,
    };
    for name in names(&order)? {
        let doing = format!("loading the module {name}");
        let file = File::open(directory.join(name)).while_doing(&doing)?;
        match rustix::system::finit_module(&file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            other => other.while_doing(&doing)?,
        }
    }
    fs::remove_dir_all(directory).while_doing("removing /modules")
}

/// File names, none of which leads elsewhere.
fn names(order: &str) -> Result<Vec<&str>, Fault> {
    let lines = order.lines().map(str::trim).filter(|line| !line.is_empty());
    let check = |name: &'_ str| match name.contains('/') || name.starts_with('.') {
        true => Err(Fault::new(
            "reading /modules/order",
            format!("`{name}` is no module; accepted: names of files beside it, a line each"),
        )),
        false => Ok(()),
    };
    lines.map(|name| check(name).map(|()| name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_lines() {
        assert_eq!(names("virtio.ko\n\n virtio_blk.ko \n").unwrap(), ["virtio.ko", "virtio_blk.ko"]);
        assert!(names("").unwrap().is_empty());
        for bad in ["../virtio.ko", "a/b.ko", "..", ".hidden"] {
            assert!(names(bad).unwrap_err().to_string().contains(bad), "{bad}");
        }
    }
}
