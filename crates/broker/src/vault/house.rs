//! The house's own key: what is sealed for other rooms than the vaults, and what is derived per session.

use super::envelope::{Failed, Sealing, context, derive};
use crate::seal::{SealError, Sealer};
use crate::secret::Secret;
use aws_lc_rs::hmac;
use loopd_domain::chain::hex;
use loopd_domain::{CredentialId, SessionId};

const LETTERS_AND_DIGITS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// The largest multiple of 62 that fits into a byte: beyond it some letters would be likelier than others.
const FAIR: u8 = 248;

#[derive(Debug)]
pub struct House {
    sealing: Sealing,
    placeholders: hmac::Key,
    digests: hmac::Key,
}

impl House {
    pub fn new(key: &Secret) -> Result<Self, Failed> {
        let mac = |label| hmac::Key::new(hmac::HMAC_SHA256, derive(key, label).reveal());
        Ok(House {
            sealing: Sealing::new(&derive(key, "loopd house: seal"))?,
            placeholders: mac("loopd house: placeholders"),
            digests: mac("loopd house: digests"),
        })
    }

    /// What stands in a session's room in the place of a credential's secret. The same each time, and without this key nobody
    /// knows it, or tells from it that two sessions have the same credential.
    pub fn placeholder(&self, session: &SessionId, credential: &CredentialId, chars: usize) -> String {
        let seed = context(&[session.as_str(), credential.as_str()]);
        let block = |number: u64| {
            let mut sign = hmac::Context::with_key(&self.placeholders);
            sign.update(&seed);
            sign.update(&number.to_be_bytes());
            sign.sign()
        };
        let letter = |byte: &u8| char::from(LETTERS_AND_DIGITS[usize::from(byte % 62)]);
        let mut text = String::with_capacity(chars);
        for number in 0.. {
            text.extend(
                block(number).as_ref().iter().filter(|byte| **byte < FAIR).map(letter).take(chars - text.len()),
            );
            if text.len() == chars {
                break;
            }
        }
        text
    }

    /// A digest that says nothing to who has not this key: a plain one of a request that carries a secret would let everybody
    /// who reads it try secrets.
    pub fn blind(&self, digest: &str) -> String {
        hex(hmac::sign(&self.digests, digest.as_bytes()).as_ref())
    }
}

impl Sealer for House {
    fn seal(&self, context: &str, plain: &Secret) -> Result<Vec<u8>, SealError> {
        let failed = |_| SealError::Failed { context: context.to_owned() };
        self.sealing.seal(context.as_bytes(), plain).map_err(failed)
    }

    fn open(&self, context: &str, sealed: &[u8]) -> Result<Secret, SealError> {
        let refused = || SealError::Refused { context: context.to_owned() };
        self.sealing.open(context.as_bytes(), sealed).ok_or_else(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::envelope::random_key;
    use std::collections::HashSet;

    fn house() -> House {
        House::new(&random_key().expect("random")).expect("a house")
    }

    fn session(n: u32) -> SessionId {
        SessionId::parse("id", &format!("sesn_{n}")).expect("an id")
    }

    fn credential(n: u32) -> CredentialId {
        CredentialId::parse("id", &format!("vcrd_{n}")).expect("an id")
    }

    #[test]
    fn placeholders_are_of_session_and_credential_alone() {
        let key = random_key().expect("random");
        let [one, two] = [(); 2].map(|()| House::new(&key).expect("a house"));
        for chars in [20, 40, 16 << 10] {
            let text = one.placeholder(&session(1), &credential(1), chars);
            assert_eq!(text.len(), chars);
            assert!(text.bytes().all(|b| b.is_ascii_alphanumeric()));
            assert_eq!(text, two.placeholder(&session(1), &credential(1), chars));
        }
        let mut all = HashSet::new();
        for n in 0..50 {
            all.insert(one.placeholder(&session(n), &credential(1), 20));
            all.insert(one.placeholder(&session(1), &credential(n), 20));
        }
        assert_eq!(all.len(), 99);
        assert_ne!(
            house().placeholder(&session(1), &credential(1), 20),
            one.placeholder(&session(1), &credential(1), 20)
        );
    }

    #[test]
    fn it_seals_for_others() {
        let house = house();
        let sealed = house.seal("egress/ca", &Secret::new(b"key".to_vec())).expect("sealed");
        assert_eq!(house.open("egress/ca", &sealed).expect("opens").reveal(), b"key");
        let told = house.open("egress/cb", &sealed).expect_err("another context").to_string();
        assert!(told.contains("`egress/cb`"), "{told}");
        assert_ne!(house.blind("a"), house.blind("b"));
        assert_ne!(house.blind("a"), super::tests::house().blind("a"));
    }
}
