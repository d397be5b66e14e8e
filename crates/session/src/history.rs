//! Pages of a session's journal, and the answer that a repeated request had the first time.

use crate::requests::{Accepted, AcceptedInput, EventPage, EventQuery, ServiceError};
use loopd_domain::event::{Event, EventBody};
use loopd_domain::session::Session;
use loopd_domain::{EventId, Seq, SessionId, Timestamp};
use loopd_store::{OnceRecord, Store, StoreError, TimeRange};

/// Events read at a time.
const READ_ROWS: usize = 512;
/// A request's own entries follow its seq closely: the inputs and what they start.
const FIRST_ANSWER_ROWS: usize = 512;

/// One page, as the query asks.
pub async fn page(store: &dyn Store, session: &Session, query: EventQuery) -> Result<EventPage, StoreError> {
    let mut events = Vec::new();
    let mut reader = Reader::new(store, session, &query);
    while events.len() <= query.limit {
        let Some(chunk) = reader.next().await? else { break };
        events.extend(chunk.into_iter().filter(|e| matches(&query, e)));
    }
    let more = events.len() > query.limit;
    events.truncate(query.limit);
    let next = if more { events.last().map(|e| e.seq) } else { None };
    let shows_queue = if query.ascending { !more } else { query.after.is_none() };
    let queued = if shows_queue { queued(store, session, &query).await? } else { Vec::new() };
    Ok(EventPage { events, queued, next })
}

/// Reads a journal in list order, a chunk at a time.
struct Reader<'a> {
    store: &'a dyn Store,
    session: &'a SessionId,
    ascending: bool,
    /// Exclusive: the last seq that was read, in list order.
    at: Seq,
    last_seq: Seq,
}

impl<'a> Reader<'a> {
    fn new(store: &'a dyn Store, session: &'a Session, query: &EventQuery) -> Self {
        let last_seq = session.fold.last_seq;
        let start = if query.ascending { 0 } else { last_seq + 1 };
        Reader {
            store,
            session: &session.id,
            ascending: query.ascending,
            at: query.after.unwrap_or(start).min(last_seq + 1),
            last_seq,
        }
    }

    async fn next(&mut self) -> Result<Option<Vec<Event>>, StoreError> {
        if self.ascending {
            if self.at >= self.last_seq {
                return Ok(None);
            }
            // What came after the session was looked at is not of this page: its queue would show the same input again.
            let count = READ_ROWS.min((self.last_seq - self.at) as usize);
            let events = self.store.journal().read(self.session, self.at, count).await?;
            let Some(last) = events.last() else { return Ok(None) };
            self.at = last.seq;
            return Ok(Some(events));
        }
        if self.at <= 1 {
            return Ok(None);
        }
        let from = self.at.saturating_sub(READ_ROWS as u64 + 1);
        let count = (self.at - 1 - from) as usize;
        let mut events = self.store.journal().read(self.session, from, count).await?;
        self.at = from + 1;
        events.reverse();
        Ok(Some(events))
    }
}

fn matches(query: &EventQuery, event: &Event) -> bool {
    event.body.is_public() && wants(query, event.body.kind()) && within(&query.range, event.at)
}

fn wants(query: &EventQuery, kind: &str) -> bool {
    query.kinds.is_empty() || query.kinds.iter().any(|k| k == kind)
}

fn within(range: &TimeRange, at: Timestamp) -> bool {
    range.gt.is_none_or(|bound| at > bound)
        && range.gte.is_none_or(|bound| at >= bound)
        && range.lt.is_none_or(|bound| at < bound)
        && range.lte.is_none_or(|bound| at <= bound)
}

/// Inputs that wait. They have no time yet, so a query for a stretch of time does not show them.
async fn queued(store: &dyn Store, session: &Session, query: &EventQuery) -> Result<Vec<AcceptedInput>, StoreError> {
    let mut inputs = Vec::new();
    if query.range != TimeRange::default() {
        return Ok(inputs);
    }
    for waiting in &session.fold.queued {
        let found = store.journal().read(&session.id, waiting.seq - 1, 1).await?;
        if let Some(EventBody::InputQueued { input }) = found.into_iter().next().map(|e| e.body)
            && wants(query, input.body.kind())
        {
            inputs.push(AcceptedInput { id: input.id, body: *input.body, processed_at: None });
        }
    }
    if !query.ascending {
        inputs.reverse();
    }
    Ok(inputs)
}

/// What the first of several equal requests was answered.
pub async fn first_answer(store: &dyn Store, record: OnceRecord) -> Result<Accepted, ServiceError> {
    let damaged = || StoreError::Damaged(format!("the record of request `{}`", record.key));
    let text = record.reference["session"].as_str().ok_or_else(damaged)?;
    let id = SessionId::parse("session", text).map_err(|_| damaged())?;
    let seq = record.reference["seq"].as_u64().ok_or_else(damaged)?;
    let ids = record.reference["inputs"].as_array().ok_or_else(damaged)?;
    let session =
        store.sessions().get(&record.workspace, &id).await?.ok_or_else(|| ServiceError::Absent(id.clone()))?;
    let events = store.journal().read(&id, seq, FIRST_ANSWER_ROWS).await?;
    let inputs = ids.iter().filter_map(|id| accepted(&events, id.as_str()?)).collect();
    Ok(Accepted { session, inputs, seq, repeated: true })
}

/// An input as it was first acknowledged: processed, or queued.
fn accepted(events: &[Event], id: &str) -> Option<AcceptedInput> {
    let is = |candidate: &EventId| candidate.as_str() == id;
    events.iter().find_map(|event| match &event.body {
        EventBody::InputQueued { input } if is(&input.id) => {
            Some(AcceptedInput { id: input.id.clone(), body: (*input.body).clone(), processed_at: None })
        }
        body if is(&event.id) => {
            Some(AcceptedInput { id: event.id.clone(), body: body.clone(), processed_at: Some(event.at) })
        }
        _ => None,
    })
}
