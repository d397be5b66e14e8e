//! Who this host is to registries: `~/.docker/config.json`, without credential helpers; and what a registry wants to see of it.

use crate::ImageError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_auth::ChallengeRef;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use url::Url;

/// As `Basic` wants it.
#[derive(Clone)]
pub(crate) struct Login(HeaderValue);

impl Login {
    fn new(user: &str, password: &str) -> Option<Self> {
        let mut value =
            HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))).ok()?;
        value.set_sensitive(true);
        Some(Login(value))
    }

    pub(super) fn basic(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// What stands in a `WWW-Authenticate`, <https://distribution.github.io/distribution/spec/auth/token/>.
#[derive(Debug, PartialEq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: Url, service: Option<String> },
}

/// The first one that can be answered.
pub(super) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    texts.find_map(|text| http_auth::parse_challenges(text).ok()?.iter().find_map(answerable))
}

fn answerable(challenge: &ChallengeRef<'_>) -> Option<Challenge> {
    let named = |name: &str| challenge.params.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    let text = |name: &str| named(name).map(|(_, value)| value.to_unescaped());
    match challenge.scheme.to_ascii_lowercase().as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer { realm: Url::parse(&text("realm")?).ok()?, service: text("service") }),
        _ => None,
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// What is shown of a token that was given.
pub(super) fn bearer(words: &[u8]) -> Result<HeaderValue, ImageError> {
    // The parser's own words could repeat a secret.
    let unreadable = || ImageError::broken("its registry gave a token that cannot be read");
    let Token { token, access_token } = serde_json::from_slice(words).map_err(|_| unreadable())?;
    let token = token.or(access_token).filter(|token| !token.is_empty()).ok_or_else(unreadable)?;
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| unreadable())?;
    value.set_sensitive(true);
    Ok(value)
}

#[derive(Default, Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    auth: Option<String>,
}

/// The credentials for a registry, read anew each time: an operator who logs in need not restart anything.
pub(crate) fn credentials(config: Option<&Path>, registry: &str) -> Result<Option<Login>, ImageError> {
    let Some(path) = config else { return Ok(None) };
    let bytes = match std::fs::read(path) {
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|fault| ImageError::disk(path, fault))?,
    };
    // The parser's own words could repeat a secret.
    let unreadable = || ImageError::refused(format!("`{}` cannot be read as a docker configuration", path.display()));
    let config: DockerConfig = serde_json::from_slice(&bytes).map_err(|_| unreadable())?;
    let names: &[&str] = match registry {
        "docker.io" => &["https://index.docker.io/v1/", "docker.io", "index.docker.io"],
        other => &[other],
    };
    let matches = |key: &str| {
        names.iter().any(|name| key == *name || key.trim_start_matches("https://").trim_end_matches('/') == *name)
    };
    let Some(auth) = config.auths.iter().find(|(key, _)| matches(key)).and_then(|(_, auth)| auth.auth.as_ref()) else {
        return Ok(None);
    };
    let decoded = STANDARD.decode(auth).map_err(|_| unreadable())?;
    let pair = String::from_utf8(decoded).map_err(|_| unreadable())?;
    let (user, password) = pair.split_once(':').ok_or_else(unreadable)?;
    Login::new(user, password.trim_end_matches('\0')).map(Some).ok_or_else(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&'static str]) -> Option<Challenge> {
        let headers = texts.iter().map(|text| (WWW_AUTHENTICATE, HeaderValue::from_static(text)));
        challenge(&headers.collect())
    }

    #[test]
    fn the_first_challenge_that_can_be_answered_is() {
        let hub =
            "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:a:pull\"";
        let realm = Url::parse("https://auth.docker.io/token").expect("an address");
        let wanted = Challenge::Bearer { realm, service: Some("registry.docker.io".to_owned()) };
        assert_eq!(of(&[hub]), Some(wanted));
        assert_eq!(of(&["basic realm=x"]), Some(Challenge::Basic));
        assert_eq!(of(&["Negotiate, Basic realm=\"r\""]), Some(Challenge::Basic));
        for unknown in ["", "Bearer", "Bearer realm=\"\"", "Bearer realm=\"/token\"", "Digest realm=\"r\""] {
            assert_eq!(of(&[unknown]), None, "{unknown}");
        }
    }

    #[test]
    fn tokens_have_two_names() {
        let shown = |words: &str| bearer(words.as_bytes()).ok().map(|value| value.to_str().expect("text").to_owned());
        assert_eq!(shown(r#"{"token": "a", "access_token": "b"}"#).as_deref(), Some("Bearer a"));
        assert_eq!(shown(r#"{"access_token": "b", "expires_in": 300}"#).as_deref(), Some("Bearer b"));
        for broken in ["", "[]", "{}", r#"{"token": ""}"#, r#"{"token": "a\nb"}"#] {
            assert_eq!(shown(broken), None, "{broken}");
        }
    }
}
