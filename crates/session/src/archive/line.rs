//! One line of `journal.jsonl`: a sealed entry, its body exactly as it was hashed.

use loopd_domain::chain::{Hash, hex};
use loopd_domain::{EventId, Seq, Timestamp};
use loopd_store::SealedEntry;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    seq: Seq,
    id: EventId,
    #[serde(rename = "type")]
    kind: String,
    at: Timestamp,
    /// SHA-256 of the body as it was, where a tombstone stands in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    redacted: Option<String>,
    hash: String,
    body: Box<RawValue>,
}

/// With its line end.
pub(super) fn write(entry: SealedEntry) -> serde_json::Result<Vec<u8>> {
    let line = Line {
        seq: entry.seq,
        id: entry.id,
        kind: entry.kind,
        at: entry.at,
        redacted: entry.redacted.as_ref().map(|digest| hex(digest)),
        hash: hex(&entry.hash),
        body: RawValue::from_string(entry.payload)?,
    };
    let mut bytes = serde_json::to_vec(&line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

pub(super) fn read(line: &[u8]) -> Result<SealedEntry, String> {
    let line: Line = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    Ok(SealedEntry {
        seq: line.seq,
        id: line.id,
        kind: line.kind,
        payload: line.body.get().to_owned(),
        at: line.at,
        redacted: line.redacted.as_deref().map(unhex).transpose()?,
        hash: unhex(&line.hash)?,
    })
}

pub(super) fn unhex(text: &str) -> Result<Hash, String> {
    let refuse = || format!("`{}` is not a hash; accepted: 64 hex digits", text.chars().take(80).collect::<String>());
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let digits = digits.filter(|d| d.len() == 64).ok_or_else(refuse)?;
    let mut hash = [0; 32];
    hash.iter_mut().zip(digits.chunks(2)).for_each(|(byte, pair)| *byte = pair[0] << 4 | pair[1]);
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_comes_back_to_the_byte() {
        let entry = SealedEntry {
            seq: 3,
            id: EventId::parse("id", "sevt_1").expect("an id"),
            kind: "user.message".to_owned(),
            payload: "{ \"type\":\"user.message\",  \"content\":[],\"é\":1e2}".to_owned(),
            at: Timestamp(1_700_000_000_123_456),
            redacted: Some([7; 32]),
            hash: [0xab; 32],
        };
        let line = write(entry.clone()).expect("written");
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(read(&line).expect("read"), entry);
        assert!(unhex("ab").is_err() && unhex(&"g".repeat(64)).is_err());
    }
}
