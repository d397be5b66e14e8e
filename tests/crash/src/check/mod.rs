//! The judge. Pure: journals, lists and counters in, faults out. It shares no code with what it judges.

pub mod chain;
pub mod effects;
pub mod history;
pub mod told;

#[cfg(test)]
pub mod testing {
    use crate::journal::{Entry, Head};
    use serde_json::Value;

    /// Entries with the ids `e1`, `e2`, … and no chain.
    pub fn entries(bodies: &[Value]) -> Vec<Entry> {
        let entry = |(n, body): (usize, &Value)| Entry {
            seq: n as u64 + 1,
            id: format!("e{}", n + 1),
            kind: body["type"].as_str().expect("a type").to_owned(),
            at: n as i64 + 1,
            hash: Vec::new(),
            payload: body.to_string(),
            body: body.clone(),
        };
        bodies.iter().enumerate().map(entry).collect()
    }

    pub fn sealed(mut entries: Vec<Entry>, link: impl Fn(&[u8], &Entry) -> Vec<u8>) -> (Head, Vec<Entry>) {
        let mut hash = vec![0u8; 32];
        for entry in &mut entries {
            hash = link(&hash, entry);
            entry.hash = hash.clone();
        }
        (Head { seq: entries.len() as u64, hash }, entries)
    }
}
