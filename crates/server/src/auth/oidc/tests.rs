//! Tokens of a fake issuer that is a real HTTP server: rotated, wrong, forged, down, slow and too large.

use super::config::OidcConfig;
use super::fetch::Issuer;
use super::keys::{KeyFault, Keys};
use super::token::{Claims, Token};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use loopd_domain::Timestamp;
use loopd_domain::identity::{Noun, Scope};
use loopd_domain::limits::{OIDC_FRESH_MS, OIDC_JWKS_BYTES_MAX, OIDC_KEYS_MAX, OIDC_REFETCH_MS, OIDC_STALE_MS};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const NOW_S: i64 = 1_790_000_000;

fn at_ms(ms: u64) -> Timestamp {
    Timestamp::from_millis(NOW_S * 1_000).plus_ms(ms)
}

/// A key that an issuer signs with.
struct Signer {
    id: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
    jwk: Value,
}

impl Signer {
    fn new(id: &'static str, algorithm: Algorithm) -> Self {
        let key = match algorithm {
            Algorithm::RS256 => {
                let pair = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).expect("a key");
                // What a JWT signer wants is the RSA key inside of PKCS #8.
                EncodingKey::from_rsa_der(&pkcs1(
                    AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).expect("DER").as_ref(),
                ))
            }
            Algorithm::ES256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
                EncodingKey::from_ec_der(pair.to_pkcs8v1().expect("DER").as_ref())
            }
            Algorithm::EdDSA => {
                let pair = Ed25519KeyPair::generate().expect("a key");
                EncodingKey::from_ed_der(pair.to_pkcs8v1().expect("DER").as_ref())
            }
            other => panic!("no key for {other:?}"),
        };
        let mut jwk =
            serde_json::to_value(Jwk::from_encoding_key(&key, algorithm).expect("a public half")).expect("JSON");
        jwk["kid"] = id.into();
        Signer { id, algorithm, key, jwk }
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.to_owned()), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.key).expect("signed")
    }
}

/// The last octet string of a PKCS #8 structure runs to its end.
fn pkcs1(pkcs8: &[u8]) -> Vec<u8> {
    let inner = pkcs8.windows(2).enumerate().skip(4).find(|(_, w)| w == &[0x04, 0x82]).expect("an octet string").0;
    pkcs8[inner + 4..].to_vec()
}

#[derive(Default)]
struct Mood {
    keys: Vec<Value>,
    discovery: Option<Value>,
    down: bool,
    slow: bool,
    asked: usize,
}

struct FakeIssuer {
    url: String,
    mood: Arc<Mutex<Mood>>,
}

impl FakeIssuer {
    async fn start(keys: Vec<Value>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let mood = Arc::new(Mutex::new(Mood { keys, ..Mood::default() }));
        let own = url.clone();
        let discovery = move |State(mood): State<Arc<Mutex<Mood>>>| async move {
            let own = json!({"issuer": own, "jwks_uri": format!("{own}/keys")});
            answer(&mood, |mood| mood.discovery.clone().unwrap_or(own)).await
        };
        let keys = |State(mood): State<Arc<Mutex<Mood>>>| async move {
            mood.lock().asked += 1;
            answer(&mood, |mood| json!({"keys": mood.keys})).await
        };
        let router = Router::new().route("/.well-known/openid-configuration", get(discovery)).route("/keys", get(keys));
        let router = router.with_state(mood.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        FakeIssuer { url, mood }
    }

    fn config(&self) -> OidcConfig {
        let (team, none) = (Some("team".to_owned()), BTreeMap::new());
        OidcConfig::new(self.url.clone(), vec!["loopd".to_owned()], team, None, &none).expect("a configuration")
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::new(Keys::new(Issuer::new(&self.url).expect("a client")))
    }

    fn claims(&self) -> Value {
        json!({"iss": self.url, "aud": "loopd", "sub": "ada", "exp": NOW_S + 300, "team": "a", "scope": "agents:read mail:send"})
    }

    fn asked(&self) -> usize {
        self.mood.lock().asked
    }
}

async fn answer(mood: &Mutex<Mood>, body: impl FnOnce(&Mood) -> Value) -> Result<String, StatusCode> {
    let (down, slow) = {
        let mood = mood.lock();
        (mood.down, mood.slow)
    };
    if slow {
        std::future::pending::<()>().await;
    }
    match down {
        true => Err(StatusCode::BAD_GATEWAY),
        false => Ok(body(&mood.lock()).to_string()),
    }
}

#[derive(Debug)]
enum Refusal {
    Token(String),
    Key(KeyFault),
}

async fn check(issuer: &FakeIssuer, keys: &Arc<Keys>, text: &str, now: Timestamp) -> Result<Claims, Refusal> {
    let token = Token::parse(text).map_err(Refusal::Token)?;
    let key = keys.find(token.key_id(), token.algorithm(), now).await.map_err(Refusal::Key)?;
    token.verify(&key, &issuer.config(), now).map_err(Refusal::Token)
}

fn told(outcome: Result<Claims, Refusal>) -> String {
    match outcome {
        Err(Refusal::Token(told)) => told,
        other => panic!("not refused for what it says: {other:?}"),
    }
}

#[tokio::test]
async fn tokens_of_each_algorithm_are_taken() {
    let signers =
        [("r", Algorithm::RS256), ("e", Algorithm::ES256), ("d", Algorithm::EdDSA)].map(|(id, a)| Signer::new(id, a));
    let issuer = FakeIssuer::start(signers.iter().map(|s| s.jwk.clone()).collect()).await;
    let keys = issuer.keys();
    for signer in &signers {
        let claims = check(&issuer, &keys, &signer.sign(&issuer.claims()), at_ms(0)).await.expect("taken");
        assert_eq!((claims.subject.as_str(), claims.text("team")), ("ada", Some("a")));
        let scopes = claims.scopes(&issuer.config());
        assert!(scopes.allows(Scope::read(Noun::Agents)) && !scopes.allows(Scope::read(Noun::Sessions)));
    }
    assert_eq!(issuer.asked(), 1, "the keys are kept");
}

#[tokio::test]
async fn what_a_token_says_is_checked() {
    let signer = Signer::new("d", Algorithm::EdDSA);
    let issuer = FakeIssuer::start(vec![signer.jwk.clone()]).await;
    let keys = issuer.keys();
    let changes = [
        (json!({"iss": "https://other.example"}), "issuer"),
        (json!({"iss": null}), "issuer"),
        (json!({"aud": "mail"}), "somebody else"),
        (json!({"aud": ["mail", "loop"]}), "somebody else"),
        (json!({"aud": null}), "somebody else"),
        (json!({"exp": NOW_S - 61}), "expired"),
        (json!({"exp": null}), "`exp`"),
        (json!({"exp": "never"}), "`exp`"),
        (json!({"nbf": NOW_S + 61}), "not valid yet"),
        (json!({"nbf": "now"}), "`nbf`"),
        (json!({"sub": ""}), "nobody"),
        (json!({"sub": "x".repeat(256)}), "nobody"),
    ];
    for (change, reason) in changes {
        let mut claims = issuer.claims();
        for (name, value) in change.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        let told = told(check(&issuer, &keys, &signer.sign(&claims), at_ms(0)).await);
        assert!(told.contains(reason), "{change}: {told}");
    }
    for fine in [
        json!({"exp": NOW_S - 59}),
        json!({"nbf": NOW_S + 59}),
        json!({"aud": ["mail", "loopd"]}),
        json!({"exp": 1_790_000_300.5}),
    ] {
        let mut claims = issuer.claims();
        claims.as_object_mut().expect("an object").extend(fine.as_object().expect("an object").clone());
        check(&issuer, &keys, &signer.sign(&claims), at_ms(0)).await.unwrap_or_else(|e| panic!("{fine}: {e:?}"));
    }
}

/// A token cannot say how it is to be checked.
#[tokio::test]
async fn no_token_chooses_a_weaker_check() {
    let signer = Signer::new("r", Algorithm::RS256);
    let issuer = FakeIssuer::start(vec![signer.jwk.clone()]).await;
    let keys = issuer.keys();
    let good = signer.sign(&issuer.claims());
    let parts: Vec<&str> = good.split('.').collect();
    let b64 = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    for alg in ["none", "None", "NONE", ""] {
        for signature in ["", parts[2]] {
            let forged = format!("{}.{}.{signature}", b64(json!({"alg": alg, "kid": "r"})), parts[1]);
            assert!(told(check(&issuer, &keys, &forged, at_ms(0)).await).contains("header"), "{alg}");
        }
    }
    // The public key, which everybody has, as a shared secret.
    let public = serde_json::to_vec(&signer.jwk).expect("JSON");
    for alg in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let header = Header { kid: Some("r".to_owned()), ..Header::new(alg) };
        let forged = encode(&header, &issuer.claims(), &EncodingKey::from_secret(&public)).expect("signed");
        assert!(told(check(&issuer, &keys, &forged, at_ms(0)).await).contains("accepted: RS256"), "{alg:?}");
    }
    // A key of the token's own, another algorithm under a known name, and a signature of another token.
    let own = Signer::new("r", Algorithm::EdDSA);
    let mut header = Header { kid: Some("r".to_owned()), ..Header::new(Algorithm::EdDSA) };
    header.jwk = serde_json::from_value(own.jwk.clone()).ok();
    let forged = encode(&header, &issuer.claims(), &own.key).expect("signed");
    assert!(matches!(check(&issuer, &keys, &forged, at_ms(0)).await, Err(Refusal::Key(KeyFault::Unknown))));
    let other = Signer::new("r", Algorithm::RS256).sign(&issuer.claims());
    assert!(told(check(&issuer, &keys, &other, at_ms(0)).await).contains("signature"));
    let mut claims = issuer.claims();
    claims["sub"] = "root".into();
    let changed = format!("{}.{}.{}", parts[0], b64(claims), parts[2]);
    assert!(told(check(&issuer, &keys, &changed, at_ms(0)).await).contains("signature"));
    let critical = format!(
        "{}.{}.{}",
        b64(json!({"alg": "RS256", "kid": "r", "crit": ["b64"], "b64": false})),
        parts[1],
        parts[2]
    );
    assert!(told(check(&issuer, &keys, &critical, at_ms(0)).await).contains("crit"));
    for broken in ["", "a", "..", "a.b.c", "eyJ.eyJ.eyJ", &good[..good.len() / 2]] {
        assert!(check(&issuer, &keys, broken, at_ms(0)).await.is_err(), "{broken}");
    }
}

#[tokio::test]
async fn keys_that_are_not_for_this_are_not_used() {
    let signer = Signer::new("d", Algorithm::EdDSA);
    for (name, value) in [("use", "enc"), ("alg", "RS256"), ("kty", "oct")] {
        let mut jwk = signer.jwk.clone();
        jwk[name] = value.into();
        let issuer = FakeIssuer::start(vec![jwk, json!({"kty": "oct", "k": "c2VjcmV0", "kid": "d"}), json!(7)]).await;
        let outcome = check(&issuer, &issuer.keys(), &signer.sign(&issuer.claims()), at_ms(0)).await;
        assert!(matches!(outcome, Err(Refusal::Key(KeyFault::Unknown))), "{name}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_rotated_key_is_found_and_strangers_do_not_make_us_ask_again_and_again() {
    let (old, new) = (Signer::new("old", Algorithm::EdDSA), Signer::new("new", Algorithm::EdDSA));
    let issuer = FakeIssuer::start(vec![old.jwk.clone()]).await;
    let keys = issuer.keys();
    check(&issuer, &keys, &old.sign(&issuer.claims()), at_ms(0)).await.expect("the first key");
    issuer.mood.lock().keys = vec![new.jwk.clone()];
    // Just asked: not again yet.
    for _ in 0..50 {
        let early = check(&issuer, &keys, &new.sign(&issuer.claims()), at_ms(1)).await;
        assert!(matches!(early, Err(Refusal::Key(KeyFault::Unknown))), "{early:?}");
    }
    assert_eq!(issuer.asked(), 1);
    check(&issuer, &keys, &new.sign(&issuer.claims()), at_ms(OIDC_REFETCH_MS)).await.expect("the rotated key");
    let gone = check(&issuer, &keys, &old.sign(&issuer.claims()), at_ms(OIDC_REFETCH_MS)).await;
    assert!(matches!(gone, Err(Refusal::Key(KeyFault::Unknown))), "a key that was taken out is out: {gone:?}");
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test]
async fn an_issuer_that_is_down_is_503_and_known_keys_go_on_for_a_day() {
    let signer = Signer::new("d", Algorithm::EdDSA);
    let issuer = FakeIssuer::start(vec![signer.jwk.clone()]).await;
    let keys = issuer.keys();
    let mut claims = issuer.claims();
    claims["exp"] = (NOW_S + 1_000_000).into();
    let text = signer.sign(&claims);
    issuer.mood.lock().down = true;
    let down = check(&issuer, &keys, &text, at_ms(0)).await;
    assert!(matches!(&down, Err(Refusal::Key(KeyFault::Unavailable(cause))) if cause.contains("502")), "{down:?}");
    let again = check(&issuer, &keys, &text, at_ms(1)).await;
    assert!(matches!(again, Err(Refusal::Key(KeyFault::Unavailable(_)))));
    issuer.mood.lock().down = false;
    check(&issuer, &keys, &text, at_ms(OIDC_REFETCH_MS)).await.expect("it is back");
    issuer.mood.lock().down = true;
    for age in [OIDC_FRESH_MS, OIDC_STALE_MS - 1] {
        check(&issuer, &keys, &text, at_ms(OIDC_REFETCH_MS + age)).await.expect("a known key");
    }
    let stranger = Signer::new("x", Algorithm::EdDSA).sign(&claims);
    let unknown = check(&issuer, &keys, &stranger, at_ms(OIDC_STALE_MS)).await;
    assert!(matches!(unknown, Err(Refusal::Key(KeyFault::Unavailable(_)))), "nobody can tell: {unknown:?}");
    let stale = check(&issuer, &keys, &text, at_ms(OIDC_REFETCH_MS + OIDC_STALE_MS)).await;
    assert!(matches!(stale, Err(Refusal::Key(KeyFault::Unavailable(_)))), "{stale:?}");
}

#[tokio::test]
async fn documents_that_are_too_large_or_not_the_issuers_are_refused() {
    let signer = Signer::new("d", Algorithm::EdDSA);
    let issuer = FakeIssuer::start(Vec::new()).await;
    let text = signer.sign(&issuer.claims());
    let cause = async || match check(&issuer, &issuer.keys(), &text, at_ms(0)).await {
        Err(Refusal::Key(KeyFault::Unavailable(cause))) => cause,
        other => panic!("{other:?}"),
    };
    issuer.mood.lock().keys = vec![json!({"kty": "oct", "k": "x".repeat(OIDC_JWKS_BYTES_MAX)}), signer.jwk.clone()];
    assert!(cause().await.contains(&format!("more than {OIDC_JWKS_BYTES_MAX} bytes")));
    issuer.mood.lock().keys = vec![signer.jwk.clone(); OIDC_KEYS_MAX + 1];
    assert!(cause().await.contains("65 keys"));
    issuer.mood.lock().discovery =
        Some(json!({"issuer": "https://evil.example", "jwks_uri": format!("{}/keys", issuer.url)}));
    assert!(cause().await.contains("is of issuer `https://evil.example`"));
    issuer.mood.lock().discovery = Some(json!({"issuer": issuer.url, "jwks_uri": "http://10.0.0.1/keys"}));
    assert!(cause().await.contains("`jwks_uri`"));
    issuer.mood.lock().discovery = Some(json!({"keys": []}));
    assert!(cause().await.contains("cannot be read"));
}

/// Whoever is known does not wait for an issuer that does not answer; whoever is not known does, and not for ever.
#[tokio::test]
async fn a_slow_issuer_holds_up_nobody_who_is_known() {
    let signer = Signer::new("d", Algorithm::EdDSA);
    let issuer = FakeIssuer::start(vec![signer.jwk.clone()]).await;
    let keys = issuer.keys();
    let text = signer.sign(&issuer.claims());
    check(&issuer, &keys, &text, at_ms(0)).await.expect("taken");
    issuer.mood.lock().slow = true;
    let stranger = Signer::new("x", Algorithm::EdDSA).sign(&issuer.claims());
    let waiting = check(&issuer, &keys, &stranger, at_ms(OIDC_REFETCH_MS));
    tokio::pin!(waiting);
    let first = tokio::select! {
        _ = &mut waiting => "the stranger",
        known = check(&issuer, &keys, &text, at_ms(OIDC_REFETCH_MS)) => { known.expect("taken"); "the known one" }
    };
    assert_eq!(first, "the known one");
    let outcome = tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it is given up");
    assert!(matches!(outcome, Err(Refusal::Key(KeyFault::Unavailable(_)))), "{outcome:?}");
}

#[test]
fn a_configuration_says_what_words_mean() {
    let map = |pairs: &[(&str, &[&str])]| -> BTreeMap<String, Vec<String>> {
        pairs
            .iter()
            .map(|(word, names)| ((*word).to_owned(), names.iter().map(|n| (*n).to_owned()).collect()))
            .collect()
    };
    let new = |issuer: &str, scopes: &BTreeMap<String, Vec<String>>| {
        OidcConfig::new(issuer.to_owned(), vec!["loopd".to_owned()], None, None, scopes)
    };
    let words = new("https://i.example", &map(&[("admin", &["*", "workspaces:write"]), ("use", &["sessions:write"])]))
        .expect("fine");
    assert!(words.granted(["admin"]).allows(Scope::write(Noun::Workspaces)));
    assert!(words.granted(["use", "mail"]).allows(Scope::read(Noun::Sessions)));
    assert!(words.granted(["agents:write", "*"]).is_empty(), "where words have meanings, no others have any");
    let own = new("https://i.example", &map(&[])).expect("fine");
    assert!(own.granted(["*"]).allows(Scope::write(Noun::Agents)));
    assert!(!own.granted(["*", "workspaces:write"]).allows(Scope::read(Noun::Workspaces)), "that must be said here");
    for bad in [
        "",
        "i.example",
        "http://i.example",
        "http://10.0.0.1",
        "ftp://i",
        "https://u@i.example",
        "https://i.example?x=1",
    ] {
        assert!(new(bad, &map(&[])).is_err(), "{bad}");
    }
    let told = new("https://i.example", &map(&[("w", &["agents:all"])])).expect_err("unknown").to_string();
    assert!(told.contains("oidc.scopes.\"w\"") && told.contains("`agents:all`"), "{told}");
    assert!(OidcConfig::new("https://i.example".to_owned(), Vec::new(), None, None, &map(&[])).is_err());
}
