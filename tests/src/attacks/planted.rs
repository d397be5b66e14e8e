//! What lies around for an attack to find: if it finds it, the wall has a hole.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::process::{Child, Command};
use tempfile::TempDir;

/// A port of a neighbour, in its own room.
pub const NEIGHBOUR_PORT: u16 = 4711;

/// Secrets of the host. They are gone when this is dropped.
pub struct Planted {
    directory: TempDir,
    port: u16,
    process: Child,
    _abstract_socket: Option<UnixListener>,
}

impl Planted {
    pub fn new() -> Self {
        let secret = format!("CANARY-HOST-{:016x}", std::process::id());
        let directory = TempDir::with_prefix("loopd-planted-").expect("a directory");
        let open = |path: PathBuf, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
        std::fs::write(directory.path().join("secret"), &secret).expect("written");
        open(directory.path().to_owned(), 0o755)
            .and_then(|()| open(directory.path().join("secret"), 0o644))
            .expect("open");
        let mut process = Command::new("sleep");
        process.arg("3600").env("CANARY", &secret);
        let process = process.spawn().expect("sleep starts");
        // As root, it can be bound once; a second suite beside this one goes without.
        let name = SocketAddr::from_abstract_name("loopd-attack-canary").expect("a name");
        let port = serve(secret);
        Planted { directory, port, process, _abstract_socket: UnixListener::bind_addr(&name).ok() }
    }

    /// As the attacks know them.
    pub fn variables(&self) -> Vec<(String, String)> {
        let file = self.directory.path().join("secret");
        [
            ("ATTACK_HOST_FILE", file.display().to_string()),
            ("ATTACK_HOST_PORT", self.port.to_string()),
            ("ATTACK_HOST_PID", self.process.id().to_string()),
            ("ATTACK_NEIGHBOUR_PORT", NEIGHBOUR_PORT.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

impl Default for Planted {
    fn default() -> Self {
        Planted::new()
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        // Already dead is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Answers every connection to a port of the loopback with the secret.
fn serve(secret: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 1024];
            // Whoever hangs up early learns nothing.
            let _ = stream.read(&mut request);
            let _ = write!(stream, "HTTP/1.0 200 OK\r\ncontent-length: {}\r\n\r\n{secret}", secret.len());
        }
    });
    port
}

/// What a neighbour does to be found: a secret in its files, its processes' environment and arguments, and on a port.
pub fn neighbour_command() -> String {
    format!(
        "S=CANARY-NEIGHBOUR-$(date +%s%N); for place in . \"$HOME\" /tmp /dev/shm; do echo \"$S\" > \"$place/neighbours-secret\"; done\n\
         CANARY=\"$S\" bash -c 'exec sleep 3600 # '\"$S\" > /dev/null 2>&1 < /dev/null &\n\
         python3 -c 'import socket, sys\n\
         listener = socket.socket(); listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
         listener.bind((\"127.0.0.1\", {NEIGHBOUR_PORT})); listener.listen()\n\
         while True:\n    peer, _ = listener.accept(); peer.send(sys.argv[1].encode()); peer.close()' \"$S\" > /dev/null 2>&1 < /dev/null &\n\
         sleep 0.3; echo neighbour ready"
    )
}
