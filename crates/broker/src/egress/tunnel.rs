//! `CONNECT`: a way to one host. Read where a credential names the host, or where it is in the clear; otherwise blind.
//!
//! ```text
//!  CONNECT ─► 200 ─► may it? resolve, check, dial ─► how does it begin? ─┬─ TLS, a credential names the host ─► opened
//!                        │ no                                            ├─ HTTP in the clear ───────────────► read
//!                        └─► told inside TLS, or in the clear            └─ anything else ───────────────────► blind
//! ```
//!
//! The answer to `CONNECT` is always 200: programs behind the room's stub never see it, and those that do rarely show another. The
//! reason is told where the program looks: in the answer to its first request.

use super::exchange::Exchange;
use super::opening::{self, Hello, Opening};
use super::passage::Passage;
use super::refusal::Stop;
use super::room::RoomIo;
use super::serving;
use super::tasks::Tasks;
use super::upgrade::Upgrade;
use super::upstream::{Route, Upstream, told};
use hyper::service::service_fn;
use loopd_domain::environment::Networking;
use loopd_domain::limits::{EGRESS_HANDSHAKE_MS, EGRESS_REFUSAL_MS, EGRESS_TUNNEL_BYTES};
use loopd_domain::network::ConnectionOutcome;
use loopd_policy::network::Host;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

pub(crate) struct Tunnel {
    pub(crate) passage: Arc<Passage>,
    pub(crate) tasks: Tasks,
}

/// What stopped a tunnel, and where the room can be told.
struct Stopped {
    stop: Stop,
    room: RoomIo,
}

impl Tunnel {
    pub(crate) async fn serve(&self, mut room: RoomIo) {
        if let Err(fault) = room.write_all(ESTABLISHED).await {
            return self.note(Stop::failed(format!("the room closed it: {fault}")));
        }
        match self.pass(room).await {
            Ok(()) => self.passage.notes.outcome(ConnectionOutcome::Done),
            Err(stopped) => {
                let Stopped { stop, room } = *stopped;
                self.note(stop.clone());
                self.tell(room, stop).await;
            }
        }
    }

    async fn pass(&self, mut room: RoomIo) -> Result<(), Box<Stopped>> {
        let passage = &self.passage;
        let reached = async {
            let bound = passage.bound().await?;
            let checked = passage.parts.permit(&passage.client, &passage.host, passage.port).await?;
            let stream = checked.dial(&passage.host, passage.port).await?;
            let route = Route { host: passage.host.clone(), port: passage.port, checked, tls: None };
            Ok::<_, Stop>((bound, route, stream))
        };
        let (bound, route, stream) = match reached.await {
            Ok(reached) => reached,
            Err(stop) => return Err(Box::new(Stopped { stop, room })),
        };
        let is_limited = !matches!(passage.client.networking, Networking::Unrestricted);
        if bound.is_empty() && !is_limited {
            return self.blind(room, stream).await;
        }
        let opening = tokio::select! {
            biased;
            opening = opening::read(&mut room) => opening,
            // The other end speaks first, or has gone.
            _ = stream.readable() => Ok(Opening::Other),
        };
        match opening {
            Err(fault) => {
                self.note(Stop::failed(format!("the room closed it: {fault}")));
                Ok(())
            }
            Ok(Opening::Tls(hello)) => {
                let is_opened = !bound.here.is_empty();
                if let Some(name) = hello.server_name.as_deref().filter(|_| is_opened || is_limited)
                    && Host::parse(name).as_ref() != Ok(&passage.host)
                {
                    let host = &passage.host;
                    let stop = Stop::refused(format!(
                        "TLS is for `{name}`, the connection is to `{host}`; accepted: the same host in both"
                    ));
                    return Err(Box::new(Stopped { stop, room }));
                }
                match is_opened {
                    true => self.opened(room, hello, route, stream).await,
                    false => self.blind(room, stream).await,
                }
            }
            Ok(Opening::Clear) if bound.is_empty() && !is_limited => self.blind(room, stream).await,
            Ok(Opening::Clear) => self.clear(room, route, stream).await,
            Ok(Opening::Other) => self.blind(room, stream).await,
        }
    }

    async fn blind(&self, mut room: RoomIo, mut stream: TcpStream) -> Result<(), Box<Stopped>> {
        let copied =
            copy_bidirectional_with_sizes(&mut room, &mut stream, EGRESS_TUNNEL_BYTES, EGRESS_TUNNEL_BYTES).await;
        if let Err(fault) = copied {
            self.note(Stop::failed(format!("it broke off: {fault}")));
        }
        Ok(())
    }

    async fn opened(
        &self,
        room: RoomIo,
        hello: Hello,
        mut route: Route,
        stream: TcpStream,
    ) -> Result<(), Box<Stopped>> {
        let parts = &self.passage.parts;
        // What the room does not speak is not asked for: both sides speak the same version of HTTP.
        let config = if hello.offers(b"h2") { &parts.tls.any } else { &parts.tls.h1 };
        let stream = match route.tls(config, stream).await {
            Ok(stream) => stream,
            Err(stop) => return Err(Box::new(Stopped { stop, room })),
        };
        route.tls = Some(config.clone());
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let upstream = match Upstream::begin(route, self.tasks.clone(), is_h2, stream).await {
            Ok(upstream) => upstream,
            Err(stop) => return Err(Box::new(Stopped { stop, room })),
        };
        match self.accept(room, &self.passage.host, is_h2).await {
            Ok(room) => self.read(room, is_h2, upstream, true).await,
            Err(stop) => self.note(stop),
        }
        Ok(())
    }

    async fn clear(&self, room: RoomIo, route: Route, stream: TcpStream) -> Result<(), Box<Stopped>> {
        let is_h2 = room.ahead().starts_with(b"PRI ");
        match Upstream::begin(route, self.tasks.clone(), is_h2, stream).await {
            Ok(upstream) => self.read(room, is_h2, upstream, false).await,
            Err(stop) => return Err(Box::new(Stopped { stop, room })),
        }
        Ok(())
    }

    /// Request by request.
    async fn read<I>(&self, room: I, is_h2: bool, upstream: Upstream, is_secure: bool)
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let upgrade = Arc::new(Upgrade::default());
        let exchange = Arc::new(Exchange {
            passage: self.passage.clone(),
            upstream: Arc::new(upstream),
            tasks: self.tasks.clone(),
            upgrade: upgrade.clone(),
            is_secure,
        });
        let service = service_fn(move |request| {
            let exchange = exchange.clone();
            async move { exchange.serve(request).await }
        });
        let served = serving::serve(room, is_h2, &self.tasks, &self.passage.closing, service).await;
        upgrade.ended().await;
        match served {
            // It went without a farewell, as many programs do.
            Err(fault) if fault.is_shutdown() => {}
            Err(fault) if fault.is_parse() => {
                self.note(Stop::refused(format!("what the room sent is not HTTP: {}", told(&fault))));
            }
            Err(fault) => self.note(Stop::failed(format!("it broke off: {}", told(&fault)))),
            Ok(()) => {}
        }
    }

    /// TLS towards the room, as if this were the host.
    async fn accept(
        &self,
        room: RoomIo,
        host: &Host,
        is_h2: bool,
    ) -> Result<tokio_rustls::server::TlsStream<RoomIo>, Stop> {
        let parts = &self.passage.parts;
        let leaf = parts.leaves.of(host, parts.clock.now()).map_err(|fault| Stop::failed(fault.to_string()))?;
        let config = if is_h2 { leaf.h2 } else { leaf.h1 };
        let limit = Duration::from_millis(EGRESS_HANDSHAKE_MS);
        match timeout(limit, TlsAcceptor::from(config).accept(room)).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(fault)) => Err(Stop::failed(format!("TLS with the program in the room failed: {fault}"))),
            Err(_) => Err(Stop::failed(format!("TLS with the program in the room took over {} s", limit.as_secs()))),
        }
    }

    /// Answers the first request with the reason, if there is one.
    async fn tell(&self, mut room: RoomIo, stop: Stop) {
        let limit = Duration::from_millis(EGRESS_REFUSAL_MS);
        let Ok(Ok(opening)) = timeout(limit, opening::read(&mut room)).await else { return };
        let served = async {
            match opening {
                Opening::Other => {}
                Opening::Clear if room.ahead().starts_with(b"PRI ") => self.answer(room, true, stop).await,
                Opening::Clear => self.answer(room, false, stop).await,
                Opening::Tls(hello) => {
                    let is_h2 = hello.offers_only_h2();
                    let named = hello.server_name.as_deref().and_then(|name| Host::parse(name).ok());
                    let host = named.unwrap_or_else(|| self.passage.host.clone());
                    // Who does not trust the authority is told nothing, and is refused as well.
                    match self.accept(room, &host, is_h2).await {
                        Ok(room) => self.answer(room, is_h2, stop).await,
                        Err(fault) => tracing::debug!(reason = fault.reason(), "a refusal was not told"),
                    }
                }
            }
        };
        if timeout(limit, served).await.is_err() {
            tracing::debug!("a refusal was not asked for");
        }
    }

    async fn answer<I>(&self, room: I, is_h2: bool, stop: Stop)
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let closing = self.passage.closing.clone();
        let service = service_fn(move |_| {
            closing.notify_one();
            let response = stop.response(is_h2);
            async move { Ok::<_, Infallible>(response) }
        });
        if let Err(fault) = serving::serve(room, is_h2, &self.tasks, &self.passage.closing, service).await {
            tracing::debug!(%fault, "a refusal was not told");
        }
    }

    fn note(&self, stop: Stop) {
        self.passage.notes.outcome(stop.outcome);
    }
}
