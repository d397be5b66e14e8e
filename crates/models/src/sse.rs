//! Server-sent events: bytes in, events out, however the bytes are cut.
//!
//! Owns the line and field rules of the WHATWG specification, as far as a model's stream needs them (`id` and `retry` are
//! read over: nobody reconnects to half an answer), and the bound on one event's size. Knows nothing of JSON or providers.

/// One dispatched event. `event` is empty where the stream named none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SseEvent {
    pub event: String,
    pub data: String,
}

/// One event grew past the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("one event of the stream is larger than {bytes_max} bytes")]
pub struct EventTooLarge {
    pub bytes_max: usize,
}

/// Collects bytes until they make events.
#[derive(Debug)]
pub struct Parser {
    line: Vec<u8>,
    event: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    first_line: bool,
    /// The last byte was a carriage return: a line feed right after it belongs to the same line end.
    after_cr: bool,
    event_bytes_max: usize,
}

impl Parser {
    /// `event_bytes_max` bounds what is held for one event: its fields and the line that is being read.
    pub fn new(event_bytes_max: usize) -> Self {
        Parser {
            line: Vec::new(),
            event: Vec::new(),
            data: Vec::new(),
            has_data: false,
            first_line: true,
            after_cr: false,
            event_bytes_max,
        }
    }

    /// Appends every event that `bytes` complete to `out`. After an error the stream is of no more use.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<SseEvent>) -> Result<(), EventTooLarge> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|b| matches!(b, b'\n' | b'\r'));
            let piece = &bytes[..end.unwrap_or(bytes.len())];
            if self.line.len() + self.data.len() + self.event.len() + piece.len() > self.event_bytes_max {
                return Err(EventTooLarge { bytes_max: self.event_bytes_max });
            }
            self.line.extend_from_slice(piece);
            let Some(end) = end else { break };
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            out.extend(self.end_of_line());
        }
        Ok(())
    }

    /// The event that the end of the stream left without its blank line, if there is one. The specification drops it;
    /// servers that close right after their last line are common enough to read it.
    pub fn finish(mut self) -> Option<SseEvent> {
        if !self.line.is_empty() {
            self.field();
        }
        self.dispatch()
    }

    fn end_of_line(&mut self) -> Option<SseEvent> {
        if self.line.is_empty() {
            self.first_line = false;
            return self.dispatch();
        }
        self.field();
        None
    }

    fn field(&mut self) {
        let line = std::mem::take(&mut self.line);
        let mut text = line.as_slice();
        if std::mem::take(&mut self.first_line) {
            text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
        }
        let (name, value) = match text.iter().position(|b| *b == b':') {
            Some(colon) => (&text[..colon], &text[colon + 1..]),
            None => (text, &text[text.len()..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"event" => self.event = value.to_vec(),
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            _ => {} // a comment (empty name), `id`, `retry`, or a field that we do not know
        }
        self.line = line;
        self.line.clear();
    }

    fn dispatch(&mut self) -> Option<SseEvent> {
        let event = std::mem::take(&mut self.event);
        if !std::mem::take(&mut self.has_data) {
            return None;
        }
        let data = std::mem::take(&mut self.data);
        Some(SseEvent { event: text(event), data: text(data) })
    }
}

/// Bytes that are not UTF-8 become U+FFFD, as the specification wants.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|fault| String::from_utf8_lossy(fault.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(pieces: &[&[u8]]) -> Vec<SseEvent> {
        let mut parser = Parser::new(1 << 20);
        let mut out = Vec::new();
        for piece in pieces {
            parser.push(piece, &mut out).expect("small");
        }
        out.extend(parser.finish());
        out
    }

    fn event(event: &str, data: &str) -> SseEvent {
        SseEvent { event: event.into(), data: data.into() }
    }

    #[test]
    fn fields_comments_and_every_line_end() {
        let stream =
            b"\xEF\xBB\xBF: hello\r\nevent: a\r\ndata: 1\r\ndata:2\r\n\r\nid: 7\rdata:  x\r\rretry: 5\n\ndata\n\n";
        assert_eq!(parse(&[stream]), vec![event("a", "1\n2"), event("", " x"), event("", "")]);
    }

    #[test]
    fn a_last_event_without_its_blank_line_is_read() {
        assert_eq!(parse(&[b"data: a\n\ndata: [DONE]"]), vec![event("", "a"), event("", "[DONE]")]);
    }

    #[test]
    fn an_event_name_alone_is_no_event_and_does_not_leak_into_the_next() {
        assert_eq!(parse(&[b"event: a\n\ndata: x\n\n"]), vec![event("", "x")]);
    }

    #[test]
    fn one_event_is_bounded_and_many_are_not() {
        let mut parser = Parser::new(64);
        let mut out = Vec::new();
        for _ in 0..100 {
            parser.push(b"data: 0123456789\n\n", &mut out).expect("each is small");
        }
        assert_eq!(out.len(), 100);
        assert_eq!(parser.push(&[b'x'; 65], &mut out), Err(EventTooLarge { bytes_max: 64 }));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(
            fields in proptest::collection::vec(("[a-z]{0,5}", "[ -~äß€😀]{0,20}", 0usize..3), 0..12),
            cuts in proptest::collection::vec(0usize..400, 0..12),
        ) {
            let ends = ["\n", "\r", "\r\n"];
            let mut stream = Vec::new();
            for (name, data, end) in &fields {
                let end = ends[*end];
                stream.extend(format!("event: {name}{end}data: {data}{end}: c{end}{end}").into_bytes());
            }
            let mut places: Vec<usize> = cuts.into_iter().map(|c| c.min(stream.len())).collect();
            places.extend([0, stream.len()]);
            places.sort_unstable();
            let pieces: Vec<&[u8]> = places.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
            let expected: Vec<SseEvent> = fields.iter().map(|(name, data, _)| event(name, data)).collect();
            prop_assert_eq!(parse(&pieces), expected);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let whole = parse(&[&bytes]);
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(parse(&single), whole);
        }
    }
}
