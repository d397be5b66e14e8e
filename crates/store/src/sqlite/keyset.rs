//! Pages of lists by `(created_at, id)`, in either direction.
//!
//! A list is the merge of a few index ranges, one for each value of the columns that lead its index ("arms": archived or
//! not, each status). SQLite reads them side by side, so a page costs its own length, wherever it starts and whatever else
//! the table holds.

use super::columns::int;
use crate::port::TimeRange;
use loopd_domain::Timestamp;
use rusqlite::types::Value;

/// Which rows of the ranges, and in which order.
pub struct Keyset {
    pub created: TimeRange,
    pub ascending: bool,
    pub after: Option<(Timestamp, String)>,
    pub limit: usize,
}

impl Keyset {
    pub fn direction(&self) -> &'static str {
        if self.ascending { "ASC" } else { "DESC" }
    }

    /// A query for `key, created_at, id` in list order. Its parameters 1 to 5 are [`Self::values`]; those of the arms
    /// follow.
    pub fn sql(&self, table: &str, arms: &[String]) -> String {
        let tie = match (&self.after, self.ascending) {
            (None, _) => "",
            (Some(_), true) => " AND (created_at, id) > (?3, ?4)",
            (Some(_), false) => " AND (created_at, id) < (?3, ?4)",
        };
        let select = |arm: &String| {
            format!("SELECT key, created_at, id FROM {table} WHERE {arm} AND created_at BETWEEN ?1 AND ?2{tie}")
        };
        let union = arms.iter().map(select).collect::<Vec<_>>().join(" UNION ALL ");
        let direction = self.direction();
        format!("{union} ORDER BY created_at {direction}, id {direction} LIMIT ?5")
    }

    pub fn values(&self) -> Vec<Value> {
        let (first, last) = self.bounds();
        let (time, id) = match &self.after {
            Some((time, id)) => (Value::Integer(time.micros()), Value::Text(id.clone())),
            None => (Value::Null, Value::Null),
        };
        vec![Value::Integer(first), Value::Integer(last), time, id, Value::Integer(int(self.limit as u64))]
    }

    /// First and last moment that can be on this page: what the caller bounds, and where the page before ended.
    fn bounds(&self) -> (i64, i64) {
        let TimeRange { gt, gte, lt, lte } = self.created;
        let mut first = i64::MIN;
        let mut last = i64::MAX;
        if let Some(t) = gte {
            first = first.max(t.micros());
        }
        if let Some(t) = gt {
            first = first.max(t.micros().saturating_add(1));
        }
        if let Some(t) = lte {
            last = last.min(t.micros());
        }
        if let Some(t) = lt {
            last = last.min(t.micros().saturating_sub(1));
        }
        match &self.after {
            Some((t, _)) if self.ascending => first = first.max(t.micros()),
            Some((t, _)) => last = last.min(t.micros()),
            None => {}
        }
        (first, last)
    }
}

/// The values of the column `archived` that a list shows.
pub fn shelves(include_archived: bool) -> &'static [u8] {
    if include_archived { &[0, 1] } else { &[0] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_bounds_hold() {
        let at = |n| Some(Timestamp(n));
        let created = TimeRange { gt: at(10), gte: at(10), lt: at(20), lte: at(30) };
        let after = Some((Timestamp(15), "id".to_owned()));
        let up = Keyset { created, ascending: true, after: after.clone(), limit: 1 };
        assert_eq!(up.bounds(), (15, 19));
        let down = Keyset { created, ascending: false, after, limit: 1 };
        assert_eq!(down.bounds(), (11, 15));
        let open = Keyset { created: TimeRange::default(), ascending: true, after: None, limit: 1 };
        assert_eq!(open.bounds(), (i64::MIN, i64::MAX));
    }
}
