//! Who may call: workspaces, API keys, and the scopes that say what a caller may ask for.
//!
//! A key is random and long, so its SHA-256 is enough to know it by: there is no guessing of 256 bits, and nothing that a slow
//! hash would make slower. Digests are looked up, never compared byte by byte with what a caller sent, so the time that a look-up takes says
//! nothing about a key.

use crate::audit::Actor;
use crate::environment::Isolation;
use crate::{ApiKeyId, Invalid, Timestamp, WorkspaceId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt;

/// How every key of ours begins, for people and for programs that look for lost keys.
pub const KEY_PREFIX: &str = "lpd_";
/// Characters of a key that are kept and shown, so that people can tell their keys apart.
const HINT_CHARS: usize = KEY_PREFIX.len() + 8;
/// Everything of the caller's own workspace.
const ALL: &str = "*";

/// What scopes are about: a noun of the interface and all below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Noun {
    Agents,
    Environments,
    /// With events, threads, traces, archives and `/v1/invoke`.
    Sessions,
    Models,
    Vaults,
    Keys,
    Audit,
    /// Other workspaces than the caller's own. Not part of `*`.
    Workspaces,
    /// Images that the host keeps, whoever made it fetch them. Not part of `*`.
    Images,
}

impl Noun {
    pub const ALL: [Noun; 9] = [
        Noun::Agents,
        Noun::Environments,
        Noun::Sessions,
        Noun::Models,
        Noun::Vaults,
        Noun::Keys,
        Noun::Audit,
        Noun::Workspaces,
        Noun::Images,
    ];

    /// What is of no single workspace.
    pub const HOSTS: [Noun; 2] = [Noun::Workspaces, Noun::Images];

    pub fn name(self) -> &'static str {
        match self {
            Noun::Agents => "agents",
            Noun::Environments => "environments",
            Noun::Sessions => "sessions",
            Noun::Models => "models",
            Noun::Vaults => "vaults",
            Noun::Keys => "keys",
            Noun::Audit => "audit",
            Noun::Workspaces => "workspaces",
            Noun::Images => "images",
        }
    }
}

/// `Write` includes `Read`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    Read,
    Write,
}

/// What one route asks for, and one grant gives: `agents:read`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    pub noun: Noun,
    pub access: Access,
}

impl Scope {
    pub const fn read(noun: Noun) -> Self {
        Scope { noun, access: Access::Read }
    }
    pub const fn write(noun: Noun) -> Self {
        Scope { noun, access: Access::Write }
    }

    fn parse(text: &str) -> Option<Self> {
        let (noun, access) = text.split_once(':')?;
        let noun = Noun::ALL.into_iter().find(|n| n.name() == noun)?;
        let access = match access {
            "read" => Access::Read,
            "write" => Access::Write,
            _ => return None,
        };
        Some(Scope { noun, access })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = match self.access {
            Access::Read => "read",
            Access::Write => "write",
        };
        write!(f, "{}:{access}", self.noun.name())
    }
}

/// What a caller may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes {
    all: bool,
    each: BTreeSet<Scope>,
}

impl Scopes {
    /// Everything of the caller's own workspace.
    pub fn all() -> Self {
        Scopes { all: true, each: BTreeSet::new() }
    }

    /// Everything there is, other workspaces' keys included: whoever runs the server.
    pub fn operator() -> Self {
        Scopes { all: true, each: Noun::HOSTS.map(Scope::write).into() }
    }

    /// Reads names such as `agents:read` and `*`.
    pub fn parse<'a>(field: &str, names: impl IntoIterator<Item = &'a str>) -> Result<Self, Invalid> {
        let mut scopes = Scopes::default();
        for name in names {
            scopes.grant(name).ok_or_else(|| Invalid::new(field, name, accepted()))?;
        }
        Ok(scopes)
    }

    /// Adds what `name` stands for, when it stands for anything.
    pub fn grant(&mut self, name: &str) -> Option<()> {
        match name == ALL {
            true => self.all = true,
            false => _ = self.each.insert(Scope::parse(name)?),
        }
        Some(())
    }

    pub fn merge(&mut self, other: &Scopes) {
        self.all |= other.all;
        self.each.extend(other.each.iter().copied());
    }

    pub fn is_empty(&self) -> bool {
        !self.all && self.each.is_empty()
    }

    pub fn allows(&self, asked: Scope) -> bool {
        let granted = self.each.contains(&asked) || self.each.contains(&Scope::write(asked.noun));
        granted || (self.all && !Noun::HOSTS.contains(&asked.noun))
    }

    /// The first of `other` that is not in here: nobody gives what he does not have.
    pub fn lacks(&self, other: &Scopes) -> Option<String> {
        if other.all && !self.all {
            return Some(ALL.to_owned());
        }
        other.each.iter().find(|scope| !self.allows(**scope)).map(Scope::to_string)
    }

    pub fn names(&self) -> Vec<String> {
        let all = self.all.then(|| ALL.to_owned());
        all.into_iter().chain(self.each.iter().map(Scope::to_string)).collect()
    }
}

fn accepted() -> String {
    let nouns: Vec<&str> = Noun::ALL.iter().map(|n| n.name()).collect();
    format!("`*`, or one of `{}`, and `:read` or `:write`", nouns.join("`, `"))
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.names().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        Scopes::parse("scopes", names.iter().map(String::as_str)).map_err(serde::de::Error::custom)
    }
}

/// What a key is known by: its SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest(pub [u8; 32]);

impl KeyDigest {
    pub fn of(key: &[u8]) -> Self {
        KeyDigest(Sha256::digest(key).into())
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(…)")
    }
}

/// A key that was just made. It is shown once and kept nowhere; it does not print.
pub struct NewKey(String);

impl NewKey {
    /// `random`: 256 bits that nobody can foretell.
    pub fn from_random(random: [u8; 32]) -> Self {
        let (high, low) = random.split_at(16);
        let half = |bytes: &[u8]| {
            crate::ids::encode_ulid(bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte)))
        };
        NewKey(format!("{KEY_PREFIX}{}{}", half(high), half(low)))
    }

    /// For the one answer that tells it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub fn digest(&self) -> KeyDigest {
        KeyDigest::of(self.0.as_bytes())
    }

    /// Its first characters.
    pub fn hint(&self) -> String {
        self.0.chars().take(HINT_CHARS).collect()
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewKey(…)")
    }
}

/// A key as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub workspace: WorkspaceId,
    pub name: String,
    /// Its first characters.
    pub hint: String,
    pub digest: KeyDigest,
    pub scopes: Scopes,
    pub created_at: Timestamp,
    pub created_by: Actor,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    /// Coarse: see `limits::KEY_USED_GRAIN_MS`.
    pub last_used_at: Option<Timestamp>,
}

impl ApiKey {
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|at| now < at)
    }
}

/// A wall between tenants, and what people call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    pub id: WorkspaceId,
    pub name: String,
    /// The weakest walls that rooms of its sessions may have.
    pub require_isolation: Isolation,
    pub created_at: Timestamp,
}

impl Workspace {
    /// Refuses a room with weaker walls; `field` is what the caller calls its kind.
    pub fn allows(&self, field: &str, isolation: Isolation) -> Result<(), Invalid> {
        if isolation >= self.require_isolation {
            return Ok(());
        }
        let kinds = Isolation::ALL.into_iter().filter(|kind| *kind >= self.require_isolation);
        let kinds = kinds.map(|kind| format!("`{}`", kind.as_str())).collect::<Vec<_>>().join(" or ");
        Err(Invalid::new(field, isolation.as_str(), format!("{kinds}, as workspace `{}` requires", self.name)))
    }
}

/// Names stand on command lines and in claims of tokens: lower case, digits and what stands between words.
pub fn check_workspace_name(field: &str, name: &str) -> Result<(), Invalid> {
    let max = crate::limits::WORKSPACE_NAME_CHARS_MAX;
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let fine = name.len() <= max
        && name.bytes().next().is_some_and(word)
        && name.bytes().all(|b| word(b) || b"-_.".contains(&b));
    match fine {
        true => Ok(()),
        false => {
            let accepted =
                format!("up to {max} of `a` to `z`, digits, `-`, `_` and `.`, the first a letter or a digit");
            Err(Invalid::new(field, name, accepted))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weaker_room_is_refused_with_what_is_accepted() {
        let team = |require_isolation| Workspace {
            id: WorkspaceId::default_workspace(),
            name: "team".to_owned(),
            require_isolation,
            created_at: Timestamp::default(),
        };
        for isolation in Isolation::ALL {
            team(Isolation::Namespaces).allows("isolation", isolation).expect("allowed");
        }
        let strict = team(Isolation::Microvm);
        strict.allows("isolation", Isolation::Microvm).expect("allowed");
        let fault = strict.allows("config.isolation", Isolation::Namespaces).expect_err("refused");
        assert_eq!((fault.field.as_str(), fault.value.as_str()), ("config.isolation", "namespaces"));
        assert_eq!(fault.accepted, "`microvm`, as workspace `team` requires");
    }

    fn scopes(names: &[&str]) -> Scopes {
        Scopes::parse("scopes", names.iter().copied()).expect("known scopes")
    }

    #[test]
    fn a_scope_opens_its_noun_and_no_other() {
        let some = scopes(&["agents:read", "sessions:write"]);
        assert!(some.allows(Scope::read(Noun::Agents)));
        assert!(!some.allows(Scope::write(Noun::Agents)));
        assert!(some.allows(Scope::read(Noun::Sessions)) && some.allows(Scope::write(Noun::Sessions)));
        assert!(!some.allows(Scope::read(Noun::Keys)));
        assert!(!Scopes::default().allows(Scope::read(Noun::Models)));
    }

    #[test]
    fn all_is_all_of_the_own_workspace() {
        for noun in Noun::ALL {
            assert_eq!(Scopes::all().allows(Scope::write(noun)), !Noun::HOSTS.contains(&noun), "{noun:?}");
            assert!(Scopes::operator().allows(Scope::write(noun)));
        }
    }

    #[test]
    fn nobody_gives_what_he_does_not_have() {
        let some = scopes(&["agents:write", "keys:write"]);
        assert_eq!(some.lacks(&scopes(&["agents:read", "keys:read"])), None);
        assert_eq!(some.lacks(&scopes(&["agents:write", "sessions:read"])).as_deref(), Some("sessions:read"));
        assert_eq!(some.lacks(&Scopes::all()).as_deref(), Some("*"));
        assert_eq!(Scopes::all().lacks(&scopes(&["workspaces:read"])).as_deref(), Some("workspaces:read"));
        assert_eq!(Scopes::operator().lacks(&Scopes::operator()), None);
    }

    #[test]
    fn unknown_names_are_refused_with_what_is_accepted() {
        for bad in ["", "agents", "agents:", "agents:admin", "Agents:read", "all", "sessions:*"] {
            let told = Scopes::parse("scopes", [bad]).expect_err(bad).to_string();
            assert!(told.contains("`agents`") && told.contains("`:write`"), "{told}");
        }
        let text = serde_json::to_string(&Scopes::operator()).expect("serialises");
        assert_eq!(text, r#"["*","workspaces:write","images:write"]"#);
        assert_eq!(serde_json::from_str::<Scopes>(&text).expect("reads"), Scopes::operator());
    }

    #[test]
    fn a_key_carries_all_its_randomness_and_shows_little_of_it() {
        let mut random = [0u8; 32];
        let key = NewKey::from_random(random);
        assert_eq!(key.reveal(), format!("lpd_{}", "0".repeat(52)));
        for bit in 0..256 {
            random[bit / 8] ^= 1 << (bit % 8);
            let other = NewKey::from_random(random);
            assert_ne!(other.reveal(), key.reveal(), "bit {bit}");
            assert_ne!(other.digest(), key.digest());
            random[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(key.hint().len(), 12);
        assert!(!format!("{key:?} {:?}", key.digest()).contains("lpd_"));
    }

    #[test]
    fn names_of_workspaces_are_plain_words() {
        for good in ["team-a", "7", "a.b_c"] {
            assert!(check_workspace_name("workspace", good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "Team", "a b", "ä", "a/b", &"a".repeat(65)] {
            assert!(check_workspace_name("workspace", bad).is_err(), "{bad}");
        }
    }
}
