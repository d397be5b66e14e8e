//! Credentials as callers send them: read, changed, refused, and shown without their secrets.

use super::*;
use loopd_domain::limits::SECRET_BYTES_MAX;
use loopd_domain::vault::{CredentialNetworking, InjectionPlace};
use loopd_domain::{CredentialId, VaultId, WorkspaceId};

fn variable() -> Value {
    json!({"type": "environment_variable", "secret_name": "API_TOKEN", "secret_value": "hunter2hunter2",
        "networking": {"type": "limited", "allowed_hosts": ["API.example.com", "*.h.org", "10.0.0.1"]}})
}

fn with(mut auth: Value, extra: Value) -> Value {
    let map = auth.as_object_mut().expect("an object");
    map.extend(extra.as_object().expect("an object").clone());
    json!({"auth": auth})
}

fn stored(auth: CredentialAuth) -> Stored {
    Stored {
        id: CredentialId::parse("id", "vcrd_1").expect("an id"),
        vault: VaultId::parse("id", "vlt_1").expect("an id"),
        workspace: WorkspaceId::default_workspace(),
        display_name: None,
        auth,
        metadata: Metadata::new(),
        created_at: Timestamp(1),
        updated_at: Timestamp(1),
        archived_at: None,
    }
}

#[test]
fn a_variable_is_read_and_shown_without_its_secret() {
    let new = read_new(json!({"auth": variable(), "display_name": "d"})).expect("valid");
    assert_eq!(new.secret.reveal(), b"hunter2hunter2");
    let wire = serde_json::to_value(write(&stored(new.auth))).expect("serialises");
    let expected = json!({"type": "environment_variable", "secret_name": "API_TOKEN",
        "networking": {"type": "limited", "allowed_hosts": ["api.example.com", "*.h.org", "10.0.0.1"]},
        "injection_location": {"header": true, "body": true}, "aws_signature": null});
    assert_eq!(wire["auth"], expected);
    assert!(!wire.to_string().contains("hunter2"));
}

#[test]
fn places_are_both_one_or_a_signature() {
    let place = |extra: Value| match read_new(with(variable(), extra)).expect("valid").auth {
        CredentialAuth::EnvironmentVariable { place, .. } => place,
        other => panic!("{other:?}"),
    };
    let anywhere = |header, body| InjectionPlace::Anywhere { header, body };
    assert_eq!(place(json!({})), anywhere(true, true));
    assert_eq!(place(json!({"injection_location": {"header": true}})), anywhere(true, false));
    assert_eq!(place(json!({"injection_location": {"body": true, "header": false}})), anywhere(false, true));
    let signed = place(json!({"aws_signature": {"access_key_id": "AKIA0123"}}));
    assert_eq!(signed, InjectionPlace::AwsSignature { access_key_id: "AKIA0123".to_owned() });
}

#[test]
fn refusals_name_the_field_and_no_secret() {
    let bearer =
        |token: Value| json!({"auth": {"type": "static_bearer", "mcp_server_url": "https://h/", "token": token}});
    let cases = [
        (json!({"auth": "hunter2"}), "auth.type"),
        (json!({}), "auth"),
        (json!({"auth": variable(), "token": "hunter2"}), "token"),
        (json!({"secret_value": "hunter2", "auth": {}}), "secret_value"),
        (with(variable(), json!({"secret_valeu": "hunter2"})), "auth.secret_valeu"),
        (with(variable(), json!({"secret_value": ["hunter2"]})), "auth.secret_value"),
        (with(variable(), json!({"secret_value": {"type": "hunter2"}})), "auth.secret_value"),
        (with(variable(), json!({"secret_value": "hunter2".repeat(SECRET_BYTES_MAX)})), "auth.secret_value"),
        (with(variable(), json!({"secret_value": "hunter2\u{0}"})), "auth.secret_value"),
        (with(variable(), json!({"secret_value": ""})), "auth.secret_value"),
        (with(variable(), json!({"secret_value": null})), "auth.secret_value"),
        (with(variable(), json!({"secret_name": "1A"})), "auth.secret_name"),
        (with(variable(), json!({"secret_name": "A-B"})), "auth.secret_name"),
        (with(variable(), json!({"secret_name": "ld_preload"})), "auth.secret_name"),
        (with(variable(), json!({"secret_name": "PATH"})), "auth.secret_name"),
        (with(variable(), json!({"networking": null})), "auth.networking"),
        (with(variable(), json!({"networking": {"type": "none"}})), "auth.networking.type"),
        (with(variable(), json!({"networking": {"type": "limited"}})), "auth.networking.allowed_hosts"),
        (
            with(variable(), json!({"networking": {"type": "limited", "allowed_hosts": []}})),
            "auth.networking.allowed_hosts",
        ),
        (
            with(variable(), json!({"networking": {"type": "limited", "allowed_hosts": vec!["h"; 17]}})),
            "auth.networking.allowed_hosts",
        ),
        (
            with(variable(), json!({"networking": {"type": "limited", "allowed_hosts": ["h/x"]}})),
            "auth.networking.allowed_hosts[0]",
        ),
        (with(variable(), json!({"injection_location": null})), "auth.injection_location"),
        (with(variable(), json!({"injection_location": {}})), "auth.injection_location"),
        (with(variable(), json!({"injection_location": {"header": false, "body": false}})), "auth.injection_location"),
        (
            with(variable(), json!({"injection_location": {"header": true}, "aws_signature": {"access_key_id": "A"}})),
            "auth.aws_signature",
        ),
        (with(variable(), json!({"aws_signature": {}})), "auth.aws_signature.access_key_id"),
        (json!({"auth": {"type": "mcp_oauth", "access_token": "hunter2"}}), "auth.type"),
        (json!({"auth": {"type": "hunter"}}), "auth.type"),
        (bearer(json!("hunter2 with spaces")), "auth.token"),
        (bearer(json!("hunter2\r\nx: y")), "auth.token"),
        (bearer(json!(7)), "auth.token"),
        (
            json!({"auth": {"type": "static_bearer", "mcp_server_url": "https://me:hunter2@h/", "token": "t"}}),
            "auth.mcp_server_url",
        ),
    ];
    for (body, field) in cases {
        let fault = read_new(body.clone()).expect_err("refused");
        assert_eq!(fault.field, field, "{body:.200}");
        assert!(!fault.to_string().contains("hunter2"), "{fault}");
    }
    let told = read_new(json!({"auth": {"type": "mcp_oauth"}})).expect_err("refused").to_string();
    assert!(told.contains("not available in this version"), "{told}");
}

#[test]
fn an_edit_changes_what_it_names() {
    let old = stored(read_new(json!({"auth": variable()})).expect("valid").auth);
    let edit = |body: Value| read_edit(body).and_then(|(edit, secret)| Ok((edit.apply(old.clone())?, secret)));
    let (new, secret) = edit(json!({"display_name": "n", "metadata": {"a": "b"}})).expect("valid");
    assert_eq!((new.display_name.as_deref(), new.metadata.len(), secret.is_none()), (Some("n"), 1, true));
    assert_eq!(new.auth, old.auth);

    let (new, secret) =
        edit(json!({"auth": {"type": "environment_variable", "secret_value": "new-secret"}})).expect("valid");
    assert_eq!(new, old);
    assert_eq!(secret.expect("one").reveal(), b"new-secret");

    let auth = json!({"type": "environment_variable", "secret_value": null, "injection_location": {"body": false},
        "networking": {"type": "unrestricted"}, "secret_name": "API_TOKEN"});
    let (new, secret) = edit(json!({"auth": auth})).expect("valid");
    assert!(secret.is_none());
    let CredentialAuth::EnvironmentVariable { networking, place, .. } = &new.auth else { panic!("{new:?}") };
    assert_eq!(*networking, CredentialNetworking::Unrestricted);
    assert_eq!(*place, InjectionPlace::Anywhere { header: true, body: false });

    for (auth, field) in [
        (json!({"type": "static_bearer", "token": "hunter2"}), "auth.type"),
        (json!({"type": "environment_variable", "secret_name": "OTHER"}), "auth.secret_name"),
        (
            json!({"type": "environment_variable", "injection_location": {"body": false, "header": false}}),
            "auth.injection_location",
        ),
        (json!({"type": "environment_variable", "token": "hunter2"}), "auth.token"),
        (json!({"secret_value": "hunter2"}), "auth.type"),
    ] {
        let fault = edit(json!({"auth": auth})).expect_err("refused");
        assert_eq!(fault.field, field);
        assert!(!fault.to_string().contains("hunter2"), "{fault}");
    }
}

#[test]
fn a_bearer_keeps_its_server() {
    let auth = json!({"type": "static_bearer", "mcp_server_url": "https://H/x/", "token": "tok"});
    let new = read_new(json!({"auth": auth})).expect("valid");
    assert_eq!(new.auth.key(), "mcp:https://h/x");
    let old = stored(new.auth);
    let edit = |auth: Value| {
        read_edit(json!({"auth": auth})).and_then(|(edit, secret)| Ok((edit.apply(old.clone())?, secret)))
    };
    let (new, secret) = edit(json!({"type": "static_bearer", "token": "other"})).expect("valid");
    assert_eq!((new.auth, secret.expect("one").reveal()), (old.auth.clone(), b"other".as_slice()));
    edit(json!({"type": "static_bearer", "mcp_server_url": "https://h:443/x"})).expect("the same server");
    let fault = edit(json!({"type": "static_bearer", "mcp_server_url": "https://h/y"})).expect_err("another");
    assert_eq!(fault.field, "auth.mcp_server_url");
    let fault = edit(json!({"type": "static_bearer", "token": "a b"})).expect_err("no header");
    assert_eq!(fault.field, "auth.token");
}
