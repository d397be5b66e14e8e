//! Which issuer is trusted, and what its claims mean here.

use loopd_domain::Invalid;
use loopd_domain::identity::{Noun, Scope, Scopes};
use std::collections::BTreeMap;
use url::{Host, Url};

/// What is read when nothing else is said.
const SCOPE_CLAIM: &str = "scope";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcConfig {
    /// As its tokens write it, to the last slash.
    pub issuer: String,
    /// A token must be for one of them.
    pub audience: Vec<String>,
    /// The claim that names the workspace; `None`: every token is of the default workspace.
    pub workspace_claim: Option<String>,
    /// A text of words, or a list of texts.
    pub scope_claim: String,
    /// What a word in the claim opens. Empty: the words are scopes of ours.
    pub scopes: BTreeMap<String, Scopes>,
}

#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("no HTTP client can be made: {0}")]
    Client(String),
}

impl OidcConfig {
    pub fn new(
        issuer: String,
        audience: Vec<String>,
        workspace_claim: Option<String>,
        scope_claim: Option<String>,
        scopes: &BTreeMap<String, Vec<String>>,
    ) -> Result<Self, OidcError> {
        parse_url(&issuer)?;
        if audience.is_empty() || audience.iter().any(String::is_empty) {
            return Err(Invalid::missing("oidc.audience", "the audience that tokens for this server have").into());
        }
        let read = |(word, names): (&String, &Vec<String>)| {
            let field = format!("oidc.scopes.\"{word}\"");
            Ok((word.clone(), Scopes::parse(&field, names.iter().map(String::as_str))?))
        };
        let scopes = scopes.iter().map(read).collect::<Result<_, Invalid>>()?;
        let scope_claim = scope_claim.unwrap_or_else(|| SCOPE_CLAIM.to_owned());
        Ok(OidcConfig { issuer, audience, workspace_claim, scope_claim, scopes })
    }

    /// What these words of a token open.
    pub fn granted<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Scopes {
        let mut granted = Scopes::default();
        for word in words {
            match self.scopes.get(word) {
                Some(scopes) => granted.merge(scopes),
                // Tokens carry words for other services too; and what reaches beyond its workspace must be said here.
                None if self.scopes.is_empty() => {
                    let own = Scopes::parse(SCOPE_CLAIM, [word]).unwrap_or_default();
                    if !Noun::HOSTS.iter().any(|noun| own.allows(Scope::read(*noun))) {
                        granted.merge(&own);
                    }
                }
                None => {}
            }
        }
        granted
    }
}

/// `https`, or `http` to this machine.
pub fn parse_url(text: &str) -> Result<Url, Invalid> {
    let refused =
        || Invalid::new("oidc.issuer", text, "an `https` URL without query, or an `http` one of this machine");
    let url = Url::parse(text).map_err(|_| refused())?;
    let fine = url.scheme() == "https" || (url.scheme() == "http" && is_this_machine(&url));
    match fine && url.has_host() && url.query().is_none() && url.fragment().is_none() && url.username().is_empty() {
        true => Ok(url),
        false => Err(refused()),
    }
}

pub fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
