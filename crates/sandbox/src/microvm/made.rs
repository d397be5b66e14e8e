//! What a session's machine is made of, noted in its place before the machine lives: whoever takes it over, puts it to sleep or clears old
//! images away asks this note, as the current image may be another one by then.

use super::vmm::Shape;
use crate::room::place::Place;
use loopd_domain::limits::SUSPENSION_BYTES_MAX;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

const NOTE: &str = "made";

pub(super) fn note(place: &Place, shape: &Shape) -> io::Result<()> {
    place.write_file(NOTE, &serde_json::to_vec(shape)?)
}

/// One that cannot be read is none.
pub(super) fn of(place: &Place) -> io::Result<Option<Shape>> {
    let Some(text) = place.read_file(NOTE, SUSPENSION_BYTES_MAX)? else { return Ok(None) };
    Ok(serde_json::from_slice(&text).ok())
}

/// Looked up by somebody who does nothing with the machine.
pub(super) fn peek(place: &Path) -> io::Result<Option<Shape>> {
    read(&place.join(NOTE))
}

/// Of a template, beside what the VMM has there.
pub(super) fn note_template(template: &Path, shape: &Shape) -> io::Result<()> {
    std::fs::write(template.join(NOTE), serde_json::to_vec(shape)?)
}

fn read(path: &Path) -> io::Result<Option<Shape>> {
    let mut text = Vec::new();
    match File::open(path) {
        Err(absent) if matches!(absent.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        other => other?.take(SUSPENSION_BYTES_MAX).read_to_end(&mut text)?,
    };
    Ok(serde_json::from_slice(&text).ok())
}

/// The files of an image, and the disks of layers.
pub(super) fn files(shape: &Shape) -> impl Iterator<Item = &PathBuf> {
    [&shape.kernel, &shape.initramfs, &shape.base].into_iter().chain(&shape.layers)
}
