//! The way out of real rooms: programs that know of no proxy, policies that differ, reasons that are told, and servers that go.

#[path = "../../crates/host-tools/tests/service/mcp.rs"]
mod service;

use loopd_tests::house::{connections, house, house_beside, limited, outcome, results, traced, words};
use loopd_tests::http::{text, tool_results};
use loopd_tests::script::{invocation, runs, says};
use loopd_tests::site::Site;
use loopd_tests::vault::{variable, vault};
use loopd_tests::{Http, has};
use serde_json::{Value, json};
use service::{McpService, tool};

const ALLOWED: &str = "site.test";
const OTHER: &str = "other.test";

/// What the room's shell needs to visit the site: its certificate, and no word of a proxy.
fn prepared(site: &Site, command: &str) -> String {
    let unset = "unset HTTP_PROXY HTTPS_PROXY ALL_PROXY http_proxy https_proxy all_proxy";
    format!("{unset}\ncat > site.pem <<'PEM'\n{}PEM\n{command}", site.certificate)
}

async fn run(http: &Http, environment: Value, command: &str) -> (String, String) {
    let mut body = invocation(vec![runs(command), says("done")]);
    body["environment"] = environment;
    let (session, mut given) = results(http, body).await;
    assert_eq!(given.len(), 1, "{given:?}");
    (session, given.remove(0))
}

fn is_there(program: &str) -> bool {
    has(program, &["--version"])
}

#[tokio::test]
async fn programs_that_know_of_no_proxy_reach_what_is_allowed() {
    let (site, server) = house(&[ALLOWED, OTHER]).await;
    let (http, port) = (server.http(), site.port());
    let mut programs = Vec::new();
    if is_there("curl") {
        programs.push(format!("curl -sS --noproxy '*' --cacert site.pem https://{ALLOWED}:{port}/hello 2>&1"));
    }
    if is_there("python3") {
        programs.push(format!(
            "python3 -c \"import ssl, urllib.request as u; o = u.build_opener(u.ProxyHandler({{}}), \
             u.HTTPSHandler(context=ssl.create_default_context(cafile='site.pem'))); \
             print(o.open('https://{ALLOWED}:{port}/hello').read().decode(), end='')\" 2>&1"
        ));
    }
    if is_there("node") {
        programs.push(format!(
            "NODE_EXTRA_CA_CERTS=site.pem node -e \"fetch('https://{ALLOWED}:{port}/hello').then(r => r.text())\
             .then(t => process.stdout.write(t), e => console.log(e.cause || e))\" 2>&1"
        ));
    }
    for program in programs {
        let (session, said) = run(&http, limited(&site, &[ALLOWED]), &prepared(&site, &program)).await;
        assert_eq!(said, format!("hello from {ALLOWED}:{port}\n"), "{program}");
        let told = connections(&http, &session, 1).await;
        assert_eq!((&told[0]["host"], &told[0]["port"]), (&json!(ALLOWED), &json!(port)));
        assert_eq!(told[0]["outcome"], json!({"type": "done"}), "{}", told[0]);
        assert!(told[0]["bytes_in"].as_u64() > Some(100), "{}", told[0]);
    }
}

#[tokio::test]
async fn who_is_refused_is_told_why_by_the_program_and_in_the_trace() {
    if !is_there("curl") {
        return;
    }
    let (site, server) = house(&[ALLOWED, OTHER]).await;
    let (http, port) = (server.http(), site.port());
    let command = prepared(&site, &format!("curl -sS --noproxy '*' https://{OTHER}:{port}/hello 2>&1"));
    let (session, said) = run(&http, limited(&site, &[ALLOWED]), &command).await;
    assert!(said.contains(OTHER) && said.contains("allowed_hosts"), "{said}");
    let told = connections(&http, &session, 1).await;
    assert_eq!(told[0]["outcome"]["type"], "refused");
    let reason = told[0]["outcome"]["reason"].as_str().expect("a reason").to_owned();
    assert!(said.contains(&reason), "{said}: {reason}");
    let shown = traced(&server, &session).await;
    assert!(shown.contains(&format!("connect {OTHER}:{port}  error refused")), "{shown}");
    assert!(words(&shown).contains(&words(&reason)), "{shown}");
}

#[tokio::test]
async fn two_sessions_have_two_policies() {
    if !is_there("curl") {
        return;
    }
    let (site, server) = house(&[ALLOWED, OTHER]).await;
    let (http, port) = (server.http(), site.port());
    let visit = |host: &str| {
        format!("curl -s --noproxy '*' --cacert site.pem https://{host}:{port}/hello || echo none from {host}")
    };
    let command = prepared(&site, &format!("{}\n{}", visit(ALLOWED), visit(OTHER)));
    let (here, there) =
        tokio::join!(run(&http, limited(&site, &[ALLOWED]), &command), run(&http, limited(&site, &[OTHER]), &command),);
    let (mine, other) = (format!("hello from {ALLOWED}:{port}\n"), format!("hello from {OTHER}:{port}\n"));
    assert!(here.1.contains(&mine) && !here.1.contains(&other), "{}", here.1);
    assert!(there.1.contains(&other) && !there.1.contains(&mine), "{}", there.1);
}

#[tokio::test]
async fn a_room_without_networking_resolves_nothing_and_says_so_at_once() {
    if !is_there("curl") {
        return;
    }
    let (site, server) = house(&[ALLOWED, OTHER]).await;
    let http = server.http();
    let command = prepared(&site, &format!("curl -sS --noproxy '*' https://{ALLOWED}:{}/hello 2>&1", site.port()));
    let (session, said) = run(&http, json!({"networking": {"type": "none"}}), &command).await;
    assert!(said.contains("Could not resolve host"), "{said}");
    assert!(http.events(&session).await.iter().all(|e| e["type"] != "loopd.network_connection"));
}

#[tokio::test]
async fn addresses_that_are_not_public_are_refused_with_the_reason() {
    if !is_there("curl") {
        return;
    }
    let (site, server) = house(&[ALLOWED, OTHER]).await;
    let http = server.http();
    // By number there is no route; the proxy is asked.
    let command = "for to in 169.254.169.254 10.0.0.1 127.9.9.9; do curl -sS -m 20 http://$to/ 2>&1; echo; done";
    let (session, said) = run(&http, json!({"networking": {"type": "unrestricted"}}), command).await;
    let told = connections(&http, &session, 3).await;
    for (connection, host) in told.iter().zip(["169.254.169.254", "10.0.0.1", "127.9.9.9"]) {
        assert_eq!((&connection["host"], &connection["outcome"]["type"]), (&json!(host), &json!("refused")));
        assert!(said.contains(connection["outcome"]["reason"].as_str().expect("a reason")), "{said}");
    }
    assert_eq!(site.slow(), 0);
}

#[tokio::test]
async fn a_download_is_cut_by_a_server_that_goes_and_the_next_connection_works() {
    if !is_there("curl") {
        return;
    }
    let (site, mut server) = house(&[ALLOWED, OTHER]).await;
    let port = site.port();
    let visit = format!("curl -s --noproxy '*' --cacert site.pem https://{ALLOWED}:{port}");
    let command = format!(
        "{visit}/slow > download\necho cut: $?\nfor i in $(seq 100); do {visit}/hello && break; sleep 0.2; done"
    );
    let mut body = invocation(vec![runs(&prepared(&site, &command)), says("done")]);
    body["environment"] = limited(&site, &[ALLOWED]);
    body["background"] = json!(true);
    let accepted = server.http().post("/v1/invoke", body).await.ok();
    let session = accepted["session_id"].as_str().expect("a session").to_owned();
    site.until_slow(1).await;
    server.kill();
    server.start_again();
    let http = server.http();
    http.until_idle(&session).await;
    let events = http.events(&session).await;
    let results = tool_results(&events);
    let said = text(&results[0]["content"]);
    assert!(said.contains("cut: ") && !said.contains("cut: 0"), "{said}");
    assert!(said.contains(&format!("hello from {ALLOWED}:{port}\n")), "{said}");
    let told = connections(&http, &session, 1).await;
    assert_eq!(told[0]["outcome"], json!({"type": "done"}), "of the server that came: {}", told[0]);
}

#[tokio::test]
async fn a_secret_goes_to_the_host_that_it_is_for_and_nowhere_else() {
    if !is_there("curl") {
        return;
    }
    const SECRET: &str = "s3cret-of-the-site-0123456789";
    let (site, server) = house(&[ALLOWED, OTHER]).await;
    let (http, port) = (server.http(), site.port());
    let (vault, _) = vault(&http, &[variable("SITE_TOKEN", SECRET, &[ALLOWED])]).await;
    // To its host, where it is repeated; to another one through a blind tunnel, and in the clear; and as the room has it.
    let header = "-H \"authorization: Bearer $SITE_TOKEN\"";
    let command = format!(
        "curl -sS {header} https://{ALLOWED}:{port}/echo 2>&1\ncurl -sSk {header} https://{OTHER}:{port}/hello 2>&1\n\
         curl -sS {header} http://{OTHER}:{port}/echo 2>&1\necho; env | grep SITE_TOKEN"
    );
    let mut body = invocation(vec![runs(&command), says("done")]);
    body["environment"] = limited(&site, &[ALLOWED, OTHER]);
    body["vaults"] = json!([vault]);
    let answer = http.invoke(body).await;
    let session = answer["session_id"].as_str().expect("a session").to_owned();
    let told = connections(&http, &session, 3).await;
    let events = http.events(&session).await;
    let said = text(&tool_results(&events)[0]["content"]);
    let placeholder = said.lines().find_map(|line| line.strip_prefix("SITE_TOKEN=")).expect("it is set").to_owned();
    let heads = site.heads();
    assert_eq!(heads.len(), 2, "{heads:?}\n{said}");
    assert!(heads[0].contains(&format!("Bearer {SECRET}")), "{heads:?}");
    assert!(heads[1].contains(&format!("Bearer {placeholder}")), "{heads:?}");
    assert!(!json!(events).to_string().contains(SECRET), "{said}");
    assert!(said.contains(&format!("Bearer {placeholder}")), "what came back has the placeholder: {said}");
    assert_eq!(told[0]["credentials"].as_array().map(Vec::len), Some(1), "{}", told[0]);
    assert_eq!((&told[1]["host"], &told[1]["outcome"]["type"]), (&json!(OTHER), &json!("done")), "{}", told[1]);
    assert_eq!((&told[2]["host"], &told[2]["outcome"]["type"]), (&json!(OTHER), &json!("violation")), "{}", told[2]);
    assert!(said.contains(told[2]["outcome"]["reason"].as_str().expect("a reason")), "{said}");
}

/// What each of these hosts says to a program that trusts the site, and the proxy where that has something to say.
fn visits(site: &Site, hosts: &[&str]) -> String {
    let port = site.port();
    let visit = |host: &&str| format!("curl -sS --noproxy '*' --cacert all.pem https://{host}:{port}/hello 2>&1");
    let visits: Vec<String> = hosts.iter().map(visit).collect();
    prepared(site, &format!("cat \"$CURL_CA_BUNDLE\" site.pem > all.pem\n{}", visits.join("\n")))
}

#[tokio::test]
async fn a_wildcard_is_what_lies_below_its_name_and_nothing_else() {
    if !is_there("curl") {
        return;
    }
    let (below, others) = (["a.site.test", "b.a.site.test"], [ALLOWED, "notsite.test", OTHER]);
    let all = [&below[..], &others[..]].concat();
    let (site, server) = house(&all).await;
    let (http, port) = (server.http(), site.port());
    let (session, said) = run(&http, limited(&site, &["*.site.test"]), &visits(&site, &all)).await;
    let told = connections(&http, &session, all.len()).await;
    for host in below {
        assert!(said.contains(&format!("hello from {host}:{port}\n")), "{said}");
        assert_eq!(outcome(&told, host)["type"], "done", "{told:?}");
    }
    for host in others {
        let reason = format!("host `{host}` is not in the environment's allowed_hosts; accepted: `*.site.test`");
        assert!(said.contains(&reason), "{said}");
        assert_eq!(*outcome(&told, host), json!({"type": "refused", "reason": reason}));
    }
    assert_eq!(site.heads().len(), below.len(), "{:?}", site.heads());
}

/// The agent has an MCP server, and the room asks it by itself.
async fn ask_mcp(http: &Http, service: &McpService, networking: Value, other: &str) -> (String, String) {
    // Programs go to loopback by themselves, unless they are told otherwise: the proxy is to be asked.
    let command = format!(
        "unset NO_PROXY no_proxy\ncurl -sS -H 'accept: application/json' {} \
         -d '{{\"jsonrpc\": \"2.0\", \"id\": 1, \"method\": \"initialize\"}}' 2>&1\ncurl -sS {other} 2>&1",
        service.url
    );
    let mut body = invocation(vec![runs(&command), says("done")]);
    body["environment"] = json!({"networking": networking});
    body["tools"] = json!([{"type": "agent_toolset_20260401"}, {"type": "mcp_toolset", "mcp_server_name": "shop"}]);
    body["mcp_servers"] = json!([{"type": "url", "name": "shop", "url": service.url}]);
    let (session, given) = results(http, body).await;
    (session, given.concat())
}

#[tokio::test]
async fn hosts_of_mcp_servers_are_reached_where_the_environment_says_so_and_no_other() {
    if !is_there("curl") {
        return;
    }
    let service = McpService::start(vec![tool("find", json!({}))]).await;
    let address = service.url.trim_start_matches("http://").trim_end_matches("/mcp");
    let (host, port) = address.split_once(':').expect("an address");
    let (site, server) = house_beside(&[ALLOWED], Some(address)).await;
    let http = server.http();
    let ports = [443, site.port(), port.parse().expect("a port")];
    let other = format!("https://{ALLOWED}:{}/hello", site.port());
    for allows in [true, false] {
        let networking = json!({"type": "limited", "allow_mcp_servers": allows, "ports": ports});
        let (session, said) = ask_mcp(&http, &service, networking, &other).await;
        let told = connections(&http, &session, 2).await;
        assert_eq!(said.contains("\"serverInfo\""), allows, "{said}");
        assert_eq!(outcome(&told, host)["type"], if allows { "done" } else { "refused" }, "{told:?}");
        let accepted = if allows { "MCP servers" } else { "none" };
        let reason = format!("host `{ALLOWED}` is not in the environment's allowed_hosts; accepted: {accepted}");
        assert!(said.contains(&reason), "{said}");
        assert_eq!(*outcome(&told, ALLOWED), json!({"type": "refused", "reason": reason}));
    }
    assert!(site.heads().is_empty(), "{:?}", site.heads());
}
