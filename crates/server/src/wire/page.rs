//! The shapes of lists.

use serde::Serialize;
use utoipa::ToSchema;

/// One page; pass `next_page` as `page`, with the same query, to go on. Null: this was the last.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    pub data: Vec<T>,
    pub next_page: Option<String>,
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
