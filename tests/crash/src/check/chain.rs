//! The hash chain, recomputed from its rule: `hash = SHA-256(previous ‖ seq ‖ len(id) ‖ id ‖ len(kind) ‖ kind ‖ at ‖ digest)`,
//! numbers as eight bytes, least significant first; `digest = SHA-256(payload)`; 32 zero bytes before the first entry.

use crate::journal::{Entry, Head};
use sha2::{Digest, Sha256};

pub fn check(head: &Head, entries: &[Entry]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut previous = vec![0u8; 32];
    for (at, entry) in entries.iter().enumerate() {
        if entry.seq != at as u64 + 1 {
            faults.push(format!("entry {} stands where {} is next", entry.seq, at + 1));
            return faults;
        }
        previous = link(&previous, entry);
        if previous != entry.hash {
            faults.push(format!("the hash of entry {} is not that of its content and its predecessor", entry.seq));
            return faults;
        }
    }
    let last = Head { seq: entries.len() as u64, hash: previous };
    if last != *head {
        faults.push(format!("the journal ends at {}, its row says {} or another hash", last.seq, head.seq));
    }
    faults
}

fn link(previous: &[u8], entry: &Entry) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(previous);
    hash.update(entry.seq.to_le_bytes());
    for text in [&entry.id, &entry.kind] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hash.update(entry.at.to_le_bytes());
    hash.update(Sha256::digest(entry.payload.as_bytes()));
    hash.finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::testing::{entries, sealed};
    use serde_json::json;

    #[test]
    fn what_was_changed_cut_or_moved_is_found() {
        let bodies = [json!({"type": "a"}), json!({"type": "b"}), json!({"type": "c"})];
        let (head, whole) = sealed(entries(&bodies), link);
        assert_eq!(check(&head, &whole), Vec::<String>::new());

        let mut changed = whole.clone();
        changed[1].payload = "{\"type\":\"B\"}".to_owned();
        assert!(check(&head, &changed)[0].contains("entry 2"));
        assert!(check(&head, &whole[..2])[0].contains("ends at 2"));
        assert!(check(&head, &[whole[0].clone(), whole[2].clone()])[0].contains("entry 3 stands where 2"));
    }
}
