//! Ways from the benchmark's client to its site: direct, and through proxies that listen on a TCP port.

use crate::http::free_port;
use crate::place::Place;
use crate::process;
use crate::site::{ALPN, LOCAL_NAME, PLACEHOLDER, SECRET, Sent, Site, drain, filler};
use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const START_WAIT: Duration = Duration::from_secs(30);
/// A head that is longer is no answer to `CONNECT`.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// Its proxy, if it has one, is killed when dropped.
pub struct Way {
    pub name: &'static str,
    site: SocketAddr,
    proxy: Option<Proxy>,
    /// Whether TLS is opened on it and the secret put in its place.
    is_opened: bool,
    tls: TlsConnector,
}

struct Proxy {
    port: u16,
    child: Child,
}

/// One connection to the site.
pub struct Connection<'a> {
    way: &'a Way,
    requests: SendRequest<Sent>,
}

impl Way {
    pub fn direct(name: &'static str, site: &Site) -> Result<Way> {
        let tls = trusting(&site.certificate_file)?;
        Ok(Way { name, site: site.address(), proxy: None, is_opened: false, tls })
    }

    /// loopd's egress proxy, which its example serves on a port as the way out of one session.
    pub async fn loopd(
        name: &'static str,
        place: &Place,
        site: &Site,
        directory: &Path,
        is_opened: bool,
    ) -> Result<Way> {
        let program = place.example("loopd-broker", "egress").await?;
        let port = free_port()?;
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string(), "--tcp-port", &site.address().port().to_string()]);
        command.args(["--host", LOCAL_NAME, "--allow", "127.0.0.0/8", "--data"]).arg(directory);
        command.arg("--root").arg(&site.certificate_file);
        if is_opened {
            command.args(["--credential", &format!("{PLACEHOLDER}={SECRET}@{LOCAL_NAME}")]);
        }
        let authority = directory.join("egress-authority.pem");
        Self::through(name, site, command, port, is_opened.then_some(&authority)).await
    }

    /// mitmproxy without a screen. Large bodies are not held in memory, as loopd does not hold them either.
    pub async fn mitmproxy(
        name: &'static str,
        place: &Place,
        site: &Site,
        directory: &Path,
        is_opened: bool,
    ) -> Result<Way> {
        let port = free_port()?;
        let mut command = Command::new(place.tools.mitmdump());
        command.args(["--quiet", "--listen-host", "127.0.0.1", "--listen-port", &port.to_string()]);
        command.args(["--set", "stream_large_bodies=64k", "--set", &format!("confdir={}", directory.display())]);
        let root = site.certificate_file.display();
        command.args(["--set", &format!("ssl_verify_upstream_trusted_ca={root}")]);
        match is_opened {
            true => command.arg("--scripts").arg(place.tools.peers.join("mitmproxy/placing.py")),
            false => command.args(["--ignore-hosts", ".*"]),
        };
        command.env("PLACEHOLDER", PLACEHOLDER).env("SECRET", SECRET);
        let authority = directory.join("mitmproxy-ca-cert.pem");
        Self::through(name, site, command, port, is_opened.then_some(&authority)).await
    }

    async fn through(
        name: &'static str,
        site: &Site,
        mut command: Command,
        port: u16,
        authority: Option<&Path>,
    ) -> Result<Way> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("starting {:?}", command.as_std()))?;
        let proxy = Proxy { port, child };
        let until = Instant::now() + START_WAIT;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
            ensure!(Instant::now() < until, "{name} did not listen within {START_WAIT:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let tls = trusting(authority.unwrap_or(&site.certificate_file))?;
        Ok(Way { name, site: site.address(), proxy: Some(proxy), is_opened: authority.is_some(), tls })
    }

    /// With a whole TLS handshake: nothing is resumed, as the programs of a room do not either.
    pub async fn connect(&self) -> Result<Connection<'_>> {
        let stream = match &self.proxy {
            None => tcp(self.site).await?,
            Some(proxy) => tunnel(proxy.port, self.site.port()).await?,
        };
        let stream = self.tls.connect(ServerName::try_from(LOCAL_NAME)?, stream).await.context("TLS")?;
        let (requests, connection) = handshake(TokioIo::new(stream)).await?;
        // Its faults are those of the requests on it.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { way: self, requests })
    }

    /// Processor time of the proxy so far, in seconds; none without one.
    pub fn processor(&self) -> Result<Option<f64>> {
        let Some(proxy) = &self.proxy else { return Ok(None) };
        let pid = proxy.child.id().with_context(|| format!("{} has ended", self.name))?;
        Ok(Some(process::processor(&process::tree(pid)?)))
    }
}

impl Connection<'_> {
    pub async fn download(&mut self, bytes: usize) -> Result<()> {
        let request = self.request(Method::GET, &format!("bytes/{bytes}"));
        let got = self.send(request.body(Empty::new().boxed())?).await?;
        let count = drain(got).await?;
        ensure!(count == bytes, "{count} bytes of {bytes}");
        Ok(())
    }

    pub async fn upload(&mut self, bytes: usize) -> Result<()> {
        let request = self.request(Method::POST, "swallow").header("content-length", bytes);
        let got = self.send(request.body(filler(bytes))?).await?;
        let count = got.collect().await?.to_bytes();
        ensure!(count == bytes.to_string(), "{} bytes of {bytes} arrived", String::from_utf8_lossy(&count));
        Ok(())
    }

    fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        let key = if self.way.is_opened { "opened" } else { "blind" };
        let request = Request::builder().method(method).uri(format!("/{key}/{path}"));
        let host = format!("{LOCAL_NAME}:{}", self.way.site.port());
        request.header("host", host).header("authorization", format!("Bearer {PLACEHOLDER}"))
    }

    async fn send(&mut self, request: Request<Sent>) -> Result<hyper::body::Incoming> {
        self.requests.ready().await?;
        let answer = self.requests.send_request(request).await?;
        let (head, body) = answer.into_parts();
        if !head.status.is_success() {
            let text = body.collect().await?.to_bytes();
            anyhow::bail!("{}: {}", head.status, String::from_utf8_lossy(&text));
        }
        Ok(body)
    }
}

fn trusting(root: &Path) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(root).with_context(|| format!("`{}`", root.display()))? {
        roots.add(certificate?)?;
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn tcp(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn tunnel(proxy: u16, port: u16) -> Result<TcpStream> {
    let mut stream = tcp((Ipv4Addr::LOCALHOST, proxy).into()).await?;
    let to = format!("{LOCAL_NAME}:{port}");
    stream.write_all(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes()).await?;
    // Nothing follows the head before the client speaks again, so no byte of the tunnel is taken with it.
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < HEAD_BYTES_MAX, "the answer to CONNECT does not end");
        ensure!(stream.read_buf(&mut head).await? > 0, "the proxy hung up on CONNECT");
    }
    let line = String::from_utf8_lossy(&head);
    ensure!(line.split(' ').nth(1) == Some("200"), "CONNECT was answered {line}");
    Ok(stream)
}
