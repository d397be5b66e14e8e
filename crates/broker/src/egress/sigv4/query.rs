//! A signature in the query: presigned addresses.

use super::{ALGORITHM, Parts, Unsignable};

pub(super) const PARAMETER_OF_SIGNATURE: &str = "X-Amz-Signature";

pub(super) fn read(target: &str) -> Result<Option<Parts>, Unsignable> {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let get = |name: &str| query.split('&').filter_map(|pair| pair.split_once('=')).find(|(n, _)| *n == name);
    match get("X-Amz-Algorithm") {
        Some((_, ALGORITHM)) => {}
        _ => return Ok(None),
    }
    let field = |name: &'static str| {
        let (_, value) = get(name).ok_or(Unsignable::Lacks(name))?;
        decoded(value).ok_or(Unsignable::Malformed(name))
    };
    let (credential, headers) = (field("X-Amz-Credential")?, field("X-Amz-SignedHeaders")?);
    let (signature, date) = (field(PARAMETER_OF_SIGNATURE)?, field("X-Amz-Date")?);
    Parts::new(&credential, &headers, &signature, &date).map(Some)
}

/// The target with another signature. It may have been written with percent signs.
pub(super) fn with(target: &str, signature: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let pair = |pair| match str::split_once(pair, '=') {
        Some((PARAMETER_OF_SIGNATURE, _)) => format!("{PARAMETER_OF_SIGNATURE}={signature}"),
        _ => pair.to_owned(),
    };
    format!("{path}?{}", query.split('&').map(pair).collect::<Vec<_>>().join("&"))
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut made = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        made.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                // The standard library would take a sign.
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(made).ok()
}
