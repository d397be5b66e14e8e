//! The shapes of lists.

use crate::cursor;
use serde::Serialize;
use utoipa::ToSchema;

/// One page; pass `next_page` as `page`, with the same query, to go on. Null: this was the last.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    pub data: Vec<T>,
    pub next_page: Option<String>,
}

impl<T> Page<T> {
    /// `found` was asked for with one row more than `limit`: that row only says that another page follows. `place` is what
    /// the cursor of list `scope` keeps of the last row.
    pub fn cut<R, P: Serialize>(
        scope: &str,
        mut found: Vec<R>,
        limit: usize,
        place: impl Fn(&R) -> P,
        write: impl Fn(&R) -> T,
    ) -> Self {
        let more = found.len() > limit;
        found.truncate(limit);
        let next_page = found.last().filter(|_| more).map(|last| cursor::encode(scope, &place(last)));
        Page { data: found.iter().map(write).collect(), next_page }
    }
}

/// One page of a list that can be walked both ways.
#[derive(Debug, Serialize, ToSchema)]
pub struct TwoWayPage<T> {
    pub data: Vec<T>,
    pub next_page: Option<String>,
    /// Null on the first page.
    pub prev_page: Option<String>,
}

/// What is left of a thing that was deleted.
#[derive(Debug, Serialize, ToSchema)]
pub struct Deleted {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
}
