//! A value that must not be seen.

use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Wiped when the last of its clones is dropped. It does not print, does not serialise and does not compare with `==`.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

impl Secret {
    pub fn new(bytes: Vec<u8>) -> Self {
        Secret(Arc::new(Zeroizing::new(bytes)))
    }

    /// The value itself. Whoever calls this answers for where it goes.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }

    /// A copy that is wiped as well.
    pub fn to_zeroizing(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::clone(&self.0)
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
        assert_eq!(format!("{secret:#?}"), "Secret(…)");
        assert_eq!(secret.reveal(), b"hunter2");
    }

    /// Asks a question of a type that has the answer `true` only where the trait is implemented: the inherent constant, which
    /// is there under the bound, hides the trait's.
    macro_rules! implements {
        ($type:ty: $($bound:tt)+) => {{
            struct Asked<T>(std::marker::PhantomData<T>);
            #[allow(dead_code, reason = "where the bound holds nobody uses it")]
            trait Otherwise {
                const ANSWER: bool = false;
            }
            impl<T> Otherwise for Asked<T> {}
            #[allow(dead_code, reason = "where the bound does not hold nobody uses it")]
            impl<T: $($bound)+> Asked<T> {
                const ANSWER: bool = true;
            }
            <Asked<$type>>::ANSWER
        }};
    }

    const _: () = {
        assert!(implements!(String: std::fmt::Display), "the question can be answered with yes");
        assert!(!implements!(Secret: std::fmt::Display));
        assert!(!implements!(Secret: serde::Serialize));
        assert!(!implements!(Secret: PartialEq));
        assert!(!implements!(Secret: std::ops::Deref));
        assert!(!implements!(Secret: AsRef<[u8]>));
        assert!(!implements!(Secret: std::hash::Hash));
    };
}
