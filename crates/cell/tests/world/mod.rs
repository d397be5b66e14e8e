//! The host's end of a way out, and the world behind it: takes what the stub sends and answers as the host's name says.
#![allow(dead_code)] // each test file uses its part

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use tempfile::TempDir;

pub struct World {
    directory: TempDir,
    /// First lines, in the order in which they came.
    asked: Arc<Mutex<Vec<String>>>,
}

impl World {
    pub fn new() -> Self {
        let world = World { directory: tempfile::tempdir().expect("a directory"), asked: Arc::default() };
        world.listen();
        world
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panicked").clone()
    }

    /// Listens, in the place of whoever did before.
    pub fn listen(&self) {
        let next = self.directory.path().join("next");
        let listener = UnixListener::bind(&next).expect("a socket");
        std::fs::rename(next, self.socket()).expect("moved");
        let asked = Arc::clone(&self.asked);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let asked = Arc::clone(&asked);
                thread::spawn(move || {
                    // A program that goes away in the middle is what some tests are about.
                    let _ = serve(stream.expect("a connection"), &asked);
                });
            }
        });
    }

    /// Nobody listens any more, as after a server's end.
    pub fn vanish(&self) {
        std::fs::remove_file(self.socket()).expect("it was there");
    }
}

fn serve(mut stream: UnixStream, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let head = read_head(&mut reader)?;
    let first = head.lines().next().unwrap_or_default().to_owned();
    asked.lock().expect("nobody panicked").push(first.clone());
    let Some(target) = first.strip_prefix("CONNECT ").and_then(|rest| rest.strip_suffix(" HTTP/1.1")) else {
        return answer(&mut stream, &first);
    };
    if !head.contains(&format!("\r\nHost: {target}\r\n")) {
        return stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\nno such Host header");
    }
    let name = target.split('.').next().unwrap_or_default();
    if name == "refused" {
        let reason = format!("`{target}` is not allowed here\n");
        let length = reason.len();
        write!(stream, "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{reason}")?;
        return stream.shutdown(std::net::Shutdown::Both);
    }
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    match name {
        // Speaks first.
        "greeter" => stream.write_all(b"hello\n"),
        // Answers when all has been said.
        "counter" => {
            let mut all = Vec::new();
            reader.read_to_end(&mut all)?;
            writeln!(stream, "{} bytes", all.len())
        }
        // Says nothing, and stays as long as the program does.
        "silent" => reader.read_to_end(&mut Vec::new()).map(drop),
        "source" => {
            let piece = [b'x'; 1 << 16];
            (0..512).try_for_each(|_| stream.write_all(&piece))
        }
        _ => {
            read_head(&mut reader)?;
            answer(&mut stream, target)
        }
    }
}

fn answer(stream: &mut UnixStream, text: &str) -> std::io::Result<()> {
    let length = text.len();
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{text}")
}

/// Up to and with the empty line.
fn read_head(reader: &mut impl BufRead) -> std::io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}
