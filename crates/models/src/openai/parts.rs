//! Content blocks as parts of a Chat Completions message.

use crate::provider::{ErrorClass, ModelError};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use loopd_domain::content::{ContentBlock, Source};
use serde::Serialize;
use std::borrow::Cow;

/// A plain string where there is one text: not every server reads a list.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Content<'a> {
    Text(Cow<'a, str>),
    Parts(Vec<UserPart<'a>>),
}

impl<'a> Content<'a> {
    pub fn of(mut parts: Vec<UserPart<'a>>) -> Self {
        match parts.as_mut_slice() {
            [] => Content::Text(Cow::Borrowed("(empty message)")),
            [UserPart::Text { text }] => Content::Text(std::mem::take(text)),
            _ => Content::Parts(parts),
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum UserPart<'a> {
    Text { text: Cow<'a, str> },
    ImageUrl { image_url: ImageUrl<'a> },
    File { file: File<'a> },
}

#[derive(Serialize)]
pub(super) struct ImageUrl<'a> {
    url: Cow<'a, str>,
}

#[derive(Serialize)]
pub(super) struct File<'a> {
    filename: &'a str,
    file_data: String,
}

impl<'a> UserPart<'a> {
    pub fn text(text: impl Into<Cow<'a, str>>) -> Self {
        UserPart::Text { text: text.into() }
    }
}

pub(super) fn user_part(content: &ContentBlock) -> Result<UserPart<'_>, ModelError> {
    if let Some(text) = content_text(content)? {
        return Ok(UserPart::Text { text });
    }
    match content {
        ContentBlock::Image { source: Source::Base64 { media_type, data } } => {
            Ok(UserPart::ImageUrl { image_url: ImageUrl { url: data_url(media_type, data).into() } })
        }
        ContentBlock::Image { source: Source::Url { url } } => {
            Ok(UserPart::ImageUrl { image_url: ImageUrl { url: Cow::Borrowed(url) } })
        }
        ContentBlock::Document { source: Source::Base64 { media_type, data }, title, .. } => {
            let filename = title.as_deref().unwrap_or("document.pdf");
            Ok(UserPart::File { file: File { filename, file_data: data_url(media_type, data) } })
        }
        _ => Err(bad_request("a content block of this kind cannot be sent to this provider".to_owned())),
    }
}

/// The block as text, where it can be read as text; `None` where it must go as an image or a file.
pub(super) fn content_text(content: &ContentBlock) -> Result<Option<Cow<'_, str>>, ModelError> {
    let (source, title, context) = match content {
        ContentBlock::Text { text } => return Ok(Some(Cow::Borrowed(text))),
        ContentBlock::Image { .. } => return Ok(None),
        ContentBlock::Document { source, title, context } => (source, title, context),
    };
    let text: Cow<'_, str> = match source {
        Source::Text { data, .. } => Cow::Borrowed(data),
        Source::Url { url } => return Ok(Some(format!("Document at {url}").into())),
        Source::Base64 { media_type, .. } if media_type == "application/pdf" => return Ok(None),
        Source::Base64 { media_type, data } => decode(media_type, data)?.into(),
        Source::File { file_id } => {
            return Err(bad_request(format!("file `{file_id}` cannot be sent: files are not supported yet")));
        }
    };
    let head: Vec<&str> = [title.as_deref(), context.as_deref()].into_iter().flatten().collect();
    Ok(Some(if head.is_empty() { text } else { format!("Document: {}\n{text}", head.join(" — ")).into() }))
}

fn decode(media_type: &str, data: &str) -> Result<String, ModelError> {
    let bytes = BASE64_STANDARD.decode(data).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    text.ok_or_else(|| {
        bad_request(format!(
            "a document of type `{media_type}` cannot be sent to this provider; accepted: pdf, and text in UTF-8"
        ))
    })
}

fn data_url(media_type: &str, data: &str) -> String {
    format!("data:{media_type};base64,{data}")
}

fn bad_request(message: String) -> ModelError {
    ModelError::new(ErrorClass::BadRequest, message)
}
