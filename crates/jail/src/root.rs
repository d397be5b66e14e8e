//! A room whose root is not the stage's: layers on top of each other, and on all of them what every room has.
//!
//! ```text
//!  /layers/top    in memory: mount points, and the files of `/etc` that are ours
//!  /layers/0, 1…  names of the layers, the uppermost first: links to descriptors, so that no path is too long or too strange
//!  /built         overlayfs of these. It has no writable layer: nobody can write there, with any power
//! ```
//!
//! The layers are a stranger's. They are opened by names that lead through no link, and of their content only `/etc/passwd`,
//! `/etc/group` and the list of authorities are read, within bounds.

use crate::fault::{Fault, While};
use crate::{ids, stage};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Bytes of a layer's `/etc/passwd` or `/etc/group` that are read.
const USERS_BYTES_MAX: u64 = 256 << 10;
/// Where a root keeps the authorities that its programs trust, if it does.
const AUTHORITIES: [&str; 2] = ["etc/ssl/certs", "etc/pki"];
/// The files that list them. The first is the one that a room's variables name.
const AUTHORITY_LISTS: [&str; 3] =
    ["etc/ssl/certs/ca-certificates.crt", "etc/pki/tls/certs/ca-bundle.crt", "etc/ssl/cert.pem"];
const LIST_BYTES_MAX: u64 = 4 << 20;
/// Of loopd, on a stage that has one.
const AUTHORITY: &str = "etc/loopd/ca.crt";
const HOST_AUTHORITIES: &str = "etc/ssl/certs";
const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Puts the root together. Answers where it is mounted.
pub(crate) fn build(layers: &[Vec<u8>]) -> Result<&'static str, Fault> {
    let opened = layers.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    stage::in_memory(Path::new(stage::LAYERS), "mode=0755").while_doing("mounting /layers")?;
    let borrows = lay_top(&opened)?;
    let mut names = vec!["top".to_owned()];
    for (number, layer) in opened.iter().enumerate() {
        let name = number.to_string();
        symlink(format!("/proc/self/fd/{}", layer.as_raw_fd()), Path::new(stage::LAYERS).join(&name))
            .while_doing("naming a layer")?;
        names.push(name);
    }
    rustix::process::chdir(stage::LAYERS).while_doing("entering /layers")?;
    let options = CString::new(format!("lowerdir={},userxattr", names.join(":")))
        .map_err(|_| Fault::new("naming the layers", Errno::INVAL))?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("layers", stage::BUILT, "overlay", flags, &*options)
        .while_doing("mounting the layers of the room's root")?;
    stage::seal(Path::new(stage::BUILT))?;
    for name in borrows {
        rustix::mount::mount_bind_recursive(Path::new(stage::ROOM).join(&name), Path::new(stage::BUILT).join(&name))
            .while_doing(&format!("mounting /{}", name.display()))?;
    }
    rustix::process::chdir("/").while_doing("leaving /layers")?;
    Ok(stage::BUILT)
}

/// Opens a layer by its path on the stage.
fn open(path: &[u8]) -> Result<OwnedFd, Fault> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open("/", flags, Mode::empty())
        .and_then(|stage| rustix::fs::openat2(&stage, OsStr::from_bytes(path), flags, Mode::empty(), INSIDE));
    opened.while_doing(&format!("opening the layer /{}", String::from_utf8_lossy(path)))
}

/// Makes the layer that is ours. Answers what is then to be mounted from the stage's room.
fn lay_top(layers: &[OwnedFd]) -> Result<Vec<PathBuf>, Fault> {
    let top = Path::new(stage::LAYERS).join("top");
    let mut borrows = Vec::new();
    for name in stage::DIRECTORIES {
        fs::create_dir_all(top.join(name)).while_doing(&format!("making /{name}"))?;
    }
    for (target, link) in stage::LINKS {
        symlink(target, top.join(link)).while_doing(&format!("making /{link}"))?;
    }
    let has = |names: &[&str]| layers.iter().any(|layer| names.iter().any(|name| found(layer, name).is_some()));
    let shell = if has(&["bin/bash", "usr/bin/bash"]) { "/bin/bash" } else { "/bin/sh" };
    for (name, text) in stage::etc(shell) {
        let theirs = matches!(name, "passwd" | "group")
            .then(|| read(layers, &format!("etc/{name}"), USERS_BYTES_MAX))
            .unwrap_or_default();
        let merged = merge(&text, &theirs);
        fs::write(top.join("etc").join(name), merged).while_doing(&format!("writing /etc/{name}"))?;
    }
    for name in stage::DEVICES {
        let device = Path::new("dev").join(name);
        if Path::new(stage::ROOM).join(&device).exists() {
            File::create(top.join(&device)).while_doing(&format!("making /dev/{name}"))?;
            borrows.push(device);
        }
    }
    let stage_room = Path::new(stage::ROOM);
    if stage_room.join(AUTHORITY).exists() {
        trust(layers, &top)?;
    } else if !has(&AUTHORITIES) && stage_room.join(HOST_AUTHORITIES).is_dir() {
        fs::create_dir_all(top.join(HOST_AUTHORITIES)).while_doing("making /etc/ssl/certs")?;
        borrows.push(PathBuf::from(HOST_AUTHORITIES));
    }
    Ok(borrows)
}

/// Has programs trust loopd's authority beside those that the image trusts, or the host where it trusts none ([`crate::trust`]).
fn trust(layers: &[OwnedFd], top: &Path) -> Result<(), Fault> {
    const DOING: &str = "writing the authorities that programs trust";
    let stage_room = Path::new(stage::ROOM);
    let authority = fs::read_to_string(stage_room.join(AUTHORITY)).while_doing(DOING)?;
    let theirs = AUTHORITY_LISTS.iter().map(|name| read(layers, name, LIST_BYTES_MAX)).find(|list| !list.is_empty());
    let list = match theirs {
        Some(list) => format!("{}\n{authority}", list.trim_end()),
        None => fs::read_to_string(stage_room.join(AUTHORITY_LISTS[0])).while_doing(DOING)?,
    };
    for (name, text) in [(AUTHORITY_LISTS[0], &list), (AUTHORITY, &authority)] {
        let path = top.join(name);
        fs::create_dir_all(path.parent().unwrap_or(top)).and_then(|()| fs::write(path, text)).while_doing(DOING)?;
    }
    Ok(())
}

/// What kind of thing a layer has under this name.
fn found(layer: &OwnedFd, name: &str) -> Option<FileType> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat2(layer, name, flags, Mode::empty(), INSIDE & !ResolveFlags::NO_SYMLINKS).ok()?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&opened).ok()?.st_mode);
    // A device is how a layer says that those below it do not count.
    (kind != FileType::CharacterDevice).then_some(kind)
}

/// A text file as the uppermost layer that has one has it. One that is no such file, or cannot be read, is as good as none.
fn read(layers: &[OwnedFd], name: &str, most: u64) -> String {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    for layer in layers {
        let file = match rustix::fs::openat2(layer, name, flags, Mode::empty(), INSIDE) {
            Err(Errno::NOENT) => continue,
            Err(_) => return String::new(),
            Ok(file) => file,
        };
        let regular =
            rustix::fs::fstat(file.as_fd()).is_ok_and(|f| FileType::from_raw_mode(f.st_mode) == FileType::RegularFile);
        let mut text = String::new();
        let read = regular.then(|| File::from(file).take(most).read_to_string(&mut text));
        return if matches!(read, Some(Ok(_))) { text } else { String::new() };
    }
    String::new()
}

/// Our users, and those of the image whose names and ids are not ours.
fn merge(ours: &str, theirs: &str) -> String {
    let key = |line: &str| -> Option<(String, u32)> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        Some((name.to_owned(), fields.nth(1)?.parse().ok()?))
    };
    let taken: Vec<(String, u32)> = ours.lines().filter_map(key).collect();
    let mut merged = ours.to_owned();
    for line in theirs.lines() {
        let Some((name, id)) = key(line) else { continue };
        if id != ids::AGENT && taken.iter().all(|(known, number)| *known != name && *number != id) {
            merged.push_str(line);
            merged.push('\n');
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_images_users_stay_and_ours_win() {
        let theirs = "root:x:0:0:evil:/:/bin/evil\nnode:x:1000:1000::/home/node:/bin/bash\nwww:x:33:33::/:/bin/sh\nagent:x:5:5::/:\n\nbroken\n:x:7:7\nx:y:z\n";
        let [(_, passwd), ..] = stage::etc("/bin/sh");
        let merged = merge(&passwd, theirs);
        assert!(merged.starts_with(&passwd) && passwd.contains("agent:/home/agent:/bin/sh\n"));
        assert_eq!(merged[passwd.len()..], *"www:x:33:33::/:/bin/sh\n");
        let names: Vec<_> = merged.lines().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(names, ["root", "agent", "nobody", "www"]);
    }
}
