//! Vaults over the interface: what a caller may do with them, and that no answer and no file ever has a secret in it.

mod support;

use axum::body::Body;
use axum::http::Request;
use loopd_domain::WorkspaceId;
use loopd_domain::limits::CREDENTIALS_MAX;
use loopd_server::{AuthConfig, OwnKey};
use serde_json::{Value, json};
use support::{House, Reply};

const SECRET: &str = "s3cr3t-0123456789";

async fn house() -> House {
    House::open(AuthConfig::development()).await
}

async fn made(house: &House, path: &str, body: Value) -> Value {
    let reply = house.post(path, &body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json
}

async fn vault(house: &House) -> String {
    let vault = made(house, "/v1/vaults", json!({"display_name": "v"})).await;
    vault["id"].as_str().expect("an id").to_owned()
}

fn variable(name: &str) -> Value {
    json!({"auth": {"type": "environment_variable", "secret_name": name, "secret_value": SECRET, "networking": {"type": "unrestricted"}}})
}

async fn delete(house: &House, path: &str) -> Reply {
    house.send(Request::delete(path).body(Body::empty()).expect("a request")).await
}

fn code(reply: &Reply) -> (u16, &str) {
    (reply.status, reply.json["error"]["details"]["error_code"].as_str().unwrap_or(""))
}

#[tokio::test]
async fn a_vault_is_made_changed_listed_archived_and_deleted() {
    let house = house().await;
    let first = made(&house, "/v1/vaults", json!({"display_name": "one", "metadata": {"a": "1", "b": "2"}})).await;
    assert_eq!((&first["type"], &first["archived_at"]), (&json!("vault"), &Value::Null));
    let path = format!("/v1/vaults/{}", first["id"].as_str().expect("an id"));
    assert_eq!(house.get(&path).await.json, first);
    let changed = made(&house, &path, json!({"display_name": "two", "metadata": {"a": null, "c": "3"}})).await;
    assert_eq!((&changed["display_name"], &changed["metadata"]), (&json!("two"), &json!({"b": "2", "c": "3"})));
    vault(&house).await;
    let page = house.get("/v1/vaults?limit=1").await.json;
    assert_eq!(page["data"].as_array().map(Vec::len), Some(1));
    let next = page["next_page"].as_str().expect("another page");
    assert_eq!(house.get(&format!("/v1/vaults?limit=1&page={next}")).await.json["data"][0], changed);

    let archived = made(&house, &format!("{path}/archive"), json!({})).await;
    assert!(archived["archived_at"].is_string());
    assert_eq!(made(&house, &format!("{path}/archive"), json!({})).await, archived);
    assert_eq!(house.get("/v1/vaults").await.json["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(house.get("/v1/vaults?include_archived=true").await.json["data"].as_array().map(Vec::len), Some(2));
    assert_eq!(code(&house.post(&path, &json!({"display_name": "x"})).await), (400, "vault_archived"));
    let late = house.post(&format!("{path}/credentials"), &variable("A")).await;
    assert_eq!(code(&late), (400, "vault_archived"));
    let gone = delete(&house, &path).await;
    assert_eq!(gone.json, json!({"id": first["id"], "type": "vault_deleted"}));
    assert_eq!(code(&house.get(&path).await), (404, "vault_not_found"));
    assert_eq!(code(&delete(&house, &path).await), (404, "vault_not_found"));
    for bad in [
        json!({}),
        json!({"display_name": ""}),
        json!({"display_name": "x".repeat(256)}),
        json!({"display_name": "x", "name": "y"}),
    ] {
        assert_eq!(house.post("/v1/vaults", &bad).await.status, 400, "{bad:.80}");
    }
}

#[tokio::test]
async fn a_credential_lives_without_its_secret_being_seen() {
    let house = house().await;
    let vault = vault(&house).await;
    let all = format!("/v1/vaults/{vault}/credentials");
    let body = json!({"auth": {"type": "environment_variable", "secret_name": "TOKEN", "secret_value": SECRET,
        "networking": {"type": "limited", "allowed_hosts": ["api.example.com"]}, "injection_location": {"header": true}},
        "display_name": "d"});
    let first = made(&house, &all, body).await;
    assert_eq!((&first["type"], &first["vault_id"]), (&json!("vault_credential"), &json!(vault)));
    assert_eq!(first["auth"]["injection_location"], json!({"header": true, "body": false}));
    let path = format!("{all}/{}", first["id"].as_str().expect("an id"));
    assert_eq!(house.get(&path).await.json, first);
    let auth = json!({"type": "environment_variable", "secret_value": format!("{SECRET}-second"), "injection_location": {"body": true}});
    let changed = made(&house, &path, json!({"auth": auth, "display_name": null})).await;
    assert_eq!(changed["auth"]["injection_location"], json!({"header": true, "body": true}));
    assert_eq!(changed["display_name"], Value::Null);
    assert_eq!(house.get(&all).await.json["data"], json!([changed]));

    let twin = house.post(&all, &variable("TOKEN")).await;
    assert_eq!((twin.status, twin.json["error"]["type"].as_str()), (409, Some("conflict_error")));
    let bearer = json!({"auth": {"type": "static_bearer", "mcp_server_url": "https://h/mcp/", "token": SECRET}});
    let server = made(&house, &all, bearer).await;
    assert_eq!(server["auth"], json!({"type": "static_bearer", "mcp_server_url": "https://h/mcp/"}));
    let twin = json!({"auth": {"type": "static_bearer", "mcp_server_url": "HTTPS://H:443/mcp", "token": SECRET}});
    assert_eq!(house.post(&all, &twin).await.status, 409);

    let archived = made(&house, &format!("{path}/archive"), json!({})).await;
    assert!(archived["archived_at"].is_string());
    let late = house.post(&path, &json!({"display_name": "x"})).await;
    assert_eq!(code(&late), (400, "credential_archived"));
    made(&house, &all, variable("TOKEN")).await;
    assert_eq!(house.get(&all).await.json["data"].as_array().map(Vec::len), Some(2));
    assert_eq!(house.get(&format!("{all}?include_archived=true")).await.json["data"].as_array().map(Vec::len), Some(3));
    let gone = delete(&house, &path).await;
    assert_eq!(gone.json, json!({"id": first["id"], "type": "vault_credential_deleted"}));
    assert_eq!(code(&house.get(&path).await), (404, "credential_not_found"));

    let validate = format!("{all}/{}/mcp_oauth_validate", server["id"].as_str().expect("an id"));
    let told = house.post(&validate, &json!({})).await;
    assert!(told.status == 400 && told.message().contains("not available in this version"), "{told:?}");
    let oauth = json!({"auth": {"type": "mcp_oauth", "mcp_server_url": "https://h/", "access_token": SECRET}});
    let told = house.post(&all, &oauth).await;
    assert!(told.status == 400 && told.message().contains("not available in this version"), "{told:?}");
}

#[tokio::test]
async fn a_vault_is_full_at_its_limit() {
    let house = house().await;
    let all = format!("/v1/vaults/{}/credentials", vault(&house).await);
    for n in 0..CREDENTIALS_MAX {
        made(&house, &all, variable(&format!("N{n}"))).await;
    }
    let more = house.post(&all, &variable("MORE")).await;
    assert!(more.status == 400 && more.message().contains("20 active credentials"), "{more:?}");
}

#[tokio::test]
async fn what_is_of_another_workspace_is_not_there() {
    let workspace = |name: &str| WorkspaceId::parse("id", &format!("wrkspc_{name}")).expect("an id");
    let own_keys = vec![OwnKey::new("ka", workspace("a")), OwnKey::new("kb", workspace("b"))];
    let house = House::open(AuthConfig { own_keys, ..AuthConfig::development() }).await;
    let ask = async |key: &str, method: &str, path: &str, body: Value| {
        let request = Request::builder().method(method).uri(path).header("x-api-key", key);
        let request = request.header("content-type", "application/json");
        house.send(request.body(Body::from(body.to_string())).expect("a request")).await
    };
    let own = ask("ka", "POST", "/v1/vaults", json!({"display_name": "v"})).await.json;
    let vault = format!("/v1/vaults/{}", own["id"].as_str().expect("an id"));
    let all = format!("{vault}/credentials");
    let secret = ask("ka", "POST", &all, variable("A")).await.json;
    let credential = format!("{all}/{}", secret["id"].as_str().expect("an id"));
    let rotation = json!({"auth": {"type": "environment_variable", "secret_value": "x"}});
    for (method, path, body) in [
        ("GET", vault.clone(), json!({})),
        ("POST", vault.clone(), json!({"display_name": "mine"})),
        ("POST", format!("{vault}/archive"), json!({})),
        ("DELETE", vault.clone(), json!({})),
        ("GET", all.clone(), json!({})),
        ("POST", all.clone(), variable("B")),
        ("GET", credential.clone(), json!({})),
        ("POST", credential.clone(), rotation),
        ("POST", format!("{credential}/archive"), json!({})),
        ("POST", format!("{credential}/mcp_oauth_validate"), json!({})),
        ("DELETE", credential.clone(), json!({})),
        ("POST", "/v1/invoke".to_owned(), json!({"input": "hi", "model": "builtin/shell", "vaults": [own["id"]]})),
    ] {
        let reply = ask("kb", method, &path, body).await;
        assert_eq!(code(&reply), (404, "vault_not_found"), "{method} {path}");
    }
    assert_eq!(ask("kb", "GET", "/v1/vaults", json!({})).await.json["data"], json!([]));
    assert_eq!(ask("ka", "GET", &credential, json!({})).await.json, secret, "untouched");
    let neighbour = ask("ka", "POST", "/v1/vaults", json!({"display_name": "n"})).await.json;
    let through = credential.replace(own["id"].as_str().expect("an id"), neighbour["id"].as_str().expect("an id"));
    assert_eq!(code(&ask("ka", "GET", &through, json!({})).await), (404, "credential_not_found"));
}

#[tokio::test]
async fn a_session_names_vaults_that_are_its_callers_and_alive() {
    let house = house().await;
    let (first, second) = (vault(&house).await, vault(&house).await);
    let agent = json!({"name": "a", "model": "builtin/shell"});
    let agent = made(&house, "/v1/agents", agent).await["id"].clone();
    let session = made(&house, "/v1/sessions", json!({"agent": agent, "vault_ids": [second, first]})).await;
    assert_eq!(session["vault_ids"], json!([second, first]));
    let path = format!("/v1/sessions/{}", session["id"].as_str().expect("an id"));
    assert_eq!(house.get(&path).await.json["vault_ids"], json!([second, first]));
    let forked = made(&house, &format!("{path}/fork"), json!({"workspace": false})).await;
    assert_eq!(forked["vault_ids"], json!([second, first]));
    let told = house.post(&path, &json!({"vault_ids": [first]})).await;
    assert!(told.status == 400 && told.message().contains("not available"), "{told:?}");

    made(&house, &format!("/v1/vaults/{second}/archive"), json!({})).await;
    let with = async |ids: Value| house.post("/v1/sessions", &json!({"agent": agent, "vault_ids": ids})).await;
    assert_eq!(code(&with(json!([first, second])).await), (400, "vault_archived"));
    assert_eq!(code(&with(json!(["vlt_0"])).await), (404, "vault_not_found"));
    for bad in [json!([first, first]), json!(["sesn_1"]), json!(first), json!([7]), json!(vec!["vlt_1"; 51])] {
        assert_eq!(with(bad.clone()).await.status, 400, "{bad:.80}");
    }
    assert_eq!(with(json!([])).await.json["vault_ids"], json!([]));
    let told = house.post("/v1/invoke", &json!({"input": "x", "model": "builtin/shell", "vaults": [second]})).await;
    assert_eq!(code(&told), (400, "vault_archived"));
    assert_eq!(house.get(&path).await.json["vault_ids"], json!([second, first]), "what was given is still named");
}

#[tokio::test]
async fn a_repeated_request_puts_one_secret_in_and_leaves_no_trace_to_try_secrets_on() {
    let house = house().await;
    let vault = vault(&house).await;
    let all = format!("/v1/vaults/{vault}/credentials");
    let key = [("idempotency-key", "k1")];
    let first = house.post_with(&all, &variable("A"), &key).await;
    let again = house.post_with(&all, &variable("A"), &key).await;
    assert_eq!((first.status, &first.json), (200, &again.json));
    let mut other = variable("A");
    other["auth"]["secret_value"] = json!("another-secret");
    assert_eq!(house.post_with(&all, &other, &key).await.status, 409);

    // What the record would be if it were the digest of the request alone.
    use sha2::{Digest, Sha256};
    let mut digest = Sha256::new();
    for part in ["POST", all.as_str()] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part.as_bytes());
    }
    digest.update(variable("A").to_string().as_bytes());
    let digest = loopd_domain::chain::hex(&digest.finalize());
    for file in std::fs::read_dir(house.directory.path()).expect("listed").map(|f| f.expect("a file").path()) {
        let Ok(bytes) = std::fs::read(&file) else { continue };
        for needle in [SECRET, "another-secret", digest.as_str()] {
            assert!(!bytes.windows(needle.len()).any(|w| w == needle.as_bytes()), "{} has {needle}", file.display());
        }
    }
}

#[tokio::test]
async fn no_answer_repeats_a_secret() {
    let house = house().await;
    let vault = vault(&house).await;
    let all = format!("/v1/vaults/{vault}/credentials");
    let own = made(&house, &all, variable("A")).await;
    let path = format!("{all}/{}", own["id"].as_str().expect("an id"));
    let auth = |extra: Value| {
        let mut body = variable("B");
        body["auth"].as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        body
    };
    for body in [
        variable("A"),
        auth(json!({"secret_name": "1"})),
        auth(json!({"secret_valeu": SECRET})),
        auth(json!({"networking": SECRET.len()})),
        json!({"secret_value": SECRET}),
        json!({"auth": SECRET}),
        json!(SECRET),
        json!({"auth": {"type": "static_bearer", "token": SECRET}}),
        json!({"auth": {"type": "static_bearer", "token": format!("{SECRET} {SECRET}"), "mcp_server_url": "https://h/"}}),
    ] {
        for path in [&all, &path] {
            let reply = house.post(path, &body).await;
            assert!(!reply.json.to_string().contains(SECRET), "{reply:?}");
        }
    }
    for path in [all.clone(), path.clone(), "/v1/vaults".to_owned()] {
        assert!(!house.get(&path).await.json.to_string().contains(SECRET));
    }
}
