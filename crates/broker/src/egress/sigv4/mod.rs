//! AWS Signature Version 4, made again with the real key.
//!
//! A program in the room signs with the placeholder as its secret key. The signature is first verified under the placeholder: only a
//! request whose canonical form we know as its sender does can be signed again without breaking it. Which of the two known ways of
//! writing a path is meant (as it is sent, as S3 does; or encoded once more, as all others do) shows in that.
//!
//! Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>.

mod canonical;
mod key;
mod query;
mod scope;

pub(crate) mod chunks;

pub(crate) use canonical::Head;
pub(crate) use chunks::Rechunk;

use crate::secret::Secret;
use canonical::PathForm;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use key::SigningKey;
use scope::Scope;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");

/// Why a request cannot be signed again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unsignable {
    #[error("its AWS signature has no `{0}`")]
    Lacks(&'static str),
    #[error("its AWS signature is malformed: `{0}`")]
    Malformed(&'static str),
    #[error(
        "its AWS signature was not made with the placeholder as secret key, or the request was changed after it was signed"
    )]
    Mismatch,
    #[error("its AWS signature leaves the payload's hash out: send the header `x-amz-content-sha256`")]
    Payload,
    #[error(
        "its payload `{0}` is not supported; accepted: a hash, UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, \
             STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    )]
    Streaming(String),
}

/// How a request carries its signature.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Signed {
    Header(Parts),
    /// Presigned: in the query.
    Query(Parts),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parts {
    pub(crate) access_key_id: String,
    scope: Scope,
    /// Lower case, in the order in which they were signed.
    signed_headers: Vec<String>,
    signature: String,
    /// `20260102T030405Z`.
    date: String,
}

impl Signed {
    /// The signature of a request; `None`: it has none.
    pub(crate) fn read(target: &str, headers: &HeaderMap) -> Result<Option<Signed>, Unsignable> {
        if let Some(value) = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes)
            && value.starts_with(ALGORITHM.as_bytes())
        {
            return from_header(value, headers).map(|parts| Some(Signed::Header(parts)));
        }
        query::read(target).map(|parts| parts.map(Signed::Query))
    }

    pub(crate) fn parts(&self) -> &Parts {
        match self {
            Signed::Header(parts) | Signed::Query(parts) => parts,
        }
    }

    /// Verifies the signature of `sent` under the placeholder, and signs `head`, which is what will be sent, with the secret. Gives
    /// the new signature, and what signs the body's chunks if they are signed.
    pub(crate) fn again(
        &self,
        sent: &Head<'_>,
        head: &Head<'_>,
        placeholder: &Secret,
        secret: &Secret,
    ) -> Result<(String, Option<Rechunk>), Unsignable> {
        let parts = self.parts();
        let payload = self.payload(sent)?;
        let [old, new] = [placeholder, secret].map(|key| SigningKey::derive(key, &parts.scope));
        let verifies = |form: &PathForm| old.sign(&parts.to_sign(sent, *form, &payload)) == parts.signature;
        let form = [PathForm::AsSent, PathForm::EncodedAgain].into_iter().find(verifies).ok_or(Unsignable::Mismatch)?;
        let signature = new.sign(&parts.to_sign(head, form, &payload));
        let chunks = (payload == chunks::STREAMING).then(|| {
            let before = [parts.signature.clone(), signature.clone()];
            Rechunk::new(parts.date.clone(), parts.scope.to_string(), [old, new], before)
        });
        Ok((signature, chunks))
    }

    fn payload(&self, head: &Head<'_>) -> Result<String, Unsignable> {
        let stated = head.headers.get(CONTENT_SHA256).map(|value| value.to_str().map(str::to_owned));
        let stated = stated.transpose().map_err(|_| Unsignable::Malformed("x-amz-content-sha256"))?;
        match (self, stated) {
            (Signed::Query(_), stated) => Ok(stated.unwrap_or_else(|| "UNSIGNED-PAYLOAD".to_owned())),
            (Signed::Header(_), None) if head.has_no_body => Ok(key::hash(b"")),
            (Signed::Header(_), None) => Err(Unsignable::Payload),
            (Signed::Header(_), Some(stated)) => match stated.as_str() {
                "UNSIGNED-PAYLOAD" | "STREAMING-UNSIGNED-PAYLOAD-TRAILER" | chunks::STREAMING => Ok(stated),
                other if other.len() == 64 && other.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(stated),
                _ => Err(Unsignable::Streaming(stated.chars().take(64).collect())),
            },
        }
    }

    /// The `Authorization` header, or the query, with another signature.
    pub(crate) fn with(&self, signature: &str, target: &str) -> Rewritten {
        match self {
            Signed::Header(parts) => Rewritten::Authorization(format!(
                "{ALGORITHM} Credential={}/{}, SignedHeaders={}, Signature={signature}",
                parts.access_key_id,
                parts.scope,
                parts.signed_headers.join(";")
            )),
            Signed::Query(_) => Rewritten::Target(query::with(target, signature)),
        }
    }
}

pub(crate) enum Rewritten {
    Authorization(String),
    Target(String),
}

impl Parts {
    fn to_sign(&self, head: &Head<'_>, form: PathForm, payload: &str) -> String {
        let request = canonical::request(head, form, &self.signed_headers, payload);
        format!("{ALGORITHM}\n{}\n{}\n{}", self.date, self.scope, key::hash(request.as_bytes()))
    }
}

/// `AWS4-HMAC-SHA256 Credential=AKID/20260102/eu-west-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=…`
fn from_header(value: &[u8], headers: &HeaderMap) -> Result<Parts, Unsignable> {
    let text = std::str::from_utf8(value).map_err(|_| Unsignable::Malformed("Authorization"))?;
    let fields = text.strip_prefix(ALGORITHM).and_then(|rest| rest.strip_prefix(' '));
    let fields = fields.ok_or(Unsignable::Malformed("Authorization"))?;
    let field = |name: &'static str| {
        let mut values = fields.split(',').filter_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='));
        values.next().ok_or(Unsignable::Lacks(name))
    };
    let date = headers.get(DATE).and_then(|value| value.to_str().ok()).ok_or(Unsignable::Lacks("x-amz-date"))?;
    Parts::new(field("Credential")?, field("SignedHeaders")?, field("Signature")?, date)
}

impl Parts {
    fn new(credential: &str, signed_headers: &str, signature: &str, date: &str) -> Result<Parts, Unsignable> {
        let (access_key_id, scope) = credential.split_once('/').ok_or(Unsignable::Malformed("Credential"))?;
        let scope = Scope::parse(scope).ok_or(Unsignable::Malformed("Credential"))?;
        let is_hex = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_hex(signature) {
            return Err(Unsignable::Malformed("Signature"));
        }
        let is_date = date.len() == 16 && date.ends_with('Z') && date.starts_with(scope.day());
        if !is_date {
            return Err(Unsignable::Malformed("x-amz-date"));
        }
        let signed_headers: Vec<String> = signed_headers.split(';').map(str::to_ascii_lowercase).collect();
        // Without the host in it, a signature would be good for any.
        if !signed_headers.iter().any(|name| name == "host") {
            return Err(Unsignable::Malformed("SignedHeaders"));
        }
        Ok(Parts {
            access_key_id: access_key_id.to_owned(),
            scope,
            signed_headers,
            signature: signature.to_owned(),
            date: date.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests;
