//! One model request under way: its future, and what of the answer has been seen so far.

use crate::hub::Channel;
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

/// Dropping it abandons the request.
pub struct Asking {
    pub future: Pin<Box<dyn Future<Output = Outcome> + Send>>,
    pub seen: Arc<Mutex<Seen>>,
    pub resolved: Resolved,
    pub attempt: u32,
}

/// What has arrived of the answer. Ids are given when a block starts, so that previews and history agree.
#[derive(Debug, Default)]
pub struct Seen {
    pub ids: BTreeMap<usize, EventId>,
    texts: BTreeMap<usize, String>,
    pub first_token_ms: Option<u64>,
}

impl Seen {
    /// The text that had arrived, as events, for an answer that was cut off.
    pub fn partial_messages(&self) -> Vec<(EventId, EventBody)> {
        let texts = self.texts.iter().filter(|(_, text)| !text.trim().is_empty());
        let event = |(index, text): (&usize, &String)| {
            let content = vec![ContentBlock::text(text.clone())];
            Some((self.ids.get(index)?.clone(), EventBody::AgentMessage { content, partial: true }))
        };
        texts.filter_map(event).collect()
    }
}

impl Asking {
    /// `base` is the seq of the request's start: previews belong after it.
    pub fn start(
        resolved: Resolved,
        request: ModelRequest,
        attempt: u32,
        channel: Arc<Channel>,
        ids: Arc<dyn IdSource>,
        base: Seq,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let started = Instant::now();
        let watcher = Watcher { seen: seen.clone(), channel, ids, base, started };
        let provider = resolved.provider.clone();
        let future = Box::pin(async move {
            let mut on_delta = |delta| watcher.see(delta);
            provider.call(&request, &mut on_delta).await
        });
        Asking { future, seen, resolved, attempt }
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
                    self.channel.publish(self.base, Followed::MessageStart { id: id.clone() });
                }
                seen.texts.entry(index).or_default().push_str(&text);
                Followed::MessageText { id, index: 0, text }
            }
            Delta::ThinkingStart { index } => Followed::ThinkingStart { id: self.id(&mut seen, index) },
            Delta::ToolStart { .. } => return,
        };
        self.channel.publish(self.base, item);
    }

    fn id(&self, seen: &mut Seen, index: usize) -> EventId {
        seen.ids.entry(index).or_insert_with(|| EventId::generate(self.ids.as_ref())).clone()
    }
}
