//! Lists of what is made, archived and listed newest first: which parameters they take, and one page of them.

use crate::cursor::{self, Row};
use crate::error::Answer;
use crate::query::Query;
use crate::wire::page::Page;
use axum::Json;
use loopd_domain::limits::PAGE_ROWS_DEFAULT;
use loopd_domain::{Timestamp, WorkspaceId};
use loopd_store::ListFilter;

pub const ROWS_MAX: usize = 100;
const PARAMETERS: [&str; 7] =
    ["limit", "page", "include_archived", "created_at[gt]", "created_at[gte]", "created_at[lt]", "created_at[lte]"];

/// A list as it was asked for.
pub struct Listing {
    /// No other list takes its cursors.
    scope: String,
    limit: usize,
}

impl Listing {
    pub fn read(scope: impl Into<String>, workspace: WorkspaceId, query: Query) -> Answer<(Self, ListFilter)> {
        let scope = scope.into();
        let query = query.only(&PARAMETERS)?;
        let limit = query.limit(PAGE_ROWS_DEFAULT, ROWS_MAX)?;
        let after: Option<Row> = query.one("page")?.map(|text| cursor::decode(&scope, text)).transpose()?;
        let filter = ListFilter {
            workspace,
            include_archived: query.boolean("include_archived")?,
            created: query.created()?,
            after: after.map(Row::place),
            // One more than asked for says whether there is another page.
            limit: limit + 1,
        };
        Ok((Listing { scope, limit }, filter))
    }

    /// The page of what the filter found; `place` is when a row was made, and its id.
    pub fn page<R, T>(
        self,
        found: Vec<R>,
        place: impl Fn(&R) -> (Timestamp, String),
        write: impl Fn(&R) -> T,
    ) -> Json<Page<T>> {
        let row = |one: &R| {
            let (made, id) = place(one);
            Row { at: made.micros(), id }
        };
        Json(Page::cut(&self.scope, found, self.limit, row, write))
    }
}
