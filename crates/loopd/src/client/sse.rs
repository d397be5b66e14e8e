//! Frames of a server-sent event stream, as they arrive.

use super::failure::{self, ClientError};
use reqwest::Response;
use serde_json::Value;
use std::collections::VecDeque;
use url::Url;

/// A frame larger than this is not one of ours: the server bounds answers and results far below it.
const FRAME_BYTES_MAX: usize = 128 << 20;

/// One frame. Pings and comments are not frames.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    pub event: String,
    pub id: Option<String>,
    pub data: Value,
}

/// A stream that is being read.
pub struct Frames {
    base: Url,
    response: Response,
    parser: Parser,
    ready: VecDeque<Frame>,
}

impl Frames {
    pub fn new(base: Url, response: Response) -> Self {
        Frames { base, response, parser: Parser::default(), ready: VecDeque::new() }
    }

    /// The next frame; `None` when the server ended the stream.
    pub async fn next(&mut self) -> Result<Option<Frame>, ClientError> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Ok(Some(frame));
            }
            let chunk = self.response.chunk().await;
            let cut = |fault: reqwest::Error| ClientError::Cut {
                base: self.base.clone(),
                reason: failure::root_cause(&fault),
            };
            let Some(chunk) = chunk.map_err(cut)? else { return Ok(None) };
            let parsed = self.parser.feed(&chunk);
            let strange = |what| ClientError::NotLoopd { base: self.base.clone(), what };
            self.ready.extend(parsed.map_err(strange)?);
        }
    }
}

#[derive(Default)]
struct Parser {
    /// The line that has not ended yet.
    line: Vec<u8>,
    event: String,
    id: Option<String>,
    data: Vec<u8>,
}

impl Parser {
    /// Takes any piece of the stream; gives the frames that it completes.
    fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, String> {
        let mut frames = Vec::new();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.len() + self.data.len() > FRAME_BYTES_MAX {
                return Err(format!("a frame of more than {FRAME_BYTES_MAX} bytes"));
            }
            if self.line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                frames.extend(self.line_ended(line.trim_ascii_end())?);
            }
        }
        Ok(frames)
    }

    fn line_ended(&mut self, line: &[u8]) -> Result<Option<Frame>, String> {
        if line.is_empty() {
            return self.frame_ended();
        }
        let (field, value) = match line.iter().position(|b| *b == b':') {
            Some(colon) => (&line[..colon], line[colon + 1..].strip_prefix(b" ").unwrap_or(&line[colon + 1..])),
            None => (line, &b""[..]),
        };
        let text = || String::from_utf8_lossy(value).into_owned();
        match field {
            b"event" => self.event = text(),
            b"id" => self.id = Some(text()),
            b"data" => {
                if !self.data.is_empty() {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
            }
            _ => {}
        }
        Ok(None)
    }

    fn frame_ended(&mut self) -> Result<Option<Frame>, String> {
        let event = std::mem::take(&mut self.event);
        let (id, data) = (self.id.take(), std::mem::take(&mut self.data));
        if data.is_empty() || event == "ping" {
            return Ok(None);
        }
        let data = serde_json::from_slice(&data).map_err(|fault| format!("a frame that is not JSON: {fault}"))?;
        Ok(Some(Frame { event, id, data }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const STREAM: &str = ": hello\n\nid: 7\nevent: agent.message\ndata: {\"type\":\"agent.message\",\"n\":\"é\"}\n\n\
                          event: ping\ndata: {\"type\": \"ping\"}\n\nevent: x\r\ndata: [1,\r\ndata: 2]\r\n\r\n";

    #[test]
    fn any_split_gives_the_same_frames() {
        let whole = Parser::default().feed(STREAM.as_bytes()).expect("parses");
        assert_eq!(whole.len(), 2);
        assert_eq!((whole[0].event.as_str(), whole[0].id.as_deref()), ("agent.message", Some("7")));
        assert_eq!(whole[0].data["n"], "é");
        assert_eq!((whole[1].id.as_deref(), &whole[1].data), (None, &json!([1, 2])));
        for at in 0..STREAM.len() {
            let mut parser = Parser::default();
            let mut frames = parser.feed(&STREAM.as_bytes()[..at]).expect("parses");
            frames.extend(parser.feed(&STREAM.as_bytes()[at..]).expect("parses"));
            assert_eq!(frames, whole, "split at {at}");
        }
    }

    #[test]
    fn what_is_not_json_is_an_error() {
        assert!(Parser::default().feed(b"data: <html>\n\n").expect_err("strange").contains("not JSON"));
    }
}
