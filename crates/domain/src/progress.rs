//! How far that is for which a session waits. A preview: it is shown to whoever follows, and never kept.

use serde::{Serialize, Serializer};

/// The last word of whoever makes a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Progress {
    pub stage: Stage,
    /// Of what: an image, the packages of a manager, a disk. Empty where the stage says it all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub what: String,
    /// Which part of how many, counted from 1.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Amount>,
    /// What was printed last, of which a stranger chose the words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Others are before it.
    Queue,
    /// A registry is asked what an image is.
    Find,
    /// A layer of an image is fetched.
    Pull,
    /// A layer is unpacked.
    Unpack,
    /// A package manager is at work.
    Install,
    /// A virtual machine's disks are made.
    Disk,
    /// A virtual machine comes up.
    Boot,
    /// The room is built, or woken.
    Start,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Part {
    pub part: usize,
    pub parts: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Amount {
    pub done: u64,
    /// Where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    pub unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Lines,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Queue => "queue",
            Stage::Find => "find",
            Stage::Pull => "pull",
            Stage::Unpack => "unpack",
            Stage::Install => "install",
            Stage::Disk => "disk",
            Stage::Boot => "boot",
            Stage::Start => "start",
        }
    }
}

impl Unit {
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Bytes => "bytes",
            Unit::Lines => "lines",
        }
    }
}

impl Serialize for Stage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Serialize for Unit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Progress {
    pub fn of(stage: Stage, what: impl Into<String>) -> Self {
        Progress { stage, what: what.into(), part: None, amount: None, line: None }
    }

    pub fn part(self, part: usize, parts: usize) -> Self {
        Progress { part: Some(Part { part, parts }), ..self }
    }

    pub fn bytes(self, done: u64, total: Option<u64>) -> Self {
        Progress { amount: Some(Amount { done, total, unit: Unit::Bytes }), ..self }
    }

    pub fn lines(self, done: u64, line: Option<String>) -> Self {
        Progress { amount: Some(Amount { done, total: None, unit: Unit::Lines }), line, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_known_is_not_said() {
        let of = |progress: Progress| serde_json::to_value(progress).expect("plain data");
        assert_eq!(of(Progress::of(Stage::Start, "")), json!({"stage": "start"}));
        let pull = Progress::of(Stage::Pull, "image `a`").part(2, 5).bytes(10, Some(40));
        let expected = json!({"stage": "pull", "what": "image `a`", "part": 2, "parts": 5, "done": 10, "total": 40, "unit": "bytes"});
        assert_eq!(of(pull), expected);
        let install = Progress::of(Stage::Install, "packages by pip").lines(3, Some("Collecting x".to_owned()));
        let expected =
            json!({"stage": "install", "what": "packages by pip", "done": 3, "unit": "lines", "line": "Collecting x"});
        assert_eq!(of(install), expected);
    }
}
