//! An archive of a session, its files written into a directory: nothing comes to be outside.

use loopd_sandbox::files::TreeWriter;
use loopd_session::archive::fuzzing;
use std::fs;
use std::path::Path;

const PARTS: [&str; 2] = ["workspace", "home"];

pub fn target(data: &[u8]) {
    let ground = tempfile::tempdir().expect("a directory");
    let session = ground.path().join("session");
    for part in PARTS {
        fs::create_dir_all(session.join(part)).expect("a directory");
    }
    fs::write(ground.path().join("sentinel"), "untouched").expect("a file");
    let parts: Vec<(&str, Option<u32>)> = PARTS.into_iter().map(|part| (part, None)).collect();
    let writer = TreeWriter::new(&session, &parts).expect("the parts are there");
    let read = fuzzing::read(data, Box::new(writer));
    assert_eq!(names(ground.path()), ["sentinel", "session"], "something is outside: {read:?}");
    assert_eq!(names(&session), ["home", "workspace"], "something is beside the parts: {read:?}");
    assert_eq!(fs::read_to_string(ground.path().join("sentinel")).ok().as_deref(), Some("untouched"));
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
