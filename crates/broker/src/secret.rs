//! A value that must not be seen.

use std::fmt;
use zeroize::Zeroizing;

/// Wiped when dropped. It does not print, does not serialise and does not compare with `==`.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    pub fn new(bytes: Vec<u8>) -> Self {
        Secret(Zeroizing::new(bytes))
    }

    /// The value itself. Whoever calls this answers for where it goes.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }

    /// A copy that is wiped as well.
    pub fn to_zeroizing(&self) -> Zeroizing<Vec<u8>> {
        self.0.clone()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_not_print() {
        let secret = Secret::new(b"hunter2".to_vec());
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(secret.reveal(), b"hunter2");
    }
}
