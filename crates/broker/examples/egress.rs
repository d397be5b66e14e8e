//! Serves a TCP port as the way out of one session: for benchmarks, and to try it by hand.
//!
//! ```text
//! egress --port 3128 --data /tmp/egress --host localhost --allow 127.0.0.0/8 --tcp-port 8443 --root ca.pem \
//!        --credential PLACEHOLDER=SECRET@localhost
//! curl --proxy http://127.0.0.1:3128 --cacert /tmp/egress/egress-authority.pem https://localhost:8443/
//! ```
//!
//! Without `--host` every host may be connected to. The authority's key lies unsealed in `--data`: this is no place for real secrets.

use async_trait::async_trait;
use loopd_broker::audit::AuditError;
use loopd_broker::credentials::CredentialsError;
use loopd_broker::egress::{Authority, Neighbours, Proxy, Resolver, Rules, SystemResolver, roots_of};
use loopd_broker::seal::SealError;
use loopd_broker::{
    Audit, BoundCredential, Client, Credentials, Egress, Placement, Reports, RunningCalls, Sealer, Secret,
};
use loopd_domain::audit::AuditEntry;
use loopd_domain::environment::Networking;
use loopd_domain::network::Connection;
use loopd_domain::{Clock, CredentialId, Epoch, SessionId, Timestamp, VaultId, WorkspaceId};
use loopd_policy::network::Exception;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;

type Fault = Box<dyn std::error::Error + Send + Sync>;

struct Machine;

impl Clock for Machine {
    #[expect(clippy::disallowed_methods, reason = "this program is its own composition root")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

struct Unsealed;

impl Sealer for Unsealed {
    fn seal(&self, _: &str, plain: &Secret) -> Result<Vec<u8>, SealError> {
        Ok(plain.reveal().to_vec())
    }
    fn open(&self, _: &str, sealed: &[u8]) -> Result<Secret, SealError> {
        Ok(Secret::new(sealed.to_vec()))
    }
}

/// `localhost` stands in `/etc/hosts`, where names have no final dot.
struct Local(SystemResolver);

#[async_trait]
impl Resolver for Local {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        match name {
            "localhost" => Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect()),
            _ => self.0.resolve(name).await,
        }
    }
}

struct Given(Vec<Arc<BoundCredential>>);

#[async_trait]
impl Credentials for Given {
    async fn of(&self, _: &Client) -> Result<Vec<Arc<BoundCredential>>, CredentialsError> {
        Ok(self.0.clone())
    }
}

/// Prints what happens, if asked to.
struct Shown(bool);

#[async_trait]
impl Audit for Shown {
    async fn write(&self, entry: AuditEntry) -> Result<(), AuditError> {
        if self.0 {
            println!("{entry:?}");
        }
        Ok(())
    }
}

impl Reports for Shown {
    fn ended(&self, _: &SessionId, connection: Connection) {
        if self.0 {
            println!("{connection:?}");
        }
    }
}

struct Arguments {
    port: u16,
    data: PathBuf,
    hosts: Vec<String>,
    ports: Vec<u16>,
    rules: Rules,
    credentials: Vec<Arc<BoundCredential>>,
    is_verbose: bool,
}

fn arguments() -> Result<Arguments, Fault> {
    let mut given = Arguments {
        port: 3128,
        data: std::env::temp_dir().join("loopd-egress"),
        hosts: Vec::new(),
        ports: vec![80, 443],
        rules: Rules::default(),
        credentials: Vec::new(),
        is_verbose: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--verbose" {
            given.is_verbose = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("`{word}` needs a value"))?;
        match word.as_str() {
            "--port" => given.port = value.parse()?,
            "--data" => given.data = value.into(),
            "--host" => given.hosts.push(value),
            "--tcp-port" => given.ports.push(value.parse()?),
            "--allow" => given.rules.exceptions.push(Exception::parse(&value)?),
            "--root" => given.rules.extra_roots.extend(roots_of(&std::fs::read(value)?)?),
            "--credential" => given.credentials.push(Arc::new(credential(&value)?)),
            _ => return Err(format!("`{word}` is not known; see the head of this file").into()),
        }
    }
    Ok(given)
}

/// `PLACEHOLDER=SECRET@host`
fn credential(text: &str) -> Result<BoundCredential, Fault> {
    let malformed = || format!("`{text}` is not a credential; accepted: PLACEHOLDER=SECRET@host");
    let (placeholder, rest) = text.split_once('=').ok_or_else(malformed)?;
    let (secret, host) = rest.rsplit_once('@').ok_or_else(malformed)?;
    Ok(BoundCredential {
        vault: VaultId::parse("vault", "vlt_example")?,
        credential: CredentialId::parse("credential", "vcrd_example")?,
        variable: "TOKEN".to_owned(),
        placeholder: placeholder.to_owned(),
        secret: Secret::new(secret.as_bytes().to_vec()),
        hosts: Some(vec![host.to_owned()]),
        placement: Placement::Anywhere { headers: true, body: true },
    })
}

#[tokio::main]
async fn main() -> Result<(), Fault> {
    let given = arguments()?;
    std::fs::create_dir_all(&given.data)?;
    let authority = Arc::new(Authority::open(&given.data, &Unsealed, Machine.now())?);
    let shown = Arc::new(Shown(given.is_verbose));
    let with = Neighbours {
        credentials: Arc::new(Given(given.credentials)),
        audit: shown.clone(),
        reports: shown,
        clock: Arc::new(Machine),
        resolver: Arc::new(Local(SystemResolver)),
    };
    let proxy = Arc::new(Proxy::new(given.rules, authority.clone(), with)?);
    let networking = match given.hosts.is_empty() {
        true => Networking::Unrestricted,
        false => {
            Networking::Limited { allowed_hosts: given.hosts, allow_mcp_servers: false, allow_package_managers: false }
        }
    };
    let client = Arc::new(Client {
        session: SessionId::parse("session", "sesn_example")?,
        workspace: WorkspaceId::parse("workspace", "wrkspc_example")?,
        epoch: Epoch(1),
        networking,
        ports: given.ports,
        mcp_hosts: Vec::new(),
        vaults: Vec::new(),
        running: RunningCalls::default(),
    });
    let listener = TcpListener::bind(("127.0.0.1", given.port)).await?;
    println!("listening on {}, certificate {}", listener.local_addr()?, authority.file().display());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (proxy, client) = (proxy.clone(), client.clone());
        tokio::spawn(async move { proxy.serve(client, Box::new(stream)).await });
    }
}
