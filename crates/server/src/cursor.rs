//! Page cursors: opaque to clients, stateless for us. A cursor says where its page ended and which list it belongs to.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use loopd_domain::{Invalid, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const PREFIX: &str = "page_";
/// Longest cursor that is looked at, in bytes.
const CURSOR_BYTES_MAX: usize = 1_024;

/// The row that ended a page ordered by `(created_at, id)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub at: i64,
    pub id: String,
}

impl Row {
    pub fn place(self) -> (Timestamp, String) {
        (Timestamp(self.at), self.id)
    }
}

/// `scope` names the list, and whatever of its query the cursor depends on.
pub fn encode<T: Serialize>(scope: &str, place: &T) -> String {
    let json = serde_json::to_vec(&(scope, place)).expect("plain data serialises");
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
}

pub fn decode<T: DeserializeOwned>(scope: &str, text: &str) -> Result<T, Invalid> {
    let refused = || Invalid::new("page", text, "a cursor that this list gave with the same filters and order");
    let body = text.strip_prefix(PREFIX).filter(|b| b.len() <= CURSOR_BYTES_MAX).ok_or_else(refused)?;
    let json = URL_SAFE_NO_PAD.decode(body.trim_end_matches('=')).map_err(|_| refused())?;
    let (found, place): (String, T) = serde_json::from_slice(&json).map_err(|_| refused())?;
    match found == scope {
        true => Ok(place),
        false => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_only_to_its_own_list() {
        let row = Row { at: 7, id: "agent_1".into() };
        let text = encode("agents", &row);
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{text}");
        assert_eq!(decode::<Row>("agents", &text), Ok(row));
        assert!(decode::<Row>("sessions.desc", &text).is_err());
        for bad in ["", "page_", "page_!!", "page_e30", &"x".repeat(5_000)] {
            assert_eq!(decode::<Row>("agents", bad).expect_err("refused").field, "page");
        }
    }
}
