//! What programs of a room with a way out find in their environment: where the proxy is, and whom to trust.

use super::PROXY;
use std::ffi::OsString;
use std::path::Path;

/// All that programs of the room may trust: the host's list and the certificate of loopd's authority.
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The authority's certificate alone, for programs that add to a list of their own.
const AUTHORITY: &str = "/etc/loopd/ca.crt";

/// Not `ALL_PROXY`: nothing else than HTTP is carried there, and some programs take it for SOCKS.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"];
const DIRECT: [&str; 2] = ["NO_PROXY", "no_proxy"];
const TRUST: [&str; 8] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "npm_config_cafile",
];
const TRUST_MORE: [&str; 2] = ["NODE_EXTRA_CA_CERTS", "DENO_CERT"];

pub fn of_tools() -> Vec<(OsString, OsString)> {
    let trusts = Path::new(AUTHORITY).exists() && Path::new(BUNDLE).exists();
    of(trusts).map(|(name, value)| (name.into(), value.into())).collect()
}

fn of(trusts: bool) -> impl Iterator<Item = (&'static str, String)> {
    let proxy = format!("http://{PROXY}");
    let proxies = PROXIES.into_iter().map(move |name| (name, proxy.clone()));
    let direct = DIRECT.into_iter().map(|name| (name, "localhost,127.0.0.1,::1".to_owned()));
    let trust =
        TRUST.into_iter().map(|name| (name, BUNDLE)).chain(TRUST_MORE.into_iter().map(|name| (name, AUTHORITY)));
    let trust = trust.filter(move |_| trusts).map(|(name, path)| (name, path.to_owned()));
    proxies.chain(direct).chain(trust)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_authority_programs_keep_their_own_lists() {
        assert!(of(false).all(|(name, _)| name.to_ascii_lowercase().contains("proxy")));
        let all: Vec<_> = of(true).collect();
        assert!(all.contains(&("https_proxy", "http://127.0.0.1:3128".to_owned())));
        assert!(all.contains(&("SSL_CERT_FILE", BUNDLE.to_owned())));
        assert!(all.contains(&("NODE_EXTRA_CA_CERTS", AUTHORITY.to_owned())));
    }
}
