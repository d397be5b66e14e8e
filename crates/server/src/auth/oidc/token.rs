//! One token: is it the issuer's, is it for us, is it of now, and what does it say? Pure: key and time are arguments.

use super::config::OidcConfig;
use super::keys::PublicKey;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Header};
use loopd_domain::Timestamp;
use loopd_domain::identity::Scopes;
use loopd_domain::limits::OIDC_LEEWAY_S;
use serde_json::{Map, Value};

/// Longest `sub`, in characters: OpenID Connect's own maximum.
const SUBJECT_CHARS_MAX: usize = 255;

/// A token that nobody has checked yet.
pub struct Token<'a> {
    header: Header,
    /// What is signed.
    message: &'a str,
    claims: &'a str,
    signature: &'a str,
}

/// What a token says that was checked.
#[derive(Debug)]
pub struct Claims {
    pub subject: String,
    all: Map<String, Value>,
}

impl<'a> Token<'a> {
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let (message, signature) = text.rsplit_once('.').ok_or("is not a token")?;
        let (_, claims) = message.split_once('.').ok_or("is not a token")?;
        let header = jsonwebtoken::decode_header(text)
            .map_err(|_| "has a header that cannot be read; accepted: one with `alg` RS256, ES256 or EdDSA")?;
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA) {
            return Err(format!("is signed by {:?}; accepted: RS256, ES256 and EdDSA", header.alg));
        }
        if header.crit.is_some() {
            return Err("asks for extensions (`crit`); accepted: a token without".to_owned());
        }
        Ok(Token { header, message, claims, signature })
    }

    pub fn key_id(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    pub fn algorithm(&self) -> Algorithm {
        self.header.alg
    }

    /// The signature first: nothing that a stranger wrote is looked at before.
    pub fn verify(&self, key: &PublicKey, config: &OidcConfig, now: Timestamp) -> Result<Claims, String> {
        let checked = match key.algorithm == self.header.alg {
            true => jsonwebtoken::crypto::verify(self.signature, self.message.as_bytes(), &key.key, key.algorithm),
            false => Ok(false),
        };
        if !matches!(checked, Ok(true)) {
            return Err("has a signature that is not its issuer's".to_owned());
        }
        let json = URL_SAFE_NO_PAD.decode(self.claims).map_err(|_| "has claims that cannot be read")?;
        let all: Map<String, Value> = serde_json::from_slice(&json).map_err(|_| "has claims that cannot be read")?;
        let text = |name: &str| all.get(name).and_then(Value::as_str);
        if text("iss") != Some(&config.issuer) {
            return Err(format!("is not of issuer `{}`", config.issuer));
        }
        if !audience(all.get("aud")).any(|given| config.audience.iter().any(|own| own == given)) {
            return Err(format!("is for somebody else; accepted: audience `{}`", config.audience.join("` or `")));
        }
        let seconds = now.millis().div_euclid(1_000);
        let expires = time(all.get("exp")).ok_or("has no time at which it ends (`exp`)")?;
        if seconds >= expires.saturating_add(OIDC_LEEWAY_S) {
            return Err("has expired".to_owned());
        }
        if let Some(begins) = all.get("nbf") {
            let begins = time(Some(begins)).ok_or("has an `nbf` that is not a time")?;
            if seconds.saturating_add(OIDC_LEEWAY_S) < begins {
                return Err("is not valid yet".to_owned());
            }
        }
        let subject = text("sub").filter(|sub| !sub.is_empty() && sub.chars().count() <= SUBJECT_CHARS_MAX);
        let subject = subject.ok_or("names nobody (`sub`)")?.to_owned();
        Ok(Claims { subject, all })
    }
}

impl Claims {
    /// A claim that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.all.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    pub fn scopes(&self, config: &OidcConfig) -> Scopes {
        match self.all.get(&config.scope_claim) {
            Some(Value::String(words)) => config.granted(words.split_whitespace()),
            Some(Value::Array(words)) => config.granted(words.iter().filter_map(Value::as_str)),
            _ => Scopes::default(),
        }
    }
}

fn audience(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let one = value.and_then(Value::as_str);
    let many = value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    one.into_iter().chain(many)
}

/// Seconds since 1970; some issuers write fractions.
fn time(value: Option<&Value>) -> Option<i64> {
    let value = value?;
    value.as_i64().or_else(|| value.as_f64().filter(|seconds| seconds.is_finite()).map(|seconds| seconds as i64))
}
