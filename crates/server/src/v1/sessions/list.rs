//! `GET /v1/sessions`

use crate::auth::Caller;
use crate::cursor;
use crate::error::{Answer, ErrorBody};
use crate::fields::unavailable;
use crate::query::{CREATED, Query};
use crate::state::ServerState;
use crate::wire::page::TwoWayPage;
use crate::wire::session::{self, Session};
use axum::Json;
use axum::extract::State;
use loopd_domain::limits::{PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX};
use loopd_domain::session::{Session as Stored, Status};
use loopd_domain::{AgentId, Invalid, SessionId, Timestamp};
use loopd_store::SessionFilter;
use serde::{Deserialize, Serialize};

/// Where a page ended, and which way the list went on from there.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Place {
    /// Towards the page before.
    back: bool,
    at: i64,
    id: String,
}

/// Sessions, newest first unless `order` says otherwise. Pages lead both ways.
#[utoipa::path(get, path = "/v1/sessions", tag = "sessions",
    params(
        ("agent_id" = Option<String>, Query), ("agent_version" = Option<u64>, Query),
        ("statuses[]" = Option<Vec<String>>, Query, description = "`idle`, `running`, `rescheduling`, `terminated`"),
        ("created_at[gt]" = Option<String>, Query), ("created_at[gte]" = Option<String>, Query),
        ("created_at[lt]" = Option<String>, Query), ("created_at[lte]" = Option<String>, Query),
        ("include_archived" = Option<bool>, Query), ("limit" = Option<u64>, Query),
        ("order" = Option<String>, Query, description = "`asc` or `desc`"),
        ("page" = Option<String>, Query, description = "`next_page` or `prev_page` of another page")
    ),
    responses((status = 200, body = TwoWayPage<Session>), (status = 400, body = ErrorBody)))]
pub async fn list(State(state): State<ServerState>, caller: Caller, query: Query) -> Answer<Json<TwoWayPage<Session>>> {
    let known = [
        "agent_id",
        "agent_version",
        "statuses",
        "include_archived",
        "limit",
        "order",
        "page",
        "deployment_id",
        "memory_store_id",
    ];
    let query = query.only(&[&known[..], &CREATED[..]].concat())?;
    for name in ["deployment_id", "memory_store_id"] {
        if let Some(value) = query.one(name)? {
            return Err(unavailable(name, &value.into()).into());
        }
    }
    let ascending = query.ascending(false)?;
    let scope = if ascending { "sessions.asc" } else { "sessions.desc" };
    let place: Option<Place> = query.one("page")?.map(|text| cursor::decode(scope, text)).transpose()?;
    let limit = query.limit(PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX - 1)?;
    let filter = filter(&query, caller, &place, ascending, limit)?;
    let found = state.sessions.list(filter).await?;
    let now = state.clock.now();
    let (rows, next, prev) = page(found, place.as_ref(), limit);
    let encode = |place: Option<Place>| place.map(|p| cursor::encode(scope, &p));
    let data = rows.iter().map(|s| session::write(s, now)).collect();
    Ok(Json(TwoWayPage { data, next_page: encode(next), prev_page: encode(prev) }))
}

fn filter(
    query: &Query,
    caller: Caller,
    place: &Option<Place>,
    ascending: bool,
    limit: usize,
) -> Result<SessionFilter, Invalid> {
    let after = |place: &Place| Ok((Timestamp(place.at), SessionId::parse("page", &place.id)?));
    let statuses = query.many("statuses")?.into_iter().map(|s| Status::parse("statuses", s));
    Ok(SessionFilter {
        workspace: caller.workspace,
        agent: query.one("agent_id")?.map(|id| AgentId::parse("agent_id", id)).transpose()?,
        agent_version: query.integer("agent_version", 1..=i64::MAX as u64)?,
        statuses: statuses.collect::<Result<_, _>>()?,
        include_archived: query.boolean("include_archived")?,
        created: query.created()?,
        // A page before is read against the list's order and turned round.
        ascending: ascending != place.as_ref().is_some_and(|p| p.back),
        after: place.as_ref().map(after).transpose()?,
        limit: limit + 1,
    })
}

/// The rows of a page in list order, and the places of its neighbours.
fn page(mut rows: Vec<Stored>, from: Option<&Place>, limit: usize) -> (Vec<Stored>, Option<Place>, Option<Place>) {
    let more = rows.len() > limit;
    rows.truncate(limit);
    let back = from.is_some_and(|p| p.back);
    if back {
        rows.reverse();
    }
    let place =
        |row: Option<&Stored>, back| row.map(|s| Place { back, at: s.created_at.micros(), id: s.id.to_string() });
    // Where we came from there is a page; where we went there is one if there were more rows than fit.
    let (has_next, has_prev) = if back { (true, more) } else { (more, from.is_some()) };
    let next = place(rows.last(), false).filter(|_| has_next);
    let prev = place(rows.first(), true).filter(|_| has_prev);
    (rows, next, prev)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::session;

    fn rows(ids: &[&str]) -> Vec<Stored> {
        ids.iter().map(|id| session(id)).collect()
    }

    fn ids(rows: &[Stored]) -> Vec<&str> {
        rows.iter().map(|s| s.id.as_str()).collect()
    }

    #[test]
    fn pages_lead_both_ways() {
        let (first, next, prev) = page(rows(&["sesn_5", "sesn_4", "sesn_3"]), None, 2);
        assert_eq!((ids(&first), prev), (vec!["sesn_5", "sesn_4"], None));
        let next = next.expect("another page");
        assert_eq!((next.back, next.id.as_str()), (false, "sesn_4"));
        let (second, after, before) = page(rows(&["sesn_3", "sesn_2"]), Some(&next), 2);
        assert_eq!((ids(&second), after), (vec!["sesn_3", "sesn_2"], None));
        let before = before.expect("a page before");
        assert_eq!((before.back, before.id.as_str()), (true, "sesn_3"));
        // The store reads against the order: from sesn_3 upwards.
        let (again, forth, none) = page(rows(&["sesn_4", "sesn_5"]), Some(&before), 2);
        assert_eq!((ids(&again), none), (vec!["sesn_5", "sesn_4"], None));
        assert_eq!(forth.expect("where we came from").id, "sesn_4");
    }

    #[test]
    fn a_cursor_belongs_to_its_order() {
        let place = Place { back: false, at: 1, id: "sesn_1".into() };
        let text = cursor::encode("sessions.asc", &place);
        assert_eq!(cursor::decode::<Place>("sessions.asc", &text), Ok(place));
        assert!(cursor::decode::<Place>("sessions.desc", &text).is_err());
    }
}
