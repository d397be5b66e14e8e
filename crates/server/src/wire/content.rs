//! Content blocks as callers send them.

use crate::fields::{Fields, describe, items, unavailable};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use loopd_domain::Invalid;
use loopd_domain::content::{ContentBlock, Source};
use loopd_domain::limits::BLOCKS_PER_MESSAGE_MAX;
use serde_json::Value;

const IMAGE_TYPES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];
const URL_CHARS_MAX: usize = 8_192;
const TITLE_CHARS_MAX: usize = 1_000;
const KINDS: &str = "`text`, `image` or `document`";

/// A list of blocks, or a text that stands for one block.
pub fn read_list(at: &str, value: Value) -> Result<Vec<ContentBlock>, Invalid> {
    if let Value::String(text) = value {
        return Ok(vec![ContentBlock::Text { text }]);
    }
    let list = items(at, value, BLOCKS_PER_MESSAGE_MAX)?;
    list.into_iter().enumerate().map(|(i, value)| read(&format!("{at}[{i}]"), value)).collect()
}

/// As [`read_list`], with something in it: a model takes no empty message.
pub fn read_some(at: &str, value: Value) -> Result<Vec<ContentBlock>, Invalid> {
    let blocks = read_list(at, value)?;
    let blank = |b: &ContentBlock| matches!(b, ContentBlock::Text { text } if text.is_empty());
    match blocks.iter().position(blank) {
        _ if blocks.is_empty() => Err(Invalid::missing(at, "at least one content block")),
        Some(i) => Err(Invalid::missing(format!("{at}[{i}].text"), "a text of at least one character")),
        None => Ok(blocks),
    }
}

pub fn read(at: &str, value: Value) -> Result<ContentBlock, Invalid> {
    let kind = value.get("type").cloned().unwrap_or(Value::Null);
    match kind.as_str() {
        Some("text") => {
            let mut fields = Fields::open(at, value, &["type", "text"])?;
            let text = match fields.need("text", "a text")? {
                Value::String(text) => text,
                other => return Err(Invalid::new(fields.path("text"), describe(&other), "a string")),
            };
            Ok(ContentBlock::Text { text })
        }
        Some("image") => {
            let mut fields = Fields::open(at, value, &["type", "source"])?;
            Ok(ContentBlock::Image { source: read_source(&mut fields, &IMAGE_TYPES, false)? })
        }
        Some("document") => {
            let mut fields = Fields::open(at, value, &["type", "source", "title", "context"])?;
            let source = read_source(&mut fields, &["application/pdf"], true)?;
            let title = fields.text("title", 0..=TITLE_CHARS_MAX)?;
            Ok(ContentBlock::Document { source, title, context: fields.text("context", 0..=usize::MAX - 1)? })
        }
        Some("search_result") => Err(unavailable(&format!("{at}.type"), &kind)),
        Some(other) => Err(Invalid::new(format!("{at}.type"), other, KINDS)),
        None if value.is_object() => Err(Invalid::missing(format!("{at}.type"), KINDS)),
        None => Err(Invalid::new(at, describe(&value), "a content block")),
    }
}

fn read_source(fields: &mut Fields, media: &[&'static str], plain: bool) -> Result<Source, Invalid> {
    let at = fields.path("source");
    let value = fields.need("source", "an object with `type`")?;
    let mut source = Fields::open(&at, value, &["type", "media_type", "data", "url", "file_id"])?;
    let kinds: &[&'static str] = if plain { &["base64", "text", "url", "file"] } else { &["base64", "url", "file"] };
    match source.word("type", kinds)? {
        Some("base64") => {
            let media_type = source.word("media_type", media)?.ok_or_else(|| missing_media(&source, media))?.to_owned();
            let data = source.need("data", "standard base64")?;
            read_base64(&source.path("data"), data).map(|data| Source::Base64 { media_type, data })
        }
        Some("text") => {
            let media_type = source.word("media_type", &["text/plain"])?.unwrap_or("text/plain").to_owned();
            Ok(Source::Text { media_type, data: source.need_text("data", 1..=usize::MAX - 1)? })
        }
        Some("url") => {
            let url = source.need_text("url", 1..=URL_CHARS_MAX)?;
            match url::Url::parse(&url).is_ok_and(|u| ["http", "https"].contains(&u.scheme())) {
                true => Ok(Source::Url { url }),
                false => Err(Invalid::new(source.path("url"), url, "an http or https address")),
            }
        }
        Some(file) => Err(unavailable(&source.path("type"), &Value::from(file))),
        None => Err(Invalid::missing(source.path("type"), format!("one of `{}`", kinds.join("`, `")))),
    }
}

fn missing_media(source: &Fields, media: &[&str]) -> Invalid {
    Invalid::missing(source.path("media_type"), format!("one of `{}`", media.join("`, `")))
}

fn read_base64(at: &str, value: Value) -> Result<String, Invalid> {
    let Value::String(data) = value else {
        return Err(Invalid::new(at, describe(&value), "a string of standard base64"));
    };
    match STANDARD.decode(&data) {
        Ok(bytes) if !bytes.is_empty() => Ok(data),
        Ok(_) => Err(Invalid::missing(at, "standard base64 of at least one byte")),
        Err(fault) => Err(Invalid::new(at, fault, "standard base64")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn takes_every_kind_that_a_model_can_read() {
        let blocks = read_some(
            "content",
            json!([
                {"type": "text", "text": "hi"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
                {"type": "document", "title": "t", "source": {"type": "text", "media_type": "text/plain", "data": "x"}},
                {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
            ]),
        );
        assert_eq!(blocks.expect("valid").len(), 4);
        assert_eq!(read_some("c", json!("hi")).expect("valid"), [ContentBlock::text("hi")]);
    }

    #[test]
    fn refusals_name_the_place() {
        let image = |source: Value| json!([{"type": "image", "source": source}]);
        let cases = [
            (json!([]), "content"),
            (json!(""), "content[0].text"),
            (json!([{"type": "text", "text": 1}]), "content[0].text"),
            (json!([{"type": "text", "txet": "x"}]), "content[0].txet"),
            (json!([{"type": "redacted"}]), "content[0].type"),
            (json!([{"type": "search_result"}]), "content[0].type"),
            (
                image(json!({"type": "base64", "media_type": "image/bmp", "data": "aGk="})),
                "content[0].source.media_type",
            ),
            (image(json!({"type": "base64", "media_type": "image/png", "data": "?"})), "content[0].source.data"),
            (image(json!({"type": "file", "file_id": "file_1"})), "content[0].source.type"),
            (image(json!({"type": "url", "url": "ftp://x"})), "content[0].source.url"),
            (image(json!({"type": "text", "data": "x"})), "content[0].source.type"),
        ];
        for (value, field) in cases {
            assert_eq!(read_some("content", value.clone()).expect_err("refused").field, field, "{value}");
        }
        let many: Vec<Value> = vec![json!({"type": "text", "text": "x"}); BLOCKS_PER_MESSAGE_MAX + 1];
        assert_eq!(read_some("content", json!(many)).expect_err("refused").field, "content");
    }
}
