//! Kernel and modules of a Debian package's file, without Debian's programs: an `ar` archive with a `tar` archive in it, deb(5).

use crate::GuestImageError;
use crate::unpack::Format;
use loopd_domain::limits::GUEST_PART_BYTES_MAX;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Component, Path, PathBuf};

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER_BYTES: usize = 60;

pub(crate) fn is_package(begins: &[u8]) -> bool {
    begins.starts_with(MAGIC)
}

pub(crate) struct Unpacked {
    pub kernel: PathBuf,
    /// With the directory `kernel` in it.
    pub modules: PathBuf,
}

/// Unpacks what belongs to a kernel.
pub(crate) fn unpack(file: &Path, into: &Path) -> Result<Unpacked, GuestImageError> {
    let refused = |why: String| GuestImageError::broken(format!("`{}`: {why}", file.display()));
    let data = Data::find(File::open(file).map_err(GuestImageError::disk(file))?)
        .map_err(|fault| refused(format!("no Debian package: {fault}")))?;
    let mut found = Found::default();
    let reader = data.reader().map_err(|fault| refused(fault.to_string()))?;
    let mut archive = tar::Archive::new(reader.take(GUEST_PART_BYTES_MAX * 4));
    for entry in archive.entries().map_err(|fault| refused(fault.to_string()))? {
        let mut entry = entry.map_err(|fault| refused(fault.to_string()))?;
        let path = entry.path().map_err(|fault| refused(fault.to_string()))?.into_owned();
        let Some(path) = below(&path).filter(|_| entry.header().entry_type().is_file()) else { continue };
        let Some(path) = found.wants(&path) else { continue };
        let to = into.join(path);
        let parent = to.parent().expect("it is below a directory");
        fs::create_dir_all(parent).map_err(GuestImageError::disk(parent))?;
        let copied = File::create(&to).and_then(|mut to| io::copy(&mut entry, &mut to));
        copied.map_err(GuestImageError::disk(&to))?;
    }
    match (found.kernel, found.modules) {
        (Some(kernel), Some(modules)) => Ok(Unpacked { kernel: into.join(kernel), modules: into.join(modules) }),
        (None, _) => Err(refused(
            "the package has no kernel (`/boot/vmlinuz-…`); one that only depends on one will not do".into(),
        )),
        (_, None) => {
            Err(refused("the package has no modules (`/lib/modules/…`); give `vmlinuz` and modules apart".into()))
        }
    }
}

/// What is in the package, with its path there.
#[derive(Default)]
struct Found {
    kernel: Option<PathBuf>,
    modules: Option<PathBuf>,
}

impl Found {
    /// Where to unpack it, if it is wanted.
    fn wants(&mut self, path: &Path) -> Option<PathBuf> {
        let path = path.strip_prefix("usr").unwrap_or(path);
        if path.parent() == Some(Path::new("boot")) && path.file_name()?.to_str()?.starts_with("vmlinuz-") {
            self.kernel = Some(path.to_owned());
            return self.kernel.clone();
        }
        let release = path.strip_prefix("lib/modules").ok()?.iter().next()?;
        self.modules = Some(Path::new("lib/modules").join(release));
        Some(path.to_owned())
    }
}

/// A path of a stranger's archive that leads nowhere else.
fn below(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(clean)
}

/// `data.tar`, in one of the packings.
struct Data {
    file: io::Take<File>,
}

impl Data {
    fn find(mut file: File) -> io::Result<Self> {
        let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut magic = [0; MAGIC.len()];
        file.read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(broken("it does not begin as one"));
        }
        loop {
            let mut header = [0; HEADER_BYTES];
            file.read_exact(&mut header)?;
            let size = std::str::from_utf8(&header[48..58]).ok().and_then(|text| text.trim_end().parse().ok());
            let size: u64 = size.ok_or_else(|| broken("a member has no length"))?;
            if header.starts_with(b"data.tar") {
                return Ok(Data { file: file.take(size) });
            }
            let skip = i64::try_from(size.next_multiple_of(2)).map_err(|_| broken("a member is too long"))?;
            file.seek(SeekFrom::Current(skip))?;
        }
    }

    fn reader(self) -> io::Result<Box<dyn Read>> {
        let mut file = BufReader::new(self.file);
        match Format::of(io::BufRead::fill_buf(&mut file)?) {
            Some(format) => format.reader(file),
            None => Ok(Box::new(file)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(names: &[&str]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.set_size(3);
            header.set_mode(0o644);
            // `set_path` would refuse what a stranger may well write.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            archive.append(&header, &b"abc"[..]).unwrap();
        }
        let packed = zstd::encode_all(&archive.into_inner().unwrap()[..], 1).unwrap();
        let mut bytes = MAGIC.to_vec();
        for (name, content) in [("debian-binary", &b"2.0"[..]), ("data.tar.zst", &packed)] {
            bytes.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len()).bytes());
            bytes.extend(content);
            bytes.resize(bytes.len().next_multiple_of(2), b'\n');
        }
        bytes
    }

    fn unpacked(names: &[&str]) -> (tempfile::TempDir, Result<Unpacked, GuestImageError>) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("k.deb");
        fs::write(&file, package(names)).unwrap();
        let done = unpack(&file, &directory.path().join("in/to"));
        (directory, done)
    }

    #[test]
    fn kernel_and_modules_are_found_before_and_after_the_merge_of_usr() {
        for prefix in ["./lib", "./usr/lib"] {
            let module = format!("{prefix}/modules/6.1/kernel/a.ko");
            let (_directory, done) = unpacked(&["./boot/config-6.1", "./boot/vmlinuz-6.1", &module]);
            let done = done.unwrap();
            assert_eq!(fs::read(&done.kernel).unwrap(), b"abc");
            assert_eq!(fs::read(done.modules.join("kernel/a.ko")).unwrap(), b"abc");
        }
    }

    #[test]
    fn a_package_leads_nowhere_else() {
        let (directory, done) = unpacked(&["./lib/modules/6.1/../../../../../out.ko", "/boot/vmlinuz-1"]);
        assert!(done.is_err());
        assert!(!directory.path().join("out.ko").exists());
        assert!(!directory.path().join("in/to/boot").exists());
    }

    #[test]
    fn a_package_without_a_kernel_says_so() {
        let (_directory, done) = unpacked(&["./usr/share/doc/x"]);
        assert!(done.err().unwrap().to_string().contains("has no kernel"));
        let (_directory, done) = unpacked(&["./boot/vmlinuz-6.1"]);
        assert!(done.err().unwrap().to_string().contains("has no modules"));
    }
}
