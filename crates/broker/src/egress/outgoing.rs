//! A request's body on its way out: secrets are put in, or its chunks are signed again.

use super::body::{Body, Fault};
use super::passage::Passage;
use super::refusal::Stop;
use super::replace::stream::{Pattern, Piece, Replacer};
use super::replace::{Bound, head};
use super::sigv4::Rechunk;
use crate::credentials::BoundCredential;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{HeaderMap, Uri};
use loopd_domain::CredentialId;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use zeroize::Zeroizing;

/// What a placeholder in a body means.
pub(crate) enum Rule {
    Place(Arc<BoundCredential>),
    /// Its credential does not name the host.
    Violation(Arc<BoundCredential>),
    /// The connection is in the clear.
    NeedsTls(Arc<BoundCredential>),
}

/// Why a body was broken off, for whoever waits for the answer.
pub(crate) type Broken = Arc<Mutex<Option<Stop>>>;

pub(crate) enum Work {
    Replace(Replacer<Rule>),
    Sign(Box<Rechunk>),
}

struct Outgoing {
    incoming: Incoming,
    work: Work,
    bound: Bound,
    passage: Arc<Passage>,
    used: Vec<CredentialId>,
    ready: VecDeque<Frame<Bytes>>,
    is_ended: bool,
    broken: Broken,
}

/// What to look for in a body to this host. `None`: nothing.
pub(crate) fn rules(bound: &Bound, is_secure: bool) -> Option<Replacer<Rule>> {
    let pattern = |credential: &Arc<BoundCredential>, replace, tag| Pattern {
        find: Zeroizing::new(credential.placeholder.clone().into_bytes()),
        replace,
        tag,
    };
    let elsewhere = bound.elsewhere.iter().map(|c| pattern(c, None, Rule::Violation(c.clone())));
    let here: Vec<_> = match is_secure {
        true => {
            bound.in_body().iter().map(|c| pattern(c, Some(c.secret.to_zeroizing()), Rule::Place(c.clone()))).collect()
        }
        false => bound.here.iter().map(|c| pattern(c, None, Rule::NeedsTls(c.clone()))).collect(),
    };
    Replacer::new(elsewhere.chain(here).collect())
}

pub(crate) fn body(incoming: Incoming, work: Work, bound: Bound, passage: Arc<Passage>, broken: Broken) -> Body {
    let (used, ready) = (Vec::new(), VecDeque::new());
    let outgoing = Outgoing { incoming, work, bound, passage, used, ready, is_ended: false, broken };
    StreamBody::new(stream::try_unfold(outgoing, Outgoing::next)).boxed_unsync()
}

impl Outgoing {
    async fn next(mut self) -> Result<Option<(Frame<Bytes>, Self)>, Fault> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Ok(Some((frame, self)));
            }
            if self.is_ended {
                return Ok(None);
            }
            let data = match self.incoming.frame().await.transpose()? {
                None => None,
                Some(frame) => match frame.into_data() {
                    Ok(data) => Some(data),
                    Err(frame) => {
                        self.end().await?;
                        let trailers =
                            frame.into_trailers().map_err(|_| "a frame that is neither data nor trailers")?;
                        let trailers = self.trailers(trailers).await?;
                        self.ready.push_back(Frame::trailers(trailers));
                        continue;
                    }
                },
            };
            match data {
                Some(data) => self.take(data).await?,
                None => self.end().await?,
            }
        }
    }

    async fn take(&mut self, data: Bytes) -> Result<(), Fault> {
        match &mut self.work {
            Work::Replace(replacer) => {
                let pieces = replacer.feed(data);
                self.pass(pieces).await
            }
            Work::Sign(rechunk) => {
                let made = rechunk.feed(&data);
                let made = made.map_err(|fault| self.stop(Stop::refused(fault.to_string())))?;
                if !made.is_empty() {
                    self.ready.push_back(Frame::data(made));
                }
                Ok(())
            }
        }
    }

    async fn end(&mut self) -> Result<(), Fault> {
        self.is_ended = true;
        match &mut self.work {
            Work::Replace(replacer) => {
                let pieces = replacer.finish();
                self.pass(pieces).await
            }
            Work::Sign(rechunk) => {
                let whole = rechunk.finish();
                whole.map_err(|fault| self.stop(Stop::malformed(fault.to_string())))
            }
        }
    }

    async fn pass(&mut self, pieces: Vec<Piece>) -> Result<(), Fault> {
        for piece in pieces {
            match piece {
                Piece::Bytes(bytes) => self.ready.push_back(Frame::data(bytes)),
                Piece::Found(number) => self.found(number).await?,
            }
        }
        Ok(())
    }

    async fn found(&mut self, number: usize) -> Result<(), Fault> {
        let Work::Replace(replacer) = &self.work else { return Ok(()) };
        let stop = match &replacer.pattern(number).tag {
            Rule::Place(credential) if self.used.contains(&credential.credential) => return Ok(()),
            Rule::Place(credential) => {
                let credential = credential.clone();
                match self.passage.use_of(&credential).await {
                    Ok(()) => {
                        self.used.push(credential.credential.clone());
                        return Ok(());
                    }
                    Err(stop) => stop,
                }
            }
            Rule::Violation(credential) => self.passage.violation(credential).await,
            Rule::NeedsTls(credential) => self.passage.needs_tls(credential).await,
        };
        Err(self.stop(stop))
    }

    /// Trailers carry no secret; a placeholder that must not pass does not pass in them either.
    async fn trailers(&mut self, trailers: HeaderMap) -> Result<HeaderMap, Fault> {
        match head::seen(&Uri::default(), &trailers, &self.bound.elsewhere).first() {
            None => Ok(trailers),
            Some(credential) => {
                let stop = self.passage.violation(credential).await;
                Err(self.stop(stop))
            }
        }
    }

    fn stop(&self, stop: Stop) -> Fault {
        let fault = stop.reason().to_owned();
        self.passage.notes.outcome(stop.outcome.clone());
        self.broken.lock().get_or_insert(stop);
        fault.into()
    }
}
