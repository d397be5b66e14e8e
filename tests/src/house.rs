//! A server whose rooms may reach a site of ours, and what became of their connections.

use crate::http::{text, tool_results};
use crate::server::Options;
use crate::site::Site;
use crate::{Http, Server, cli};
use serde_json::{Value, json};

/// A server whose rooms may reach a site on loopback under each of its names. Its authority is known to the server and to no room.
pub async fn house(names: &[&str]) -> (Site, Server) {
    house_beside(names, None).await
}

/// Its rooms may reach this `host:port` as well.
pub async fn house_beside(names: &[&str], other: Option<&str>) -> (Site, Server) {
    let site = Site::start(names).await;
    let port = site.port();
    let addresses = names.iter().map(|name| format!("\"{name}:{port}\""));
    let addresses: Vec<String> = addresses.chain(other.map(|other| format!("\"{other}\""))).collect();
    let hosts: Vec<String> = names.iter().map(|name| format!("\"{name}\" = \"127.0.0.1\"")).collect();
    let config = format!(
        "[network]\nextra_roots = \"roots.pem\"\nallow_addresses = [{}]\nhosts = {{ {} }}\n",
        addresses.join(", "),
        hosts.join(", ")
    );
    let root = tempfile::TempDir::with_prefix("loopd-test-").expect("a directory");
    std::fs::write(root.path().join("roots.pem"), &site.certificate).expect("written");
    (site, Server::on(root, Options::default().config(&config)))
}

/// An environment from which these hosts may be reached, and of ports the site's too.
pub fn limited(site: &Site, hosts: &[&str]) -> Value {
    json!({"networking": {"type": "limited", "allowed_hosts": hosts, "ports": [443, site.port()]}})
}

/// Runs an invocation to its end: its session, and what each of its calls gave.
pub async fn results(http: &Http, body: Value) -> (String, Vec<String>) {
    let answer = http.invoke(body).await;
    let session = answer["session_id"].as_str().expect("a session").to_owned();
    let events = http.events(&session).await;
    let given: Vec<String> = tool_results(&events).iter().map(|result| text(&result["content"])).collect();
    assert!(!given.is_empty(), "{answer}");
    (session, given)
}

/// The connections of a session, once there are so many.
pub async fn connections(http: &Http, session: &str, n: usize) -> Vec<Value> {
    let mut stream = http.follow(session, 0).await;
    let mut seen = Vec::new();
    while seen.len() < n {
        let frame = stream.next().await.expect("the stream stays open");
        if frame.event == "loopd.network_connection" {
            seen.push(frame.data);
        }
    }
    seen
}

/// What became of the connection to a host.
pub fn outcome<'a>(connections: &'a [Value], host: &str) -> &'a Value {
    let mut found = connections.iter().filter(|connection| connection["host"] == host);
    let outcome = &found.next().unwrap_or_else(|| panic!("`{host}` is not among {connections:?}"))["outcome"];
    assert!(found.next().is_none(), "`{host}` is there twice: {connections:?}");
    outcome
}

/// What `loopd trace` shows of a session.
pub async fn traced(server: &Server, session: &str) -> String {
    let (url, directory, session) = (server.url().to_owned(), server.data(), session.to_owned());
    let shown = tokio::task::spawn_blocking(move || {
        cli::run_with(&directory, &[("LOOPD_URL", &url), ("COLUMNS", "400")], &["trace", &session]).ok()
    });
    shown.await.expect("it ends")
}

/// A text without the lines of a tree, wherever it was broken.
pub fn words(text: &str) -> String {
    text.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ")
}
