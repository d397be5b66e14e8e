//! Connections that have ended, on their way into the journal.
//!
//! ```text
//!  egress ── ended() ──► [inbox of the session: bounded] ──► the driver's next append, or one of its own after a second
//! ```
//!
//! Reports never wait for anybody. Of one turn, and the time until the next, so many are written one by one; the others are
//! counted, and one event says how many there were. The count is the driver's: another driver of the same turn begins anew.

use crate::ledger::Draft;
use loopd_broker::Reports;
use loopd_domain::SessionId;
use loopd_domain::event::{Event, EventBody};
use loopd_domain::limits::{
    CONNECTION_CREDENTIALS_MAX, CONNECTION_HOST_CHARS_MAX, CONNECTION_REPORT_MS, CONNECTIONS_PER_TURN_MAX,
    REASON_CHARS_MAX,
};
use loopd_domain::network::Connection;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Where egress reports to: the inboxes of all sessions that live here.
#[derive(Default)]
pub struct ConnectionReports {
    inboxes: Mutex<HashMap<SessionId, Weak<Inbox>>>,
}

impl ConnectionReports {
    /// From now on reports of the session go there; an earlier driver's inbox gets no more.
    pub(crate) fn inbox(&self, session: &SessionId) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox::default());
        let mut inboxes = self.inboxes.lock();
        // Forget what nobody holds whenever the map would grow, so that it stays as large as what lives.
        if inboxes.len() == inboxes.capacity() {
            inboxes.retain(|_, inbox| inbox.strong_count() > 0);
        }
        inboxes.insert(session.clone(), Arc::downgrade(&inbox));
        inbox
    }
}

impl Reports for ConnectionReports {
    fn ended(&self, session: &SessionId, connection: Connection) {
        let connection = bounded(connection);
        let inbox = self.inboxes.lock().get(session).and_then(Weak::upgrade);
        match inbox {
            Some(inbox) => inbox.put(connection),
            None => {
                let (host, port) = (connection.host.escape_debug(), connection.port);
                tracing::info!(%session, %host, port, "a connection ended whose session nobody drives any more");
            }
        }
    }
}

/// What the journal does not know yet.
#[derive(Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Connection>,
    /// When the oldest of them came.
    since: Option<Instant>,
    /// Number of the turn that is counted, and how many of it were taken.
    turn: u32,
    taken: usize,
    /// More than the turn may have.
    omitted: u64,
    /// The turn whose omitted ones the latest draft tells of, and the one of which the journal was told.
    telling: u32,
    told: Option<u32>,
}

impl Inbox {
    fn put(&self, connection: Connection) {
        let mut state = self.state.lock();
        if state.taken < CONNECTIONS_PER_TURN_MAX {
            state.taken += 1;
            state.waiting.push_back(connection);
        } else {
            state.omitted = state.omitted.saturating_add(1);
        }
        state.since.get_or_insert_with(Instant::now);
        drop(state);
        self.arrived.notify_one();
    }

    /// Puts what waits into a draft that holds nothing else yet. It waits on until [`Inbox::written`].
    pub(crate) fn fill(&self, draft: &mut Draft) {
        let mut state = self.state.lock();
        let turn = draft.fold.turns;
        let mut bodies: Vec<EventBody> = Vec::new();
        bodies.extend(state.waiting.iter().cloned().map(|connection| EventBody::NetworkConnection { connection }));
        if state.omitted > 0 && state.may_tell(turn, draft.fold.turn.is_some()) {
            bodies.push(EventBody::NetworkConnectionsOmitted { count: state.omitted });
            state.telling = state.turn;
        }
        if state.turn != turn {
            (state.turn, state.taken) = (turn, state.waiting.len());
        }
        for body in bodies {
            if let Err(fault) = draft.push(body) {
                // Only a session that has ended takes none.
                tracing::debug!(%fault, waiting = state.waiting.len(), "connections that the journal does not take any more");
                *state = State { turn, ..State::default() };
                return;
            }
        }
    }

    /// These are on disk.
    pub(crate) fn written(&self, events: &[Event]) {
        let mut state = self.state.lock();
        for event in events {
            match &event.body {
                EventBody::NetworkConnection { .. } => {
                    state.waiting.pop_front();
                }
                EventBody::NetworkConnectionsOmitted { count } => {
                    state.omitted = state.omitted.saturating_sub(*count);
                    state.told = Some(state.telling);
                }
                _ => {}
            }
        }
        if state.waiting.is_empty() {
            state.since = None;
        }
    }

    /// Returns when something has waited for long enough to be written by itself. Safe to cancel.
    pub(crate) async fn due(&self, turn: u32, is_open: bool) {
        loop {
            let due = {
                let state = self.state.lock();
                let has_news = !state.waiting.is_empty() || (state.omitted > 0 && state.may_tell(turn, is_open));
                let since = state.since.unwrap_or_else(Instant::now);
                has_news.then(|| since + Duration::from_millis(CONNECTION_REPORT_MS))
            };
            match due {
                Some(at) => return tokio::time::sleep_until(at).await,
                None => self.arrived.notified().await,
            }
        }
    }
}

impl State {
    /// How many were left out is known when the turn is over, and said once.
    fn may_tell(&self, turn: u32, is_open: bool) -> bool {
        self.turn != turn || (!is_open && self.told != Some(turn))
    }
}

/// Whatever a room made of a host's name, the journal takes so much of it.
fn bounded(mut connection: Connection) -> Connection {
    shorten(&mut connection.host, CONNECTION_HOST_CHARS_MAX);
    if let Some(reason) = connection.outcome.reason_mut() {
        shorten(reason, REASON_CHARS_MAX);
    }
    connection.credentials.truncate(CONNECTION_CREDENTIALS_MAX);
    connection
}

fn shorten(text: &mut String, chars: usize) {
    if let Some((end, _)) = text.char_indices().nth(chars) {
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loopd_domain::fold::SessionFold;
    use loopd_domain::network::ConnectionOutcome;
    use loopd_domain::session::Status;
    use loopd_domain::{IdSource, Timestamp};
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Ids(AtomicU64);

    impl IdSource for Ids {
        fn ulid(&self) -> u128 {
            u128::from(self.0.fetch_add(1, Ordering::Relaxed))
        }
    }

    fn connection(host: &str) -> Connection {
        Connection {
            host: host.to_owned(),
            port: 443,
            outcome: ConnectionOutcome::Failed { reason: "r".repeat(5_000) },
            credentials: Vec::new(),
            started_at: Timestamp(1),
            duration_ms: 1,
            bytes_out: 0,
            bytes_in: 0,
        }
    }

    fn draft(fold: &SessionFold) -> Draft {
        Draft { at: Timestamp(1), ids: Arc::new(Ids(AtomicU64::new(1))), fold: fold.clone(), events: Vec::new() }
    }

    fn session() -> SessionId {
        SessionId::parse("session", "sesn_01A").expect("an id")
    }

    /// Hosts, and how many are said to be left out, of what a draft now would hold.
    fn next(inbox: &Inbox, fold: &mut SessionFold, write: bool) -> (Vec<String>, Vec<u64>) {
        let mut draft = draft(fold);
        inbox.fill(&mut draft);
        if write {
            inbox.written(&draft.events);
            *fold = draft.fold;
        }
        let host = |e: &Event| match &e.body {
            EventBody::NetworkConnection { connection } => Some(connection.host.clone()),
            _ => None,
        };
        let omitted = |e: &Event| match e.body {
            EventBody::NetworkConnectionsOmitted { count } => Some(count),
            _ => None,
        };
        (draft.events.iter().filter_map(host).collect(), draft.events.iter().filter_map(omitted).collect())
    }

    fn begin_turn(fold: &mut SessionFold) {
        let mut draft = draft(fold);
        let settings = Default::default();
        draft.push(EventBody::StatusRunning { turn: fold.turns + 1, settings }).expect("legal");
        *fold = draft.fold;
    }

    fn end_turn(fold: &mut SessionFold) {
        let mut draft = draft(fold);
        let stop_reason = loopd_domain::session::StopReason::EndTurn;
        draft.push(EventBody::StatusIdle { stop_reason, stop_details: None }).expect("legal");
        *fold = draft.fold;
    }

    #[test]
    fn what_was_not_written_waits_on_and_comes_once() {
        let (reports, mut fold) = (ConnectionReports::default(), SessionFold::default());
        let inbox = reports.inbox(&session());
        reports.ended(&session(), connection("a"));
        assert_eq!(next(&inbox, &mut fold, false).0, ["a"]);
        reports.ended(&session(), connection("b"));
        assert_eq!(next(&inbox, &mut fold, true).0, ["a", "b"]);
        assert_eq!(next(&inbox, &mut fold, true).0, [""; 0]);
    }

    #[test]
    fn one_turn_has_so_many_and_the_rest_is_counted_once_it_is_over() {
        let (reports, mut fold) = (ConnectionReports::default(), SessionFold::default());
        let inbox = reports.inbox(&session());
        begin_turn(&mut fold);
        let _ = next(&inbox, &mut fold, true);
        for _ in 0..CONNECTIONS_PER_TURN_MAX + 3 {
            reports.ended(&session(), connection("a"));
        }
        let (hosts, omitted) = next(&inbox, &mut fold, true);
        assert_eq!((hosts.len(), omitted.len()), (CONNECTIONS_PER_TURN_MAX, 0));
        end_turn(&mut fold);
        assert_eq!(next(&inbox, &mut fold, true), (Vec::new(), vec![3]));
        // Of what a process does between two turns is told when the next one begins.
        reports.ended(&session(), connection("late"));
        assert_eq!(next(&inbox, &mut fold, true), (Vec::new(), Vec::new()));
        begin_turn(&mut fold);
        assert_eq!(next(&inbox, &mut fold, true), (Vec::new(), vec![1]));
        reports.ended(&session(), connection("new"));
        assert_eq!(next(&inbox, &mut fold, true), (vec!["new".to_owned()], Vec::new()));
    }

    #[test]
    fn a_session_that_has_ended_takes_none() {
        let (reports, mut fold) = (ConnectionReports::default(), SessionFold::default());
        let inbox = reports.inbox(&session());
        reports.ended(&session(), connection("a"));
        fold.status = Status::Terminated;
        assert_eq!(next(&inbox, &mut fold, true).0, [""; 0]);
    }

    #[test]
    fn the_journal_takes_so_much_of_a_name() {
        let connection = bounded(connection(&"ä".repeat(70_000)));
        assert_eq!(connection.host.chars().count(), CONNECTION_HOST_CHARS_MAX);
        assert_eq!(connection.outcome.reason().map(str::len), Some(REASON_CHARS_MAX));
    }

    #[test]
    fn reports_go_to_the_latest_driver_and_nowhere_else() {
        let (reports, mut fold) = (ConnectionReports::default(), SessionFold::default());
        let (old, new) = (reports.inbox(&session()), reports.inbox(&session()));
        reports.ended(&session(), connection("a"));
        assert_eq!(next(&old, &mut fold, false).0, [""; 0]);
        assert_eq!(next(&new, &mut fold, false).0, ["a"]);
        drop(new);
        reports.ended(&session(), connection("b"));
        assert_eq!(next(&old, &mut fold, false).0, [""; 0]);
    }

    #[tokio::test]
    async fn a_report_is_due_after_a_moment_and_not_before_there_is_one() {
        let reports = ConnectionReports::default();
        let inbox = reports.inbox(&session());
        assert!(tokio::time::timeout(Duration::from_millis(20), inbox.due(0, false)).await.is_err());
        reports.ended(&session(), connection("a"));
        inbox.due(0, false).await;
        let state = inbox.state.lock();
        assert!(state.since.is_some_and(|since| since.elapsed() >= Duration::from_millis(CONNECTION_REPORT_MS)));
    }
}
