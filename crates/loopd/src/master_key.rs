//! Which master key: `LOOPD_MASTER_KEY`, or a file. Never from the configuration file, which may name the key's file alone.

use crate::settings::{Env, Settings};
use loopd_broker::Secret;
use loopd_broker::vault::{KeyPlace, KeySource, MasterKey, NoMasterKey};
use std::path::{Path, PathBuf};

pub const KEY: &str = "LOOPD_MASTER_KEY";
pub const KEY_FILE: &str = "LOOPD_MASTER_KEY_FILE";
pub const KEY_NEXT: &str = "LOOPD_MASTER_KEY_NEXT";
/// In the data directory, where nothing else is said.
const DEFAULT_FILE: &str = "master.key";

#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    #[error("{name}: {fault}")]
    Malformed { name: &'static str, fault: NoMasterKey },
    #[error("{KEY} and {KEY_FILE} are both set; accepted: one of them")]
    TwoPlaces,
}

impl Settings {
    /// Where the keys are; nothing is read or made yet.
    pub fn master_key(&self, env: Env<'_>, data: &Path) -> Result<KeySource, MasterKeyError> {
        let given = |name| env(name).map(|text| parse(name, text)).transpose();
        let named = env(KEY_FILE).map(PathBuf::from);
        let place = match (given(KEY)?, named.or_else(|| self.config.master_key_file.clone())) {
            (Some(_), Some(_)) if env(KEY_FILE).is_some() => return Err(MasterKeyError::TwoPlaces),
            (Some(key), _) => KeyPlace::Given { name: KEY, key },
            // A file that somebody named and that is not there is a mistake; the data directory's own is made.
            (None, Some(path)) => KeyPlace::File { path, makes: false },
            (None, None) => KeyPlace::File { path: data.join(DEFAULT_FILE), makes: true },
        };
        Ok(KeySource { place, next: given(KEY_NEXT)?.map(|key| (KEY_NEXT, key)) })
    }
}

fn parse(name: &'static str, text: String) -> Result<MasterKey, MasterKeyError> {
    MasterKey::parse(&Secret::new(text.into_bytes())).map_err(|fault| MasterKeyError::Malformed { name, fault })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Place;

    const ONE: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    const TWO: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

    fn source(pairs: &[(&str, &str)], file: Option<&str>) -> Result<KeySource, String> {
        let env = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let place = Place { data: Some("/data".into()), config: None };
        let mut settings = Settings::resolve(&place, &|_| None).expect("fine");
        settings.config.master_key_file = file.map(PathBuf::from);
        settings.master_key(&env, Path::new("/data")).map_err(|fault| fault.to_string())
    }

    #[test]
    fn variable_over_file_over_default() {
        let place = |pairs: &[(&str, &str)], file| match source(pairs, file).expect("fine").place {
            KeyPlace::Given { name, .. } => name.to_owned(),
            KeyPlace::File { path, makes } => format!("{} {makes}", path.display()),
        };
        assert_eq!(place(&[], None), "/data/master.key true");
        assert_eq!(place(&[], Some("/a")), "/a false");
        assert_eq!(place(&[(KEY_FILE, "/b")], Some("/a")), "/b false");
        assert_eq!(place(&[(KEY, ONE)], Some("/a")), KEY);
        assert!(source(&[(KEY, ONE), (KEY_FILE, "/b")], None).expect_err("two").contains("one of them"));
        let next = source(&[(KEY, ONE), (KEY_NEXT, TWO)], None).expect("fine").next.expect("there");
        assert_eq!(next.0, KEY_NEXT);
    }

    #[test]
    fn a_key_that_is_none_is_named_and_not_shown() {
        for name in [KEY, KEY_NEXT] {
            let told = source(&[(name, "hunter2")], None).expect_err("no key");
            assert!(told.starts_with(&format!("{name}: ")) && !told.contains("hunter2"), "{told}");
        }
    }
}
