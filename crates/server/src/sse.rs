//! Server-sent events: frames, pings, and readers that are slower than the session.
//!
//! Every frame has an `event:` line (official clients drop frames without one); journal events also have `id: <seq>`, which
//! comes back as `Last-Event-ID`. A task moves items from the follower into a bounded channel, so a reader that is too slow
//! holds up only its own task: previews are dropped (from the first dropped one on, for that message), events wait. The channel
//! is bounded in frames and in bytes, because one frame may carry a whole tool result.

use crate::auth::StreamPlace;
use crate::error::ApiError;
use crate::wire::event;
use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use loopd_domain::event::Event;
use loopd_domain::limits::{STREAM_BYTES_MAX, STREAM_FRAMES_MAX, STREAM_PING_MS};
use loopd_domain::progress::Progress;
use loopd_domain::{EventId, Invalid, Seq};
use loopd_session::{Followed, Follower, RoomProgress};
use loopd_store::StoreError;
use serde::Serialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

const PING: &[u8] = b"event: ping\ndata: {\"type\": \"ping\"}\n\n";

/// One frame; `seq` becomes its `id:`.
pub fn frame(kind: &str, seq: Option<Seq>, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).expect("wire objects serialise");
    let id = seq.map_or(String::new(), |seq| format!("id: {seq}\n"));
    Bytes::from(format!("event: {kind}\n{id}data: {data}\n\n"))
}

/// A journal event's frame; `None` for what only the journal knows.
pub fn event_frame(entry: &Event) -> Option<Bytes> {
    event::write(entry).map(|wire| frame(wire.kind, Some(entry.seq), &wire))
}

const PREVIEWS: &str = "`agent.message`, `agent.thinking`, `loopd.tool_output` or `loopd.room_progress`";

/// Which previews a reader asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Previews {
    message: bool,
    thinking: bool,
    tool_output: bool,
    room_progress: bool,
}

impl Previews {
    pub fn read<'a>(at: &str, names: impl IntoIterator<Item = &'a str>) -> Result<Self, Invalid> {
        let mut previews = Previews::default();
        for name in names {
            match name {
                "agent.message" => previews.message = true,
                "agent.thinking" => previews.thinking = true,
                "loopd.tool_output" => previews.tool_output = true,
                "loopd.room_progress" => previews.room_progress = true,
                other => return Err(Invalid::new(at, other, PREVIEWS)),
            }
        }
        Ok(previews)
    }

    /// A preview's frame, if it was asked for, and the event that it belongs to.
    fn frame<'a>(&self, item: &'a Followed) -> Option<(Option<&'a EventId>, Bytes)> {
        let start = |kind: &str, id: &EventId| json!({"type": "event_start", "event": {"type": kind, "id": id}});
        let (id, kind, data): (&EventId, &str, Value) = match item {
            Followed::MessageStart { id } if self.message => (id, "event_start", start("agent.message", id)),
            Followed::ThinkingStart { id } if self.thinking => (id, "event_start", start("agent.thinking", id)),
            Followed::MessageText { id, index, text } if self.message => {
                let delta = json!({"type": "content_delta", "index": index, "content": {"type": "text", "text": text}});
                (id, "event_delta", json!({"type": "event_delta", "event_id": id, "delta": delta}))
            }
            Followed::ToolOutput { id, text } if self.tool_output => {
                (id, "loopd.tool_output", json!({"type": "loopd.tool_output", "tool_use_id": id, "text": text}))
            }
            Followed::RoomProgress(progress) if self.room_progress => {
                return Some((None, frame(ROOM_PROGRESS, None, &RoomProgressWire::of(progress))));
            }
            _ => return None,
        };
        Some((Some(id), frame(kind, None, &data)))
    }
}

const ROOM_PROGRESS: &str = "loopd.room_progress";

#[derive(Serialize)]
struct RoomProgressWire<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    progress: &'a Progress,
    waited_ms: u64,
}

impl<'a> RoomProgressWire<'a> {
    fn of(RoomProgress { progress, waited_ms }: &'a RoomProgress) -> Self {
        RoomProgressWire { kind: ROOM_PROGRESS, progress, waited_ms: *waited_ms }
    }
}

/// A frame that waits, and its share of the bytes that may.
struct Waiting {
    frame: Bytes,
    _share: OwnedSemaphorePermit,
}

/// The writing end of one stream.
pub struct Outlet {
    frames: mpsc::Sender<Waiting>,
    /// Bytes that may wait beside those that do.
    room: Arc<Semaphore>,
    /// The message whose previews no longer reach the reader: what follows a gap would be misread.
    stalled: Option<EventId>,
    /// Free again when the stream ends.
    _place: Option<StreamPlace>,
}

impl Outlet {
    /// False: the reader is gone.
    pub async fn send(&mut self, frame: Bytes) -> bool {
        // A reader that goes away gives back what waited for it, and then the channel is closed.
        let Ok(share) = self.room.clone().acquire_many_owned(weight(&frame)).await else { return false };
        self.frames.send(Waiting { frame, _share: share }).await.is_ok()
    }

    /// Sends a preview to who asked for such. Never waits.
    pub fn preview(&mut self, asked: Previews, item: &Followed) {
        if let Some((id, frame)) = asked.frame(item) {
            self.try_send(id, frame);
        }
    }

    /// What belongs to no event may be lost: the next one says all that it said.
    fn try_send(&mut self, id: Option<&EventId>, frame: Bytes) {
        if id.is_some() && self.stalled.as_ref() == id {
            return;
        }
        let share = self.room.clone().try_acquire_many_owned(weight(&frame));
        let sent = share.is_ok_and(|share| self.frames.try_send(Waiting { frame, _share: share }).is_ok());
        if let Some(id) = id.filter(|_| !sent) {
            self.stalled = Some(id.clone());
        }
    }

    /// The follower's next item, or `None` when either side is gone.
    pub async fn next(&self, follower: &mut Follower) -> Option<Result<Followed, StoreError>> {
        tokio::select! {
            item = follower.next() => item,
            () = self.frames.closed() => None,
        }
    }

    /// Tells the reader that the stream ends because the server cannot go on.
    pub async fn fail(&mut self, fault: StoreError) {
        let error = ApiError::from(fault);
        tracing::error!(cause = error.internal, "an event stream ended early");
        let _ = self.send(frame("error", None, &error.body(None))).await;
    }
}

/// A frame's share of the bytes that may wait; a single one that is larger waits alone.
fn weight(frame: &Bytes) -> u32 {
    frame.len().min(STREAM_BYTES_MAX) as u32
}

/// Both ends of a stream: what is sent into the outlet is what the response carries, with pings in the silences.
pub fn open(place: StreamPlace) -> (Outlet, Response) {
    open_with(Duration::from_millis(STREAM_PING_MS), Some(place))
}

fn open_with(ping: Duration, place: Option<StreamPlace>) -> (Outlet, Response) {
    let (frames, queue) = mpsc::channel::<Waiting>(STREAM_FRAMES_MAX);
    let body = futures_util::stream::unfold(queue, move |mut queue| async move {
        let frame = match timeout(ping, queue.recv()).await {
            Ok(waiting) => waiting?.frame,
            Err(_) => Bytes::from_static(PING),
        };
        Some((Ok::<Bytes, Infallible>(frame), queue))
    });
    let headers = [(CONTENT_TYPE, "text/event-stream; charset=utf-8"), (CACHE_CONTROL, "no-cache")];
    let room = Arc::new(Semaphore::new(STREAM_BYTES_MAX));
    (Outlet { frames, room, stalled: None, _place: place }, (headers, Body::from_stream(body)).into_response())
}

/// `Last-Event-ID`: the seq of the last event that the reader has.
pub fn last_event_id(headers: &HeaderMap) -> Result<Option<Seq>, Invalid> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let text = value.to_str().unwrap_or("");
    match text.trim() {
        "" => Ok(None),
        digits => {
            let refused = || Invalid::new("last-event-id", text, "the `id:` of an event of this stream, a number");
            digits.parse().map(Some).map_err(|_| refused())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{event, event_id};
    use futures_util::StreamExt;
    use loopd_domain::content::ContentBlock;
    use loopd_domain::event::EventBody;
    use loopd_domain::progress::Stage;

    #[test]
    fn a_frame_is_named_numbered_and_one_line() {
        let entry = event(7, EventBody::UserMessage { content: vec![ContentBlock::text("a\nb")] });
        let text = String::from_utf8(event_frame(&entry).expect("public").to_vec()).expect("UTF-8");
        let lines: Vec<&str> = text.split('\n').collect();
        assert_eq!(lines[..2], ["event: user.message", "id: 7"]);
        assert!(lines[2].starts_with("data: {\"id\":\"sevt_7\",\"type\":\"user.message\""), "{text}");
        assert_eq!(lines[3..], ["", ""]);
    }

    #[test]
    fn previews_are_what_was_asked_for() {
        let text = Followed::MessageText { id: event_id(3), index: 0, text: "hi".into() };
        assert!(Previews::default().frame(&text).is_none());
        let asked = Previews::read("event_deltas", ["agent.message"]).expect("known");
        let (id, bytes) = asked.frame(&text).expect("asked for");
        let expected = "event: event_delta\ndata: {\"type\":\"event_delta\",\"event_id\":\"sevt_3\",\"delta\":{\"type\":\"content_delta\",\"index\":0,\"content\":{\"type\":\"text\",\"text\":\"hi\"}}}\n\n";
        assert_eq!((id, bytes.as_ref()), (Some(&event_id(3)), expected.as_bytes()));
        assert!(asked.frame(&Followed::ThinkingStart { id: event_id(4) }).is_none());
        assert!(Previews::read("event_deltas", ["agent.tool_use"]).is_err());
        let progress = Progress::of(Stage::Pull, "image `a`").bytes(1, Some(2));
        let progress = Followed::RoomProgress(RoomProgress { progress, waited_ms: 7 });
        assert!(asked.frame(&progress).is_none());
        let asked = Previews::read("event_deltas", ["loopd.room_progress"]).expect("known");
        let (id, bytes) = asked.frame(&progress).expect("asked for");
        let expected = "event: loopd.room_progress\ndata: {\"type\":\"loopd.room_progress\",\"stage\":\"pull\",\"what\":\"image `a`\",\"done\":1,\"total\":2,\"unit\":\"bytes\",\"waited_ms\":7}\n\n";
        assert_eq!((id, std::str::from_utf8(&bytes)), (None, Ok(expected)));
    }

    #[tokio::test]
    async fn silence_is_filled_with_pings() {
        let (outlet, response) = open_with(Duration::from_millis(5), None);
        let mut body = response.into_body().into_data_stream();
        for _ in 0..2 {
            assert_eq!(body.next().await.expect("a ping").expect("bytes"), PING);
        }
        drop(outlet);
        assert!(body.next().await.is_none());
    }

    #[tokio::test]
    async fn a_slow_reader_loses_previews_and_never_an_event() {
        let (mut outlet, response) = open_with(Duration::from_millis(STREAM_PING_MS), None);
        for i in 0..STREAM_FRAMES_MAX + 10 {
            outlet.try_send(Some(&event_id(1)), Bytes::from(format!("{i}")));
        }
        let mut body = response.into_body().into_data_stream();
        assert_eq!(body.next().await.expect("a frame").expect("bytes"), "0");
        // There is room again, but a later piece of the same message would be misread.
        outlet.try_send(Some(&event_id(1)), Bytes::from_static(b"late"));
        outlet.try_send(Some(&event_id(2)), Bytes::from_static(b"another message"));
        drop(outlet);
        let rest: Vec<Bytes> = body.map(|f| f.expect("bytes")).collect().await;
        assert_eq!(rest.len(), STREAM_FRAMES_MAX);
        assert_eq!(rest.last().expect("frames"), "another message");
        assert!(!rest.contains(&Bytes::from_static(b"late")));
    }

    #[tokio::test]
    async fn bytes_that_wait_are_bounded_whatever_the_number_of_frames() {
        let (mut outlet, response) = open_with(Duration::from_millis(STREAM_PING_MS), None);
        let large = Bytes::from(vec![b'x'; STREAM_BYTES_MAX / 2]);
        assert!(outlet.send(large.clone()).await && outlet.send(large.clone()).await);
        let waits = timeout(Duration::from_millis(20), outlet.send(large.clone())).await;
        assert!(waits.is_err(), "a third half does not fit");
        let mut body = response.into_body().into_data_stream();
        assert_eq!(body.next().await.expect("a frame").expect("bytes").len(), large.len());
        assert!(outlet.send(large).await, "there is room again");
        // Larger than all that may wait: alone, and not never.
        let huge = Bytes::from(vec![b'y'; STREAM_BYTES_MAX + 1]);
        let (sent, read) =
            tokio::join!(outlet.send(huge), async { body.next().await.is_some() && body.next().await.is_some() });
        assert!(sent && read);
        drop(body);
        assert!(!outlet.send(Bytes::from_static(b"z")).await, "the reader is gone");
    }

    #[test]
    fn last_event_id_is_a_number_or_nothing() {
        let header = |v: &'static str| {
            last_event_id(&HeaderMap::from_iter([("last-event-id".parse().expect("name"), v.parse().expect("value"))]))
        };
        assert_eq!(header("12"), Ok(Some(12)));
        assert_eq!(header(""), Ok(None));
        assert!(header("sevt_1").is_err());
    }
}
