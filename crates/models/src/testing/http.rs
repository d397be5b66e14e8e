//! As much of HTTP/1.1 as a fake provider needs: requests with a length, answers in one piece or in chunks.
//!
//! Written by hand because a fake must also send what no library lets through: half a chunk, nothing, too much.

use super::Recorded;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HEAD_BYTES_MAX: usize = 64 << 10;
const BODY_BYTES_MAX: usize = 256 << 20;

pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    out: Vec<u8>,
}

impl Connection {
    pub fn new(stream: TcpStream) -> Self {
        Connection { stream, buffer: Vec::with_capacity(8 << 10), out: Vec::with_capacity(8 << 10) }
    }

    /// The next request; `None` when the client has closed.
    pub async fn request(&mut self) -> io::Result<Option<Recorded>> {
        let head_end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(io::Error::other("the head of a request is too large"));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..head_end]).into_owned();
        let mut request = parse_head(&head)?;
        let length: usize = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        if length > BODY_BYTES_MAX {
            return Err(io::Error::other("the body of a request is too large"));
        }
        self.buffer.drain(..head_end + 4);
        while self.buffer.len() < length {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
        request.body = self.buffer.drain(..length).collect();
        Ok(Some(request))
    }

    /// A whole response.
    pub async fn respond(&mut self, status: u16, headers: &[(String, String)], body: &[u8]) -> io::Result<()> {
        self.head(status, headers);
        self.out.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        self.out.extend_from_slice(body);
        self.flush().await
    }

    /// The head of a response whose body follows by `piece`.
    pub fn start(&mut self, status: u16, headers: &[(String, String)]) {
        self.head(status, headers);
        self.out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
    }

    /// Queues one piece of the body; `flush` sends it.
    pub fn piece(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return; // an empty chunk would be the end
        }
        self.out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    pub async fn finish(&mut self) -> io::Result<()> {
        self.out.extend_from_slice(b"0\r\n\r\n");
        self.flush().await
    }

    pub async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }

    /// Waits until the client gives up.
    pub async fn hang(&mut self) -> io::Result<()> {
        let mut rest = [0; 1024];
        while self.stream.read(&mut rest).await? > 0 {}
        Ok(())
    }

    fn head(&mut self, status: u16, headers: &[(String, String)]) {
        self.out.extend_from_slice(format!("HTTP/1.1 {status} Fake\r\n").as_bytes());
        for (name, value) in headers {
            self.out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
    }
}

fn parse_head(head: &str) -> io::Result<Recorded> {
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Err(io::Error::other("a request without method and path"));
    };
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    Ok(Recorded { method: method.to_owned(), path: path.to_owned(), headers, body: Vec::new() })
}
