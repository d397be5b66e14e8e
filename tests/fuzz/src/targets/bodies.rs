//! Bodies of requests: strict JSON, then every reader of the wire.

use loopd_domain::SessionId;
use loopd_server::fuzzing;

pub fn target(data: &[u8]) {
    let Ok(body) = fuzzing::json(data) else { return };
    let text = body.to_string();
    assert_eq!(fuzzing::json(text.as_bytes()).as_ref(), Ok(&body), "it is not read as it is written");
    // Whoever reads the same bytes leniently must see the same document.
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(data).ok().as_ref(),
        Some(&body),
        "another reader sees another"
    );
    let session = SessionId::parse("session", "sesn_01").expect("an id");
    fuzzing::check(&body, &session);
}
