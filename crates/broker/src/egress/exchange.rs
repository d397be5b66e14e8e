//! One request and its answer, on a connection that is read.

use super::addressed;
use super::answer::{self, masks};
use super::body::{self, Body, Measured};
use super::hop;
use super::outgoing::{self, Broken, Work};
use super::passage::Passage;
use super::refusal::Stop;
use super::replace::{Bound, head};
use super::sigv4::{Head, Rechunk, Rewritten, Signed};
use super::tasks::Tasks;
use super::upgrade::Upgrade;
use super::upstream::{SendFault, Upstream};
use crate::credentials::{BoundCredential, Placement};
use crate::secret::Secret;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, HeaderValue, TRANSFER_ENCODING,
};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request, Response, StatusCode, Uri};
use loopd_domain::limits::EGRESS_BODY_HELD_BYTES_MAX;
use std::sync::Arc;

/// Requests to one host, over one upstream.
pub(crate) struct Exchange {
    pub(crate) passage: Arc<Passage>,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) tasks: Tasks,
    pub(crate) upgrade: Arc<Upgrade>,
    pub(crate) is_secure: bool,
}

/// The connection to the room is closed without an answer, as the other end has closed its own.
#[derive(Debug, thiserror::Error)]
#[error("the other end closed the connection under a request")]
pub(crate) struct ClosedBetween;

/// A request whose AWS signature is to be made again.
struct Signing {
    signed: Signed,
    credential: Arc<BoundCredential>,
    /// As it was signed.
    target: String,
    headers: HeaderMap,
}

impl Exchange {
    /// Serves one request. What stops it is its answer.
    pub(crate) async fn serve(&self, request: Request<Incoming>) -> Result<Response<Body>, ClosedBetween> {
        match self.pass(request).await {
            Ok(response) => Ok(response),
            Err(SendFault::ClosedBetween) => Err(ClosedBetween),
            Err(SendFault::Stopped(stop)) => {
                self.passage.notes.outcome(stop.outcome.clone());
                Ok(stop.response(self.upstream.is_h2()))
            }
        }
    }

    async fn pass(&self, mut request: Request<Incoming>) -> Result<Response<Body>, SendFault> {
        let is_h2 = self.upstream.is_h2();
        let room = hyper::upgrade::on(&mut request);
        let (mut parts, incoming) = request.into_parts();
        let passage = &self.passage;
        let named = addressed::check(&mut parts, &passage.host, passage.port, self.is_secure, is_h2);
        let named = named.map_err(SendFault::Stopped)?;
        let bound = passage.bound().await.map_err(SendFault::Stopped)?;
        self.forbid(&parts, &bound).await.map_err(SendFault::Stopped)?;
        let signing = self.signing(&parts, &bound)?;

        hop::strip(&mut parts.headers, !is_h2);
        // The room's side has answered it; the other end gets the body as it comes.
        parts.headers.remove(EXPECT);
        let is_upgrade = parts.headers.contains_key(hyper::header::UPGRADE);
        let mut encoded = Vec::new();
        let mut is_placed = signing.is_some();
        if self.is_secure {
            let placed = head::place(&mut parts.uri, &mut parts.headers, &bound.in_headers());
            let placed = placed.map_err(|fault| SendFault::Stopped(Stop::refused(fault.to_string())))?;
            for credential in &placed.used {
                passage.use_of(credential).await.map_err(SendFault::Stopped)?;
            }
            is_placed |= !placed.used.is_empty();
            encoded = placed.encoded;
        }
        is_placed |= self.is_secure && !incoming.is_end_stream() && !bound.in_body().is_empty();
        if is_placed {
            parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        let rechunk = match &signing {
            None => None,
            Some(signing) => {
                let signed = signing.again(&mut parts, &named, incoming.is_end_stream());
                let rechunk = signed.map_err(SendFault::Stopped)?;
                passage.use_of(&signing.credential).await.map_err(SendFault::Stopped)?;
                rechunk
            }
        };

        let broken = Broken::default();
        let body = self.body(&mut parts, incoming, &bound, signing.is_some(), rechunk, &broken).await;
        let body = body.map_err(SendFault::Stopped)?;
        if !is_h2 {
            frame(&mut parts.headers, &body);
        }
        let (method, masks) = (parts.method.clone(), masks(&bound, encoded));
        let sent = self.upstream.send(Request::from_parts(parts, body)).await;
        if let Some(stop) = broken.lock().take() {
            return Err(SendFault::Stopped(stop));
        }
        let mut response = sent?;
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switches {
            if !is_upgrade {
                return Err(SendFault::Stopped(Stop::failed("it changed the protocol without being asked")));
            }
            self.upgrade.begin(&self.tasks, room, hyper::upgrade::on(&mut response), self.passage.notes.clone());
        }
        Ok(answer::answer(response, masks, &method, switches))
    }

    /// What must not be in the head of a request to this host.
    async fn forbid(&self, parts: &Parts, bound: &Bound) -> Result<(), Stop> {
        if let Some(credential) = head::seen(&parts.uri, &parts.headers, &bound.elsewhere).first() {
            return Err(self.passage.violation(credential).await);
        }
        if let Some(credential) = signer(parts, &bound.elsewhere).map_or(None, |found| found.map(|(_, c)| c)) {
            return Err(self.passage.violation(&credential).await);
        }
        if self.is_secure {
            return Ok(());
        }
        let seen = head::seen(&parts.uri, &parts.headers, &bound.here).into_iter().next();
        let seen = seen.or_else(|| signer(parts, &bound.here).map_or(None, |found| found.map(|(_, c)| c)));
        match seen {
            Some(credential) => Err(self.passage.needs_tls(&credential).await),
            None => Ok(()),
        }
    }

    fn signing(&self, parts: &Parts, bound: &Bound) -> Result<Option<Signing>, SendFault> {
        let found = signer(parts, &bound.here).map_err(SendFault::Stopped)?;
        Ok(found.map(|(signed, credential)| Signing {
            signed,
            credential,
            target: target(&parts.uri).to_owned(),
            headers: parts.headers.clone(),
        }))
    }

    async fn body(
        &self,
        parts: &mut Parts,
        incoming: Incoming,
        bound: &Bound,
        is_signed: bool,
        rechunk: Option<Rechunk>,
        broken: &Broken,
    ) -> Result<Body, Stop> {
        let length = incoming.size_hint().exact();
        let stream =
            |incoming, work| outgoing::body(incoming, work, bound.clone(), self.passage.clone(), broken.clone());
        if let Some(rechunk) = rechunk {
            return Ok(Measured { inner: stream(incoming, Work::Sign(Box::new(rechunk))), length }.boxed_unsync());
        }
        let is_readable = parts.headers.get_all(CONTENT_ENCODING).iter().all(|value| value == "identity");
        // A body that was signed is not changed: its hash is in the signature.
        let rules = match is_signed {
            true => outgoing::rules(&Bound { here: Vec::new(), elsewhere: bound.elsewhere.clone() }, self.is_secure),
            false => outgoing::rules(bound, self.is_secure),
        };
        let Some(replacer) = rules.filter(|_| is_readable && !incoming.is_end_stream()) else {
            return Ok(body::pass(incoming));
        };
        if replacer.keeps_length() {
            return Ok(Measured { inner: stream(incoming, Work::Replace(replacer)), length }.boxed_unsync());
        }
        let inner = stream(incoming, Work::Replace(replacer));
        parts.headers.remove(CONTENT_LENGTH);
        if length.is_none_or(|length| length > EGRESS_BODY_HELD_BYTES_MAX as u64) {
            return Ok(inner);
        }
        let whole = inner.collect().await.map_err(|fault| {
            let told = || Stop::failed(format!("the request's body broke off: {fault}"));
            broken.lock().take().unwrap_or_else(told)
        })?;
        let whole = whole.to_bytes();
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(whole.len()));
        Ok(body::full(whole))
    }
}

impl Signing {
    fn again(&self, parts: &mut Parts, named: &str, has_no_body: bool) -> Result<Option<Rechunk>, Stop> {
        let new_target = target(&parts.uri).to_owned();
        let sent =
            Head { method: &parts.method, target: &self.target, headers: &self.headers, host: named, has_no_body };
        let head =
            Head { method: &parts.method, target: &new_target, headers: &parts.headers, host: named, has_no_body };
        let placeholder = Secret::new(self.credential.placeholder.clone().into_bytes());
        let made = self.signed.again(&sent, &head, &placeholder, &self.credential.secret);
        let refused = |fault: String| Stop::refused(format!("`{named}`: {fault}"));
        let (signature, rechunk) = made.map_err(|fault| refused(fault.to_string()))?;
        match self.signed.with(&signature, &new_target) {
            Rewritten::Authorization(value) => {
                let value = HeaderValue::try_from(value).map_err(|fault| refused(fault.to_string()))?;
                parts.headers.insert(AUTHORIZATION, value);
            }
            Rewritten::Target(target) => {
                let mut uri = std::mem::take(&mut parts.uri).into_parts();
                uri.path_and_query =
                    Some(target.try_into().map_err(|_| refused("its target is malformed".to_owned()))?);
                parts.uri = Uri::from_parts(uri).map_err(|fault| refused(fault.to_string()))?;
            }
        }
        Ok(rechunk)
    }
}

/// The credential under whose name a request is signed.
fn signer(parts: &Parts, credentials: &[Arc<BoundCredential>]) -> Result<Option<(Signed, Arc<BoundCredential>)>, Stop> {
    if !credentials.iter().any(|c| matches!(c.placement, Placement::AwsSignature { .. })) {
        return Ok(None);
    }
    let signed = Signed::read(target(&parts.uri), &parts.headers).map_err(|fault| Stop::refused(fault.to_string()))?;
    let Some(signed) = signed else { return Ok(None) };
    let is_signer = |credential: &&Arc<BoundCredential>| match &credential.placement {
        Placement::AwsSignature { access_key_id } => *access_key_id == signed.parts().access_key_id,
        Placement::Anywhere { .. } => false,
    };
    let credential = credentials.iter().find(is_signer).cloned();
    Ok(credential.map(|credential| (signed, credential)))
}

fn target(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |target| target.as_str())
}

/// How HTTP/1.1 tells where the body ends.
fn frame(headers: &mut HeaderMap, body: &Body) {
    match body.size_hint().exact() {
        Some(_) => {}
        None => {
            headers.remove(CONTENT_LENGTH);
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
}
