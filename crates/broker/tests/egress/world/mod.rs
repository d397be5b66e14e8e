//! What egress meets in these tests: neighbours that remember, names that lead here, servers that answer.

mod client;
mod neighbours;
pub mod server;

pub use client::{Line, body_of, h1, request};
pub use neighbours::{Book, Names, Reported, Vault};
pub use server::{Authorities, Server};

use loopd_broker::credentials::{BoundCredential, Placement};
use loopd_broker::egress::{Authority, Neighbours, Proxy, Rules};
use loopd_broker::{Client, Egress, RunningCalls, Sealer, Secret};
use loopd_domain::environment::Networking;
use loopd_domain::{Clock, CredentialId, Epoch, SessionId, Timestamp, VaultId, WorkspaceId};
use loopd_policy::network::Exception;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub const SECRET: &str = "sk-real-0123456789abcdef";
pub const PLACEHOLDER: &str = "PHq7RzT2mK9xWv4LbN8cYd1e";

/// Time stands still at about now: certificates of programs' own clocks are valid.
pub struct Still(Timestamp);

impl Clock for Still {
    fn now(&self) -> Timestamp {
        self.0
    }
}

/// These tests keep nothing that is worth sealing.
struct Open;

impl Sealer for Open {
    fn seal(&self, _: &str, plain: &Secret) -> Result<Vec<u8>, loopd_broker::seal::SealError> {
        Ok(plain.reveal().to_vec())
    }
    fn open(&self, _: &str, sealed: &[u8]) -> Result<Secret, loopd_broker::seal::SealError> {
        Ok(Secret::new(sealed.to_vec()))
    }
}

/// A proxy, its neighbours, and one session.
pub struct World {
    pub proxy: Arc<Proxy>,
    pub vault: Arc<Vault>,
    pub book: Arc<Book>,
    pub reported: Arc<Reported>,
    pub names: Arc<Names>,
    pub authority: Arc<Authority>,
    pub authorities: Authorities,
    pub client: Client,
    place: TempDir,
}

impl World {
    /// Names lead to this machine, which the operator allows.
    pub fn new() -> Self {
        World::with(&["127.0.0.0/8"])
    }

    pub fn with(exceptions: &[&str]) -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let now = now();
        let authority = Arc::new(Authority::open(place.path(), &Open, now).expect("an authority"));
        let authorities = Authorities::new();
        let (vault, book) = (Arc::new(Vault::default()), Arc::new(Book::default()));
        let (reported, names) = (Arc::new(Reported::default()), Arc::new(Names::default()));
        let rules = Rules {
            exceptions: exceptions.iter().map(|text| Exception::parse(text).expect("an exception")).collect(),
            extra_roots: vec![authorities.root()],
        };
        let with = Neighbours {
            credentials: vault.clone(),
            audit: book.clone(),
            reports: reported.clone(),
            clock: Arc::new(Still(now)),
            resolver: names.clone(),
        };
        let proxy = Arc::new(Proxy::new(rules, authority.clone(), with).expect("a proxy"));
        let client = Client {
            session: SessionId::parse("session", "sesn_1").expect("an id"),
            workspace: WorkspaceId::parse("workspace", "wrkspc_1").expect("an id"),
            epoch: Epoch(1),
            networking: Networking::Unrestricted,
            ports: vec![80, 443],
            mcp_hosts: Vec::new(),
            vaults: Vec::new(),
            running: RunningCalls::default(),
        };
        World { proxy, vault, book, reported, names, authority, authorities, client, place }
    }

    pub fn limited(&mut self, hosts: &[&str]) {
        self.client.networking = Networking::Limited {
            allowed_hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            allow_mcp_servers: false,
            allow_package_managers: false,
        };
    }

    /// A server that may be connected to.
    pub async fn server(&mut self, server: Server) -> Arc<Server> {
        let server = server.start().await;
        self.client.ports.push(server.port());
        server
    }

    /// A connection of the session, in this process.
    pub fn line(&self) -> Line {
        let (room, stream) = tokio::io::duplex(64 << 10);
        let (proxy, client) = (self.proxy.clone(), Arc::new(self.client.clone()));
        let serving = tokio::spawn(async move { proxy.serve(client, Box::new(stream)).await });
        Line::new(room, serving, self.authority.pem())
    }

    /// A port where the proxy serves this session, for programs.
    pub async fn port(&self) -> Outlet {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (proxy, client) = (self.proxy.clone(), Arc::new(self.client.clone()));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (proxy, client) = (proxy.clone(), client.clone());
                tokio::spawn(async move { proxy.serve(client, Box::new(stream)).await });
            }
        });
        Outlet { port, task }
    }

    /// What a room's stub does for programs that know of no proxy: a socket at 127.0.0.2 that leads to one host.
    pub async fn stub(&self, host: &'static str, port: u16) -> Outlet {
        let listener = TcpListener::bind(("127.0.0.2", port)).await.expect("a port");
        let outlet = self.port().await;
        let way = outlet.port;
        let task = tokio::spawn(async move {
            let _outlet = outlet;
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut proxy = TcpStream::connect(("127.0.0.1", way)).await.expect("the proxy");
                    let head = format!("CONNECT {host}:{port} HTTP/1.1\r\n\r\n");
                    proxy.write_all(head.as_bytes()).await.expect("sent");
                    let mut answer = Vec::new();
                    while !answer.ends_with(b"\r\n\r\n") {
                        answer.push(proxy.read_u8().await.expect("an answer"));
                    }
                    // Either side may go first.
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut proxy).await;
                });
            }
        });
        Outlet { port, task }
    }

    /// The authority's certificate, for programs.
    pub fn certificate(&self) -> &Path {
        self.authority.file()
    }

    pub fn file(&self, name: &str, text: &[u8]) -> PathBuf {
        let path = self.place.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(&path, text).expect("written");
        path
    }

    pub fn directory(&self) -> &Path {
        self.place.path()
    }
}

pub struct Outlet {
    pub port: u16,
    task: JoinHandle<()>,
}

impl Outlet {
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn credential(placeholder: &str, secret: &str, hosts: Option<&[&str]>) -> BoundCredential {
    BoundCredential {
        vault: VaultId::parse("vault", "vlt_1").expect("an id"),
        credential: CredentialId::parse("credential", &format!("vcrd_{placeholder}")).expect("an id"),
        variable: "TOKEN".to_owned(),
        placeholder: placeholder.to_owned(),
        secret: Secret::new(secret.as_bytes().to_vec()),
        hosts: hosts.map(|hosts| hosts.iter().map(|host| (*host).to_owned()).collect()),
        placement: Placement::Anywhere { headers: true, body: true },
    }
}

/// The usual one, for `api.test`.
pub fn token() -> BoundCredential {
    credential(PLACEHOLDER, SECRET, Some(&["api.test"]))
}

#[expect(clippy::disallowed_methods, reason = "programs check certificates by the machine's clock")]
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp(i64::try_from(since.as_micros()).expect("a moment"))
}

/// There is no silent pass: see `tests/src/lib.rs`.
pub fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "skipped in CI: {reason}");
    eprintln!("skipped: {reason}");
    if let Some(path) = std::env::var_os("E2E_SKIPS") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| writeln!(file, "egress: {reason}")).expect("the list of skipped tests is writable");
    }
}
