//! Variables that the host gives to programs of the room from now on: names, and placeholders for secrets.

use crate::limits::{VARIABLE_BYTES_MAX, VARIABLES_MAX};
use crate::tool_user::WITHHELD;

/// Each name once, and a name that every shell takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables(Vec<(String, String)>);

impl Variables {
    /// Takes what can be taken. For each of the others a sentence says why not.
    pub fn accept(pairs: Vec<(String, String)>) -> (Self, Vec<String>) {
        let (mut accepted, mut refused) = (Self::default(), Vec::new());
        for (name, value) in pairs {
            match accepted.objection(&name, &value) {
                None => accepted.0.push((name, value)),
                Some(why) => refused.push(format!("variable `{name}` is left out: {why}")),
            }
        }
        (accepted, refused)
    }

    fn objection(&self, name: &str, value: &str) -> Option<String> {
        let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        let begins_well = name.bytes().next().is_some_and(is_letter);
        if !begins_well || !name.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit()) {
            return Some("accepted: letters, digits and `_`, not beginning with a digit".to_owned());
        }
        if WITHHELD.contains(&name) {
            return Some("the name is the room's own".to_owned());
        }
        if value.contains('\0') || name.len() + value.len() > VARIABLE_BYTES_MAX {
            return Some(format!("accepted: up to {VARIABLE_BYTES_MAX} bytes without a NUL"));
        }
        if self.contains(name) {
            return Some("it is there twice; the first counts".to_owned());
        }
        (self.0.len() >= VARIABLES_MAX).then(|| format!("accepted: up to {VARIABLES_MAX} variables"))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(pairs: &[(&str, &str)]) -> (Variables, Vec<String>) {
        Variables::accept(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn names_are_a_shells() {
        let (accepted, refused) = accept(&[("TOKEN_1", "a b'"), ("_x", "")]);
        assert_eq!((accepted.get("TOKEN_1"), accepted.get("_x"), refused.len()), (Some("a b'"), Some(""), 0));
        for name in ["", "1A", "A B", "A=B", "A;reboot", "A-B", "$(x)", "Ä", "BASH_ENV", "LOOPD_OUTLET"] {
            let (accepted, refused) = accept(&[(name, "x")]);
            assert_eq!((accepted, refused.len()), (Variables::default(), 1), "{name}");
        }
    }

    #[test]
    fn there_is_a_bound_to_everything() {
        assert_eq!(accept(&[("A", "1"), ("A", "2")]).0.get("A"), Some("1"));
        assert_eq!(accept(&[("A", "1\0")]).1.len(), 1);
        assert_eq!(accept(&[("A", &"x".repeat(VARIABLE_BYTES_MAX))]).1.len(), 1);
        let names: Vec<String> = (0..=VARIABLES_MAX).map(|number| format!("A{number}")).collect();
        let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "x")).collect();
        assert_eq!(accept(&pairs).1.len(), 1);
    }
}
