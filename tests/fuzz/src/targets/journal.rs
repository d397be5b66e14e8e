//! Lines of an archive's journal.

use loopd_session::archive::fuzzing;

pub fn target(data: &[u8]) {
    if let Ok(count) = fuzzing::lines(data) {
        assert_eq!(count, data.iter().filter(|byte| **byte == b'\n').count(), "as many entries as lines");
    }
}
