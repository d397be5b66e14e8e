//! Leaf certificates for hosts whose TLS is opened: made on demand, kept for a while, all with one key.

use super::authority::{Authority, EARLIER};
use loopd_domain::Timestamp;
use loopd_domain::limits::{EGRESS_LEAF_MS, EGRESS_LEAVES_MAX};
use loopd_policy::network::Host;
use parking_lot::Mutex;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct Leaves {
    authority: Arc<Authority>,
    provider: Arc<CryptoProvider>,
    key: KeyPair,
    signer: Arc<dyn SigningKey>,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    by_host: HashMap<Host, (Timestamp, Leaf)>,
    /// Oldest first.
    order: VecDeque<Host>,
}

/// How a room's TLS is accepted for one host.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) h1: Arc<ServerConfig>,
    pub(crate) h2: Arc<ServerConfig>,
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("no certificate for `{host}` can be made: {message}")]
pub struct LeafError {
    host: String,
    message: String,
}

impl Leaves {
    pub(crate) fn new(authority: Arc<Authority>, provider: Arc<CryptoProvider>) -> Result<Self, LeafError> {
        let failed = |message: String| LeafError { host: "*".to_owned(), message };
        let key = KeyPair::generate().map_err(|fault| failed(fault.to_string()))?;
        let der = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let signer = provider.key_provider.load_private_key(der).map_err(|fault| failed(fault.to_string()))?;
        Ok(Leaves { authority, provider, key, signer, made: Mutex::default() })
    }

    pub(crate) fn of(&self, host: &Host, now: Timestamp) -> Result<Leaf, LeafError> {
        let fresh = |made: &Timestamp| *made <= now && now.since_ms(*made) < EGRESS_LEAF_MS / 2;
        if let Some((_, leaf)) = self.made.lock().by_host.get(host).filter(|(made, _)| fresh(made)) {
            return Ok(leaf.clone());
        }
        let leaf = self.make(host, now).map_err(|message| LeafError { host: host.to_string(), message })?;
        let mut made = self.made.lock();
        if made.by_host.insert(host.clone(), (now, leaf.clone())).is_none() {
            made.order.push_back(host.clone());
        }
        if made.by_host.len() > EGRESS_LEAVES_MAX
            && let Some(oldest) = made.order.pop_front()
        {
            made.by_host.remove(&oldest);
        }
        Ok(leaf)
    }

    fn make(&self, host: &Host, now: Timestamp) -> Result<Leaf, String> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![match (host.address(), host.name()) {
            (Some(address), _) => SanType::IpAddress(address),
            (None, name) => {
                let name = name.unwrap_or_default().to_owned();
                SanType::DnsName(name.try_into().map_err(|fault: rcgen::Error| fault.to_string())?)
            }
        }];
        // A common name is at most 64 characters long; nobody reads it where there are alternative names.
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "loopd egress leaf");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let since = Duration::from_micros(now.micros().max(0).unsigned_abs());
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + since.saturating_sub(EARLIER);
        params.not_after = epoch + since + Duration::from_millis(EGRESS_LEAF_MS);
        let leaf = params.signed_by(&self.key, self.authority.issuer()).map_err(|fault| fault.to_string())?;
        let chain = vec![leaf.der().clone(), self.authority.der().clone()];
        let certified = Arc::new(CertifiedKey::new(chain, self.signer.clone()));
        let config = |protocol: &[u8]| {
            let builder =
                ServerConfig::builder_with_provider(self.provider.clone()).with_safe_default_protocol_versions();
            let builder = builder.map_err(|fault| fault.to_string())?.with_no_client_auth();
            let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified.clone())));
            config.alpn_protocols = vec![protocol.to_vec()];
            // A session that is resumed would save a signature and cost memory for each connection.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            Ok::<_, String>(Arc::new(config))
        };
        Ok(Leaf { h1: config(b"http/1.1")?, h2: config(b"h2")? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::authority::tests::Named;
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_000_000_000_000);

    fn leaves() -> Leaves {
        let directory = tempfile::tempdir().expect("a directory");
        let authority = Authority::open(directory.path(), &Named("a"), NOW).expect("an authority");
        Leaves::new(Arc::new(authority), Arc::new(rustls::crypto::aws_lc_rs::default_provider())).expect("leaves")
    }

    fn host(text: &str) -> Host {
        Host::parse(text).expect("a host")
    }

    #[test]
    fn a_leaf_is_kept_for_half_its_life() {
        let leaves = leaves();
        let first = leaves.of(&host("example.com"), NOW).expect("a leaf");
        let later = leaves.of(&host("example.com"), NOW.plus_ms(EGRESS_LEAF_MS / 2 - 1)).expect("a leaf");
        assert!(Arc::ptr_eq(&first.h1, &later.h1));
        let renewed = leaves.of(&host("example.com"), NOW.plus_ms(EGRESS_LEAF_MS / 2)).expect("a leaf");
        assert!(!Arc::ptr_eq(&first.h1, &renewed.h1));
        assert_eq!(leaves.made.lock().order.len(), 1);
    }

    #[test]
    fn a_room_that_names_many_hosts_fills_no_memory() {
        let leaves = leaves();
        for n in 0..EGRESS_LEAVES_MAX + 10 {
            leaves.of(&host(&format!("h{n}.test")), NOW).expect("a leaf");
        }
        let made = leaves.made.lock();
        assert_eq!((made.by_host.len(), made.order.len()), (EGRESS_LEAVES_MAX, EGRESS_LEAVES_MAX));
        assert!(!made.by_host.contains_key(&host("h0.test")));
    }

    #[test]
    fn the_longest_name_and_addresses_have_leaves_too() {
        let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
        for text in [long.as_str(), "192.0.2.1", "[2001:db8::1]", "bücher.example"] {
            assert!(leaves().of(&host(text), NOW).is_ok(), "{text}");
        }
    }
}
