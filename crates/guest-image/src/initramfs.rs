//! What a guest's kernel finds in memory: its first process, the programs of rooms, and modules. A `cpio` archive in the format
//! `newc`, the same bytes each time. <https://docs.kernel.org/driver-api/early-userspace/buffer-format.html>

use crate::Programs;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const DEVICE: u32 = 0o020_000;

/// Not packed: unpacking costs an emulated machine more than reading.
pub(crate) fn archive(programs: &Programs<'_>, modules: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Archive::default();
    for name in ["dev", "modules"] {
        archive.entry(name, DIRECTORY, (0, 0), &[]);
    }
    // The kernel opens it for the first process, before anything could be mounted.
    archive.entry("dev/console", DEVICE | 0o600, (5, 1), &[]);
    archive.entry("dev/null", DEVICE | 0o666, (1, 3), &[]);
    for (name, program) in [("init", programs.guest), ("loopd-jail", programs.jail), ("loopd-cell", programs.cell)] {
        archive.entry(name, PROGRAM, (0, 0), program);
    }
    let mut order = String::new();
    for (name, module) in modules {
        archive.entry(&format!("modules/{name}"), FILE, (0, 0), module);
        order.push_str(name);
        order.push('\n');
    }
    archive.entry("modules/order", FILE, (0, 0), order.as_bytes());
    archive.finish()
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        self.write(name, self.entries, mode, device, content);
    }

    fn finish(mut self) -> Vec<u8> {
        self.write("TRAILER!!!", 0, 0, (0, 0), &[]);
        self.bytes
    }

    fn write(&mut self, name: &str, number: u32, mode: u32, device: (u32, u32), content: &[u8]) {
        let length = u32::try_from(content.len()).expect("a part of a machine has less than 4 GiB");
        let name_bytes = name.len() as u32 + 1;
        let links = if mode & 0o170_000 == DIRECTORY & 0o170_000 { 2 } else { 1 };
        // Number, mode, owner, group, links, time, length, device and device it is, length of the name, sum.
        let fields = [number, mode, 0, 0, links, 0, length, 0, 0, device.0, device.1, name_bytes, 0];
        self.bytes.extend(b"070701");
        fields.iter().for_each(|field| self.bytes.extend(format!("{field:08x}").bytes()));
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    pub(crate) const PROGRAMS: Programs<'_> = Programs { guest: b"guest!", jail: b"jail", cell: b"cel" };

    /// Names, modes and content of an archive.
    pub(crate) fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        let whole = bytes.len();
        loop {
            let at = whole - bytes.len();
            assert_eq!(at % 4, 0);
            assert_eq!(&bytes[..6], b"070701", "at {at}");
            let field = |n: usize| {
                u32::from_str_radix(std::str::from_utf8(&bytes[6 + n * 8..14 + n * 8]).unwrap(), 16).unwrap() as usize
            };
            let (mode, length, name_bytes) = (field(1), field(6), field(11));
            let name = String::from_utf8(bytes[110..110 + name_bytes - 1].to_vec()).unwrap();
            let content = (110 + name_bytes).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(content, bytes.len());
                return entries;
            }
            entries.push((name, mode as u32, bytes[content..content + length].to_vec()));
            bytes = &bytes[(content + length).next_multiple_of(4)..];
        }
    }

    #[test]
    fn all_parts_are_in_it() {
        let modules = [("virtio.ko".to_owned(), vec![1; 5]), ("ext4.ko".to_owned(), vec![2])];
        let entries = read(&archive(&PROGRAMS, &modules));
        let content = |name: &str| entries.iter().find(|entry| entry.0 == name).map(|entry| (entry.1, &entry.2[..]));
        assert_eq!(content("init"), Some((PROGRAM, &b"guest!"[..])));
        assert_eq!(content("loopd-cell"), Some((PROGRAM, &b"cel"[..])));
        assert_eq!(content("modules/virtio.ko"), Some((FILE, &[1; 5][..])));
        assert_eq!(content("modules/order"), Some((FILE, &b"virtio.ko\next4.ko\n"[..])));
        assert_eq!(content("dev/console"), Some((0o020_600, &b""[..])));
        assert_eq!(archive(&PROGRAMS, &modules), archive(&PROGRAMS, &modules));
    }

    #[test]
    fn the_program_that_everybody_has_reads_it_as_well() {
        let cpio = Command::new("cpio").args(["-itv", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut cpio = match cpio {
            Ok(cpio) => cpio,
            Err(absent) => return crate::tests::skip(&format!("`cpio` cannot be started: {absent}")),
        };
        let bytes = archive(&PROGRAMS, &[("a.ko".to_owned(), vec![1, 2, 3])]);
        cpio.stdin.take().unwrap().write_all(&bytes).unwrap();
        let done = cpio.wait_with_output().unwrap();
        let listing = String::from_utf8(done.stdout).unwrap();
        assert!(done.status.success());
        let lines: Vec<&str> = listing.lines().collect();
        assert!(lines[2].starts_with("crw-------   1 root     root       5,   1"), "{listing}");
        assert!(lines[4].starts_with("-rwxr-xr-x   1 root     root            6"), "{listing}");
        assert_eq!(lines.len(), 9, "{listing}");
    }
}
