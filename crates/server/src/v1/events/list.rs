//! `GET /v1/sessions/{session_id}/events`

use crate::auth::Caller;
use crate::cursor;
use crate::error::{Answer, ErrorBody};
use crate::query::{CREATED, Query};
use crate::state::ServerState;
use crate::v1::path_id;
use crate::wire::event::{self, Event, KINDS};
use crate::wire::page::Page;
use axum::Json;
use axum::extract::{Path, State};
use loopd_domain::limits::{EVENT_PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX};
use loopd_domain::{Invalid, Seq, SessionId};
use loopd_session::EventQuery;

/// A session's events, oldest first unless `order` says otherwise. What the stream showed is here. Inputs that wait stand
/// at the young end with `processed_at: null`. Times compare with `processed_at`.
#[utoipa::path(get, path = "/v1/sessions/{session_id}/events", tag = "events",
    params(
        ("session_id" = String, Path),
        ("types[]" = Option<Vec<String>>, Query), ("order" = Option<String>, Query, description = "`asc` or `desc`"),
        ("created_at[gt]" = Option<String>, Query), ("created_at[gte]" = Option<String>, Query),
        ("created_at[lt]" = Option<String>, Query), ("created_at[lte]" = Option<String>, Query),
        ("limit" = Option<u64>, Query, description = "1 to 1,000, 1,000 by default"), ("page" = Option<String>, Query)
    ),
    responses((status = 200, body = Page<Event>), (status = "4XX", body = ErrorBody)))]
pub async fn list(
    State(state): State<ServerState>,
    caller: Caller,
    Path(id): Path<String>,
    query: Query,
) -> Answer<Json<Page<Event>>> {
    let id = path_id("session", &id, SessionId::parse)?;
    Ok(Json(page(&state, &caller, &id, query).await?))
}

pub async fn page(state: &ServerState, caller: &Caller, id: &SessionId, query: Query) -> Answer<Page<Event>> {
    let query = query.only(&[&["types", "order", "limit", "page"], &CREATED[..]].concat())?;
    let ascending = query.ascending(true)?;
    let scope = format!("events.{}.{id}", if ascending { "asc" } else { "desc" });
    let kinds = query.many("types")?.into_iter().map(kind).collect::<Result<_, _>>()?;
    let asked = EventQuery {
        kinds,
        range: query.created()?,
        ascending,
        after: query.one("page")?.map(|text| cursor::decode::<Seq>(&scope, text)).transpose()?,
        limit: query.limit(EVENT_PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX)?,
    };
    let page = state.sessions.events(&caller.workspace, id, asked).await?;
    let queued: Vec<Event> = page.queued.iter().map(|i| event::write_body(&i.id, &i.body, i.processed_at)).collect();
    let events: Vec<Event> = page.events.iter().filter_map(event::write).collect();
    let data = if ascending { [events, queued].concat() } else { [queued, events].concat() };
    Ok(Page { data, next_page: page.next.map(|seq| cursor::encode(&scope, &seq)) })
}

fn kind(text: &str) -> Result<String, Invalid> {
    match KINDS.contains(&text) {
        true => Ok(text.to_owned()),
        false => {
            let meant =
                crate::nearest::nearest(text, KINDS).map_or(String::new(), |k| format!("; did you mean `{k}`?"));
            Err(Invalid::new("types", text, format!("a type of event{meant}")))
        }
    }
}
