//! The frames of one event stream.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::VecDeque;

#[derive(Debug, Clone)]
pub struct Frame {
    /// `id:`, which journal entries have and previews have not.
    pub seq: Option<u64>,
    pub data: Value,
}

pub struct Stream {
    response: reqwest::Response,
    bytes: Vec<u8>,
    ready: VecDeque<Frame>,
}

impl Stream {
    pub fn new(response: reqwest::Response) -> Self {
        Stream { response, bytes: Vec::new(), ready: VecDeque::new() }
    }

    /// `None` when the stream ends or breaks; an error only for what no reader could understand.
    pub async fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Ok(Some(frame));
            }
            let Ok(Some(chunk)) = self.response.chunk().await else { return Ok(None) };
            self.bytes.extend_from_slice(&chunk);
            while let Some(end) = self.bytes.windows(2).position(|pair| pair == b"\n\n") {
                let frame: Vec<u8> = self.bytes.drain(..end + 2).collect();
                self.ready.extend(parse(&String::from_utf8(frame).context("a frame is not UTF-8")?)?);
            }
        }
    }
}

/// `None` for a comment or a ping.
fn parse(text: &str) -> Result<Option<Frame>> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let Some(data) = field("data") else { return Ok(None) };
    let data: Value = serde_json::from_str(data).context("the data of a frame is not JSON")?;
    let event = field("event").context("a frame has no event line")?;
    if event == "ping" {
        return Ok(None);
    }
    if data["type"] != event {
        bail!("a frame of event `{event}` has data of type {}", data["type"]);
    }
    let seq = field("id").map(str::parse).transpose().context("the id of a frame is not a number")?;
    Ok(Some(Frame { seq, data }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_and_bad_ones_refused() {
        let frame = parse("event: a.b\nid: 7\ndata: {\"type\":\"a.b\"}\n\n").expect("good").expect("a frame");
        assert_eq!(frame.seq, Some(7));
        assert!(parse("event: ping\ndata: {\"type\":\"ping\"}\n\n").expect("good").is_none());
        assert!(parse(": comment\n\n").expect("good").is_none());
        assert!(parse("event: a\ndata: {\"type\":\"b\"}\n\n").is_err());
        assert!(parse("data: {\"type\":\"b\"}\n\n").is_err());
        assert!(parse("event: a\nid: x\ndata: {\"type\":\"a\"}\n\n").is_err());
    }
}
