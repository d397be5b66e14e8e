//! HTTP for all providers: one client, one exchange.
//!
//! Owns connections, time limits, bounds, and the translation of failures. It sends a key only to the address that it was
//! given with: redirects are not followed. It never retries (the session decides that and shows it), and it reads no wire
//! format itself: a [`Decoder`] does.

mod body;
pub(crate) mod classify;
mod fault;
pub(crate) mod hints;
pub(crate) mod key;

use crate::draft::Sink;
use crate::provider::{Answer, ErrorClass, ModelError};
use crate::wire::Decoder;
use body::BodyReader;
use hints::Hints;
use key::ApiKey;
use loopd_domain::Clock;
use loopd_domain::limits::MODEL_SILENCE_MS;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an error body that are read.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// What to do about a refusal where there was no key to send.
const NO_KEY: &str =
    "; no key was sent: set the provider's key, or configure this address as a provider with an `api_key_env`";

/// Why no HTTP client could be made.
#[derive(Debug, thiserror::Error)]
#[error("no HTTP client can be made: {0}")]
pub struct ClientError(String);

/// Where a provider is, and what opens it.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// The address that requests are posted to.
    pub url: Url,
    pub key: Option<ApiKey>,
}

impl Endpoint {
    /// As messages show it: without query, which some services misuse for keys.
    fn shown(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        format!("POST {url}")
    }
}

/// One request to be sent.
pub(crate) struct Exchange<'a> {
    pub endpoint: &'a Endpoint,
    pub headers: Vec<(&'static str, &'static str)>,
    pub credential: Option<(&'static str, HeaderValue)>,
    pub body: Vec<u8>,
}

/// Cheap to clone; all clones share their connections.
#[derive(Clone)]
pub(crate) struct Client {
    remote: reqwest::Client,
    /// For servers on this machine, past any proxy.
    local: reqwest::Client,
    clock: Arc<dyn Clock>,
    silence: Duration,
}

impl Client {
    pub fn new(clock: Arc<dyn Clock>) -> Result<Self, ClientError> {
        let refused = |fault: reqwest::Error| ClientError(deepest_cause(&fault));
        // A machine without CA certificates makes the first one fail; the bundled Mozilla roots stand in there.
        let remote = builder().build().or_else(|_| builder().tls_certs_only(bundled_roots()?).build());
        let local = builder().no_proxy().tls_certs_only([]).build().map_err(refused)?;
        Ok(Client { remote: remote.map_err(refused)?, local, clock, silence: Duration::from_millis(MODEL_SILENCE_MS) })
    }

    /// The same client with less patience.
    pub fn with_silence_ms(mut self, silence_ms: u64) -> Self {
        self.silence = Duration::from_millis(silence_ms);
        self
    }

    /// Sends, and reads the answer to its end.
    pub async fn exchange<D: Decoder>(
        &self,
        exchange: Exchange<'_>,
        mut decoder: D,
        sink: &mut Sink<'_>,
    ) -> Result<Answer, ModelError> {
        let endpoint = exchange.endpoint;
        let mut request_id = None;
        let read = self.read(exchange, &mut decoder, sink, &mut request_id).await;
        let usage = decoder.usage();
        match read.and_then(|()| decoder.finish()) {
            Ok(answer) => Ok(Answer { request_id, ..answer }),
            Err(mut fault) => {
                fault.usage = usage;
                fault.request_id = fault.request_id.or(request_id);
                if fault.class == ErrorClass::Authentication {
                    let key = endpoint.key.as_ref().map(|key| format!("; check the key in {}", key.name()));
                    fault.message.push_str(&key.unwrap_or_else(|| NO_KEY.to_owned()));
                }
                if let Some(key) = &endpoint.key {
                    fault.message = key.scrub(&fault.message);
                }
                Err(fault)
            }
        }
    }

    async fn read<D: Decoder>(
        &self,
        exchange: Exchange<'_>,
        decoder: &mut D,
        sink: &mut Sink<'_>,
        request_id: &mut Option<String>,
    ) -> Result<(), ModelError> {
        let shown = exchange.endpoint.shown();
        let mut response = self.send(exchange, &shown).await?;
        let status = response.status().as_u16();
        let hints = hints::read(response.headers(), self.clock.now());
        *request_id = hints.request_id.clone();
        if !response.status().is_success() {
            return Err(self.refusal(response, status, hints, &shown).await);
        }
        let mut body = BodyReader::new(&mut response, self.silence, &shown);
        body::read_answer(&mut body, status, decoder, sink).await?;
        body::drain(response);
        Ok(())
    }

    async fn send(&self, exchange: Exchange<'_>, shown: &str) -> Result<reqwest::Response, ModelError> {
        let url = exchange.endpoint.url.clone();
        let client = if is_local(&url) { &self.local } else { &self.remote };
        let mut request =
            client.post(url).header(CONTENT_TYPE, "application/json").header("accept", "text/event-stream");
        for (name, value) in exchange.headers {
            request = request.header(name, value);
        }
        if let Some((name, value)) = exchange.credential {
            request = request.header(name, value);
        }
        match tokio::time::timeout(self.silence, request.body(exchange.body).send()).await {
            Ok(sent) => sent.map_err(|fault| lost(&fault, shown)),
            Err(_) => Err(silent(self.silence, shown)),
        }
    }

    async fn refusal(&self, mut response: reqwest::Response, status: u16, hints: Hints, shown: &str) -> ModelError {
        let target = response.headers().get("location").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut body = Vec::new();
        let mut reader = BodyReader::new(&mut response, self.silence, shown);
        // A body that breaks off says less, but the status stands.
        while let Ok(Some(piece)) = reader.next().await {
            body.extend_from_slice(&piece);
            if body.len() >= ERROR_BYTES_MAX {
                body.truncate(ERROR_BYTES_MAX);
                break;
            }
        }
        let mut fault = classify::response(status, &body, hints, shown);
        if let Some(target) = target.filter(|_| (300..400).contains(&status)) {
            let target = classify::shorten(&target, 200);
            fault.message = format!(
                "{shown} answered {status}: redirects to `{target}`, which are not followed; set that address as base URL"
            );
        }
        fault
    }
}

fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("loopd/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
}

fn bundled_roots() -> Result<Vec<reqwest::Certificate>, reqwest::Error> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|der| reqwest::Certificate::from_der(der)).collect()
}

fn is_local(url: &Url) -> bool {
    url.scheme() == "http"
        && match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
}

fn silent(silence: Duration, shown: &str) -> ModelError {
    let ms = silence.as_millis();
    let message = format!("{shown} sent nothing for {ms} ms; check the provider, or raise `[models] silence_seconds`");
    ModelError::new(ErrorClass::Timeout, message)
}

/// Says what broke, without the address as reqwest would print it (it may carry a query).
fn lost(fault: &reqwest::Error, shown: &str) -> ModelError {
    let (what, remedy) = match fault.is_connect() {
        true => ("cannot be reached", "; check the base URL and the network"),
        false => ("lost the connection", classify::CHECK_WAY),
    };
    let cause = deepest_cause(fault);
    let class = if fault.is_timeout() && !fault.is_connect() { ErrorClass::Timeout } else { ErrorClass::Connection };
    ModelError::new(class, format!("{shown} {what}: {}{remedy}", classify::shorten(&cause, 300)))
}

/// reqwest's own sentence says what it did; the last cause says why it failed.
fn deepest_cause(fault: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = fault;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
