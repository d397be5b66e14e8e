//! How a secret may be written in what comes back: as it is, and in the encodings that programs put it into without being asked.

use super::super::secret::Secret;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use loopd_domain::limits::MASKED_SECRET_BYTES_MIN;

/// All forms that are long enough not to stand in a text by chance. Empty for a secret that is too short.
pub fn of(secret: &Secret) -> Vec<Secret> {
    let value = secret.reveal();
    if value.len() < MASKED_SECRET_BYTES_MIN {
        return Vec::new();
    }
    let mut forms: Vec<Secret> = vec![secret.clone()];
    let mut add = |form: Vec<u8>| {
        let form = Secret::new(form);
        if form.reveal().len() >= MASKED_SECRET_BYTES_MIN && forms.iter().all(|f| f.reveal() != form.reveal()) {
            forms.push(form);
        }
    };
    for escape in [json, json_ascii] {
        add(escape(value));
    }
    for keeps in [b"-_.~".as_slice(), b"-_.~/", b"-_.!~*'()", b"*-._ "] {
        for digits in [b"0123456789ABCDEF", b"0123456789abcdef"] {
            add(percent(value, keeps, digits));
        }
    }
    for skipped in 0..3 {
        add(base64_within(&STANDARD_NO_PAD, value, skipped));
        add(base64_within(&URL_SAFE_NO_PAD, value, skipped));
    }
    forms
}

/// Inside a JSON string.
fn json(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() * 6);
    for byte in value {
        escape_byte(*byte, &mut out);
    }
    out
}

/// The same by a writer that keeps to ASCII.
fn json_ascii(value: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(value) else { return json(value) };
    let mut out = Vec::with_capacity(value.len() * 6);
    for letter in text.chars() {
        match u8::try_from(letter).ok().filter(u8::is_ascii) {
            Some(byte) => escape_byte(byte, &mut out),
            None => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                }
            }
        }
    }
    out
}

fn escape_byte(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        0x08 => out.extend_from_slice(b"\\b"),
        0x0c => out.extend_from_slice(b"\\f"),
        0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
        _ => out.push(byte),
    }
}

/// `keeps` stay as they are, beside letters and digits; a space that is kept is written `+`.
fn percent(value: &[u8], keeps: &[u8], digits: &[u8; 16]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() * 3);
    for byte in value {
        match byte {
            b' ' if keeps.contains(&b' ') => out.push(b'+'),
            byte if byte.is_ascii_alphanumeric() || keeps.contains(byte) => out.push(*byte),
            byte => out.extend_from_slice(&[b'%', digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]),
        }
    }
    out
}

/// What of a base64 text depends on the value alone, wherever in the encoded bytes it stands: `skipped` bytes of its first
/// group of three belong to what is before it, as those of `user:` do in basic authentication.
fn base64_within(engine: &impl Engine, value: &[u8], skipped: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(skipped + value.len());
    bytes.resize(skipped, 0);
    bytes.extend_from_slice(value);
    let bytes = Secret::new(bytes);
    let mut out = engine.encode(bytes.reveal()).into_bytes();
    // A letter has six bits: those that hold bits of a neighbour are not the value's.
    let last = (bytes.reveal().len() * 8) / 6;
    out.truncate(last);
    out.drain(..(skipped * 8).div_ceil(6));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    fn forms(secret: &str) -> Vec<String> {
        let forms = of(&Secret::new(secret.as_bytes().to_vec()));
        forms.iter().map(|f| String::from_utf8(f.reveal().to_vec()).expect("text")).collect()
    }

    #[test]
    fn a_plain_secret_has_few_forms() {
        let found = forms("sk-live-0123456789");
        // Itself, and three places in base64, none of which needs the letters in which the two alphabets differ.
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!(forms("short"), Vec::<String>::new());
    }

    #[test]
    fn escapes_are_those_that_programs_write() {
        let found = forms("p\"ä/ b+\n?x*y");
        for form in [
            "p\\\"ä/ b+\\n?x*y",
            "p\\\"\\u00e4/ b+\\n?x*y",
            "p%22%C3%A4%2F%20b%2B%0A%3Fx%2Ay",
            "p%22%C3%A4/%20b%2B%0A%3Fx%2Ay",
            "p%22%C3%A4%2F%20b%2B%0A%3Fx*y",
            "p%22%c3%a4%2f+b%2b%0a%3fx*y",
        ] {
            assert!(found.iter().any(|f| f == form), "{form} of {found:?}");
        }
    }

    #[test]
    fn base64_is_found_wherever_the_secret_stands_in_it() {
        for secret in ["hunter2hunter2", "p\u{3fe}~?>p\u{3fe}~?>xyz", "12345678"] {
            let found = forms(secret);
            for before in ["", "u", "us", "user:", "a longer head: "] {
                for after in ["", "\n", ":x", " and a tail"] {
                    let text = format!("{before}{secret}{after}");
                    for encoded in [STANDARD.encode(&text), URL_SAFE.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
                        assert!(found.iter().any(|f| encoded.contains(f)), "{text:?}: {encoded} has none of {found:?}");
                    }
                }
            }
        }
    }
}
