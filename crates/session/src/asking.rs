//! One model request under way: its future, and what of the answer has been seen so far.

use crate::hub::Channel;
use crate::masking::{Masking, Preview};
use crate::requests::Followed;
use loopd_domain::event::EventBody;
use loopd_domain::{EventId, IdSource, Seq, content::ContentBlock};
use loopd_models::{Answer, Delta, ModelError, ModelRequest, Resolved};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::time::Instant;

type Outcome = Result<Answer, ModelError>;

/// A request whose start is in a draft.
pub struct Question {
    pub resolved: Resolved,
    pub request: ModelRequest,
    /// The request as its provider wants it, or why it cannot be sent.
    pub body: Result<Vec<u8>, ModelError>,
    pub attempt: u32,
}

/// Dropping it abandons the request.
pub struct Asking {
    pub future: Pin<Box<dyn Future<Output = Outcome> + Send>>,
    pub seen: Arc<Mutex<Seen>>,
    pub resolved: Resolved,
    pub attempt: u32,
    channel: Arc<Channel>,
    base: Seq,
}

/// What has arrived of the answer. Ids are given when a block starts, so that previews and history agree.
#[derive(Debug, Default)]
pub struct Seen {
    pub ids: BTreeMap<usize, EventId>,
    texts: BTreeMap<usize, String>,
    /// What of each text is not shown yet.
    previews: BTreeMap<usize, Preview>,
    masking: Masking,
    pub first_token_ms: Option<u64>,
    /// What is not to be shown before the request's start is on disk; `None` when it is there.
    withheld: Option<Vec<Followed>>,
}

impl Seen {
    /// The text that had arrived, as events, for an answer that was cut off.
    pub fn partial_messages(&self) -> Vec<(EventId, EventBody)> {
        let texts = self.texts.iter().filter(|(_, text)| !text.trim().is_empty());
        let event = |(index, text): (&usize, &String)| {
            let content = vec![ContentBlock::text(text.clone())];
            let body = self.masking.answer(EventBody::AgentMessage { content, partial: true });
            Some((self.ids.get(index)?.clone(), body))
        };
        texts.filter_map(event).collect()
    }
}

impl Asking {
    /// `base` is the seq of the request's start: previews belong after it.
    pub fn start(
        question: Question,
        channel: Arc<Channel>,
        ids: Arc<dyn IdSource>,
        base: Seq,
        masking: Masking,
    ) -> Self {
        let Question { resolved, request, body, attempt } = question;
        let seen = Arc::new(Mutex::new(Seen { masking, ..Seen::default() }));
        let started = Instant::now();
        let watcher = Watcher { seen: seen.clone(), channel: channel.clone(), ids, base, started };
        let provider = resolved.provider.clone();
        let future = Box::pin(async move {
            let mut on_delta = |delta| watcher.see(delta);
            provider.call(&request, body?, &mut on_delta).await
        });
        Asking { future, seen, resolved, attempt, channel, base }
    }

    /// Shows nothing until it is released.
    pub fn withhold(&self) {
        self.seen.lock().withheld.get_or_insert_default();
    }

    pub fn release(&self) {
        let withheld = self.seen.lock().withheld.take();
        withheld.into_iter().flatten().for_each(|item| self.channel.publish(self.base, item));
    }

    /// The answer is whole: what was held back of its previews is no secret's beginning.
    pub fn show_rest(&self) {
        let mut seen = self.seen.lock();
        let Seen { previews, ids, withheld, .. } = &mut *seen;
        for (index, preview) in previews {
            let text = preview.finish();
            if let Some(id) = ids.get(index).filter(|_| !text.is_empty()) {
                show(withheld, &self.channel, self.base, Followed::MessageText { id: id.clone(), index: 0, text });
            }
        }
    }
}

fn show(withheld: &mut Option<Vec<Followed>>, channel: &Channel, base: Seq, item: Followed) {
    match withheld {
        Some(withheld) => withheld.push(item),
        None => channel.publish(base, item),
    }
}

struct Watcher {
    seen: Arc<Mutex<Seen>>,
    channel: Arc<Channel>,
    ids: Arc<dyn IdSource>,
    base: Seq,
    started: Instant,
}

impl Watcher {
    fn see(&self, delta: Delta) {
        let mut seen = self.seen.lock();
        if seen.first_token_ms.is_none() {
            seen.first_token_ms = Some(self.started.elapsed().as_millis() as u64);
        }
        let item = match delta {
            Delta::TextStart { index } => {
                let id = self.id(&mut seen, index);
                Followed::MessageStart { id }
            }
            Delta::Text { index, text } => {
                let fresh = !seen.ids.contains_key(&index);
                let id = self.id(&mut seen, index);
                if fresh {
                    show(&mut seen.withheld, &self.channel, self.base, Followed::MessageStart { id: id.clone() });
                }
                seen.texts.entry(index).or_default().push_str(&text);
                let Seen { previews, masking, .. } = &mut *seen;
                let text = previews.entry(index).or_default().push(masking, text);
                if text.is_empty() {
                    return;
                }
                Followed::MessageText { id, index: 0, text }
            }
            Delta::ThinkingStart { index } => Followed::ThinkingStart { id: self.id(&mut seen, index) },
            Delta::ToolStart { .. } => return,
        };
        show(&mut seen.withheld, &self.channel, self.base, item);
    }

    fn id(&self, seen: &mut Seen, index: usize) -> EventId {
        seen.ids.entry(index).or_insert_with(|| EventId::generate(self.ids.as_ref())).clone()
    }
}
