//! Secrets in the place of placeholders, and placeholders in the place of secrets.
//!
//! The target of a request (path and query) counts as its headers. Where a credential's placement leaves a part out, the
//! placeholder passes there as it is: it is no secret.

pub(crate) mod head;
pub(crate) mod stream;

use crate::credentials::{BoundCredential, Placement};
use loopd_policy::network::{Host, HostPattern};
use std::sync::Arc;

/// The credentials of a session, as one host sees them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bound {
    /// They name the host.
    pub(crate) here: Vec<Arc<BoundCredential>>,
    /// They do not.
    pub(crate) elsewhere: Vec<Arc<BoundCredential>>,
}

impl Bound {
    pub(crate) fn of(credentials: Vec<Arc<BoundCredential>>, host: &Host, port: u16) -> Self {
        let usable = credentials.into_iter().filter(|credential| !credential.placeholder.is_empty());
        let (here, elsewhere) = usable.partition(|credential| names(credential, host, port));
        Bound { here, elsewhere }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.here.is_empty() && self.elsewhere.is_empty()
    }

    pub(crate) fn in_headers(&self) -> Vec<Arc<BoundCredential>> {
        let wanted = |c: &&Arc<BoundCredential>| matches!(c.placement, Placement::Anywhere { headers: true, .. });
        self.here.iter().filter(wanted).cloned().collect()
    }

    pub(crate) fn in_body(&self) -> Vec<Arc<BoundCredential>> {
        let wanted = |c: &&Arc<BoundCredential>| matches!(c.placement, Placement::Anywhere { body: true, .. });
        self.here.iter().filter(wanted).cloned().collect()
    }
}

/// Does the credential name this host?
fn names(credential: &BoundCredential, host: &Host, port: u16) -> bool {
    let Some(hosts) = &credential.hosts else { return true };
    hosts.iter().any(|pattern| HostPattern::parse(pattern).is_ok_and(|pattern| pattern.matches(host, port)))
}

pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    find(haystack, needle).is_some()
}

pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    match needle.first() {
        None => None,
        Some(_) => haystack.windows(needle.len()).position(|window| window == needle),
    }
}

/// `haystack` with every `needle` replaced.
pub(crate) fn replaced(haystack: &[u8], needle: &[u8], by: &[u8]) -> Vec<u8> {
    let mut rest = haystack;
    let mut made = Vec::with_capacity(haystack.len());
    while let Some(at) = find(rest, needle) {
        made.extend_from_slice(&rest[..at]);
        made.extend_from_slice(by);
        rest = &rest[at + needle.len()..];
    }
    made.extend_from_slice(rest);
    made
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::secret::Secret;
    use loopd_domain::{CredentialId, VaultId};

    pub(crate) fn credential(placeholder: &str, secret: &str, hosts: Option<&[&str]>) -> Arc<BoundCredential> {
        Arc::new(BoundCredential {
            vault: VaultId::parse("vault", "vlt_1").expect("an id"),
            credential: CredentialId::parse("credential", &format!("vcrd_{}", placeholder.len())).expect("an id"),
            variable: "TOKEN".to_owned(),
            placeholder: placeholder.to_owned(),
            secret: Secret::new(secret.as_bytes().to_vec()),
            hosts: hosts.map(|hosts| hosts.iter().map(|host| (*host).to_owned()).collect()),
            placement: Placement::Anywhere { headers: true, body: true },
        })
    }

    #[test]
    fn a_credential_is_for_the_hosts_that_it_names() {
        let all = vec![
            credential("a", "1", Some(&["api.example.com"])),
            credential("bb", "2", Some(&["*.example.com:443"])),
            credential("ccc", "3", None),
            credential("", "4", None),
            credential("ddddd", "5", Some(&[])),
            credential("eeeeee", "6", Some(&["not a host"])),
        ];
        let bound = |host: &str, port| {
            let bound = Bound::of(all.clone(), &Host::parse(host).expect("a host"), port);
            let shown = |list: &[Arc<BoundCredential>]| list.iter().map(|c| c.placeholder.len()).collect::<Vec<_>>();
            (shown(&bound.here), shown(&bound.elsewhere))
        };
        assert_eq!(bound("API.example.com.", 443), (vec![1, 2, 3], vec![5, 6]));
        assert_eq!(bound("api.example.com", 8443), (vec![1, 3], vec![2, 5, 6]));
        assert_eq!(bound("api.example.com.evil.test", 443), (vec![3], vec![1, 2, 5, 6]));
    }

    #[test]
    fn replacing_is_plain() {
        assert_eq!(replaced(b"xabcabcx", b"abc", b"1"), b"x11x");
        assert_eq!(replaced(b"ab", b"abc", b"1"), b"ab");
        assert_eq!(replaced(b"aXa", b"X", b"XX"), b"aXXa");
    }
}
