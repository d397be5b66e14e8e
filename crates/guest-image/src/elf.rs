//! As much of ELF (64 bit, little-endian) as kernels and their modules need.

use std::ops::Range;

/// The type of a note by Xen in which a kernel says where a machine monitor may start it in 32-bit mode (PVH).
/// <https://xenbits.xen.org/docs/unstable/misc/pvh.html>
const PHYS32_ENTRY: u32 = 18;
const PROGRAM_IS_NOTE: u32 = 4;

pub(crate) fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF\x02\x01")
}

/// Whether a kernel can be started by its PVH entry.
pub(crate) fn has_pvh_entry(bytes: &[u8]) -> bool {
    let programs = Table { bytes, offset: 32, size: 54, count: 56 };
    programs.entries().any(|entry| {
        let note = half(entry, 0).zip(long(entry, 8)).zip(long(entry, 32));
        let Some(((kind, offset), length)) = note else { return false };
        kind == PROGRAM_IS_NOTE && slice(bytes, offset, length).is_some_and(is_pvh_among)
    })
}

fn is_pvh_among(mut notes: &[u8]) -> bool {
    while let (Some(name_bytes), Some(bytes), Some(kind)) = (half(notes, 0), half(notes, 4), half(notes, 8)) {
        let padded = |length: u32| (length as usize).next_multiple_of(4);
        if kind == PHYS32_ENTRY && notes.get(12..16) == Some(b"Xen\0") {
            return true;
        }
        let Some(rest) = notes.get(12 + padded(name_bytes) + padded(bytes)..) else { return false };
        notes = rest;
    }
    false
}

/// The content of the section with this name.
pub(crate) fn section<'a>(bytes: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let sections = Table { bytes, offset: 40, size: 58, count: 60 };
    let names_at = usize::from(short(bytes, 62)?);
    let content = |entry: &[u8]| slice(bytes, long(entry, 24)?, long(entry, 32)?);
    let names = content(sections.entries().nth(names_at)?)?;
    let found = sections.entries().find(|entry| {
        let own = half(entry, 0).and_then(|at| names.get(at as usize..));
        own.is_some_and(|own| own.starts_with(name.as_bytes()) && own.get(name.len()) == Some(&0))
    })?;
    content(found)
}

/// A table of headers; where it lies is written in the file's own header at these places.
struct Table<'a> {
    bytes: &'a [u8],
    offset: usize,
    size: usize,
    count: usize,
}

impl<'a> Table<'a> {
    fn entries(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes;
        let place = long(bytes, self.offset).zip(short(bytes, self.size)).zip(short(bytes, self.count));
        let ((offset, size), count) = place.unwrap_or_default();
        (0..u64::from(count))
            .map_while(move |index| slice(bytes, offset.checked_add(index * u64::from(size))?, u64::from(size)))
    }
}

fn slice(bytes: &[u8], offset: u64, length: u64) -> Option<&[u8]> {
    let range: Range<usize> = usize::try_from(offset).ok()?..usize::try_from(offset.checked_add(length)?).ok()?;
    bytes.get(range)
}

pub(crate) fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

pub(crate) fn half(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn header(programs: (u64, u16), sections: (u64, u16, u16)) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32..40].copy_from_slice(&programs.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&sections.0.to_le_bytes());
        for (at, value) in [(54, 56), (56, programs.1), (58, 64), (60, sections.1), (62, sections.2)] {
            bytes[at..at + 2].copy_from_slice(&u16::to_le_bytes(value));
        }
        bytes
    }

    /// A kernel that says nothing but where its entry is; notes of others come first.
    pub(crate) fn kernel(is_pvh: bool) -> Vec<u8> {
        let note = |name: &[u8; 4], kind: u32| {
            let mut note = Vec::new();
            [4, 8, kind].iter().for_each(|value: &u32| note.extend(value.to_le_bytes()));
            note.extend(name);
            note.extend([0; 8]);
            note
        };
        let mut notes = note(b"GNU\0", PHYS32_ENTRY);
        notes.extend(note(b"Xen\0", if is_pvh { PHYS32_ENTRY } else { 5 }));
        let mut bytes = header((64, 1), (0, 0, 0));
        let mut program = vec![0; 56];
        program[..4].copy_from_slice(&PROGRAM_IS_NOTE.to_le_bytes());
        program[8..16].copy_from_slice(&120_u64.to_le_bytes());
        program[32..40].copy_from_slice(&(notes.len() as u64).to_le_bytes());
        bytes.extend(program);
        bytes.extend(notes);
        bytes
    }

    /// A module with this `.modinfo`.
    pub(crate) fn module(information: &[u8]) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let content = [&names[..], information].concat();
        let table = 64 + content.len() as u64;
        let mut bytes = header((0, 0), (table, 3, 1));
        bytes.extend(&content);
        for (name, offset, length) in [(0, 0, 0), (10, 64, names.len()), (1, 64 + names.len(), information.len())] {
            let mut section = vec![0; 64];
            section[..4].copy_from_slice(&u32::to_le_bytes(name));
            section[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
            section[32..40].copy_from_slice(&(length as u64).to_le_bytes());
            bytes.extend(section);
        }
        bytes
    }

    #[test]
    fn the_entry_is_found_among_notes() {
        assert!(has_pvh_entry(&kernel(true)));
        assert!(!has_pvh_entry(&kernel(false)));
    }

    #[test]
    fn sections_go_by_their_whole_name() {
        let module = module(b"depends=virtio\0");
        assert_eq!(section(&module, ".modinfo"), Some(&b"depends=virtio\0"[..]));
        assert_eq!(section(&module, ".mod"), None);
    }

    /// Whatever is in a file, reading it ends, and does not fail otherwise than by finding nothing.
    #[test]
    fn no_file_is_too_strange() {
        for whole in [kernel(true), module(b"depends=\0")] {
            for length in 0..whole.len() {
                has_pvh_entry(&whole[..length]);
                section(&whole[..length], ".modinfo");
            }
            for at in 0..whole.len() {
                let mut bytes = whole.clone();
                bytes[at] = 0xff;
                has_pvh_entry(&bytes);
                section(&bytes, ".modinfo");
            }
        }
    }
}
