//! Programs as they come, in a room that has a placeholder for a token: they reach a site that wants the token itself, trust it
//! without being told to, and the room never has what it showed. And what is on record of that.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use loopd_tests::house::{connections, house, limited, outcome, results, traced, words};
use loopd_tests::index::{NPM, PIP};
use loopd_tests::script::{invocation, runs, says};
use loopd_tests::site::{Shelf, Site};
use loopd_tests::vault::{holders, variable, vault};
use loopd_tests::{Http, has};
use serde_json::{Value, json};

const SITE: &str = "site.test";
const OTHER: &str = "other.test";
const SECRET: &str = "s3cret-of-the-site-0123456789";
const OTHER_SECRET: &str = "s3cret-of-the-other-987654321";

/// A repository as any server of files can give it away.
const GIT: &str = r#"
git init -q work
echo 'hello from a repository' > work/greeting
git -C work add greeting
git -C work -c user.name=a -c user.email=a@b.test commit -q -m begun
git clone -q --bare work r.git
git -C r.git update-server-info
rm -rf work
"#;

const REQUESTS: &str = r#"
import os, sys
try:
    import requests
except ImportError:
    from pip._vendor import requests
answer = requests.get(sys.argv[1], headers={"authorization": "Bearer " + os.environ["SITE_TOKEN"]})
answer.raise_for_status()
print(answer.text)
"#;

const FETCH: &str = r#"
fetch(process.argv[1], { headers: { authorization: "Bearer " + process.env.SITE_TOKEN } })
  .then(answer => answer.text())
  .then(text => process.stdout.write(text), fault => console.log(fault.cause || fault))
"#;

/// A program that a room runs.
struct Program {
    /// What it asks for lies below this path.
    below: &'static str,
    command: String,
    /// What the site must be shown.
    shows: String,
    /// Something that it prints when all went well.
    prints: &'static str,
}

fn bearer() -> String {
    format!("Bearer {SECRET}")
}

fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{SECRET}")))
}

fn git(site: &Site) -> Program {
    let shows = basic("x-token");
    site.put(Shelf::made("/git/", &shows, "sh", &["-ec", GIT]));
    let address = format!("https://x-token:$SITE_TOKEN@{SITE}:{}/git/r.git", site.port());
    let command = format!("git clone -q \"{address}\" cloned && cat cloned/greeting");
    Program { below: "/git/", command, shows, prints: "hello from a repository" }
}

fn pip(site: &Site) -> Program {
    let shows = basic("u");
    site.put(Shelf::made("/pip/", &shows, "/usr/bin/python3", &["-c", PIP]));
    let index = format!("https://u:$SITE_TOKEN@{SITE}:{}/pip/simple/", site.port());
    let command = format!(
        "/usr/bin/python3 -m pip install -q --no-deps --disable-pip-version-check --no-cache-dir --root-user-action=ignore \
         --target installed --index-url \"{index}\" greeting-of-a-test && \
         PYTHONPATH=installed /usr/bin/python3 -c 'import greeting_of_a_test as g; print(g.WORD)'"
    );
    Program { below: "/pip/", command, shows, prints: "hello from a package" }
}

fn npm(site: &Site) -> Program {
    let at = format!("{SITE}:{}/npm/", site.port());
    let address = format!("https://{SITE}:{}/npm", site.port());
    site.put(Shelf::made("/npm/", &bearer(), "/usr/bin/python3", &["-c", NPM, &address]));
    let command = format!(
        "mkdir project && cd project && echo '{{}}' > package.json && \
         printf '%s\\n' 'registry=https://{at}' '//{at}:_authToken=${{SITE_TOKEN}}' > .npmrc && \
         npm install --no-audit --no-fund --no-update-notifier greeting-of-a-test && node_modules/.bin/greet"
    );
    Program { below: "/npm/", command, shows: bearer(), prints: "hello from npm" }
}

/// A program that asks to have its own request repeated: what comes back has the placeholder again.
fn echoed(below: &'static str, command: String) -> Program {
    Program { below, command, shows: bearer(), prints: "Bearer $SITE_TOKEN" }
}

fn curl(site: &Site) -> Program {
    let address = format!("https://{SITE}:{}/curl", site.port());
    echoed("/curl", format!("curl -sS --fail -H \"authorization: Bearer $SITE_TOKEN\" {address}"))
}

fn requests(site: &Site) -> Program {
    let address = format!("https://{SITE}:{}/requests", site.port());
    echoed("/requests", format!("/usr/bin/python3 -c '{REQUESTS}' {address}"))
}

fn fetch(site: &Site) -> Program {
    let address = format!("https://{SITE}:{}/fetch", site.port());
    echoed("/fetch", format!("node -e '{FETCH}' {address}"))
}

/// All that can be started here.
fn programs(site: &Site) -> Vec<Program> {
    let python = has("/usr/bin/python3", &["-m", "pip", "--version"]);
    let node = has("node", &["--version"]);
    let made = [
        has("git", &["--version"]).then(|| git(site)),
        python.then(|| pip(site)),
        (has("npm", &["--version"]) && node && python).then(|| npm(site)),
        has("curl", &["--version"]).then(|| curl(site)),
        python.then(|| requests(site)),
        node.then(|| fetch(site)),
    ];
    made.into_iter().flatten().collect()
}

/// Its output as the room has it stays in a file of the room: what the journal has was searched for secrets on its way.
fn kept(n: usize, program: &Program) -> Value {
    runs(&format!("(\n{}\n) > said-{n} 2>&1; echo ended $?; cat said-{n}", program.command))
}

#[tokio::test]
async fn programs_with_a_placeholder_reach_a_site_that_wants_the_secret() {
    let (site, server) = house(&[SITE]).await;
    let http = server.http();
    let (vault, _) = vault(&http, &[variable("SITE_TOKEN", SECRET, &[SITE])]).await;
    let programs = programs(&site);
    let mut steps = vec![runs("echo $SITE_TOKEN | tee placeholder")];
    steps.extend(programs.iter().enumerate().map(|(n, program)| kept(n, program)));
    steps.push(says("done"));
    let mut body = invocation(steps);
    body["environment"] = limited(&site, &[SITE]);
    body["vaults"] = json!([vault]);
    let (session, given) = results(&http, body).await;
    let placeholder = given[0].trim();
    assert_eq!(placeholder.len(), SECRET.len(), "{placeholder}");
    assert_eq!(given.len(), programs.len() + 1, "{given:?}");
    for (program, said) in programs.iter().zip(&given[1..]) {
        let prints = program.prints.replace("$SITE_TOKEN", placeholder);
        assert!(said.starts_with("ended 0\n") && said.contains(&prints), "{}\n{said}", program.command);
        let shown = site.shown(program.below);
        assert!(!shown.is_empty() && shown.iter().all(|shown| *shown == program.shows), "{shown:?}");
    }
    let events = json!(http.events(&session).await).to_string();
    let room = server.data().join("sessions").join(&session);
    assert!(!holders(&room, placeholder).is_empty(), "what is searched is what the room wrote");
    let encoded = programs.iter().filter_map(|program| program.shows.strip_prefix("Basic "));
    for secret in encoded.chain([SECRET]) {
        assert!(!events.contains(secret), "{events}");
        assert!(holders(&room, secret).is_empty(), "{:?}", holders(&room, secret));
    }
}

/// The audit log's uses of credentials by a session, oldest first.
async fn uses(http: &Http, session: &str) -> Vec<Value> {
    let answer = http.get(&format!("/v1/audit?action=credentials.use&actor={session}")).await.ok();
    let mut uses = answer["data"].as_array().expect("a list").clone();
    uses.reverse();
    uses
}

#[tokio::test]
async fn a_use_and_a_violation_are_on_record() {
    if !has("curl", &["--version"]) {
        return;
    }
    let (site, server) = house(&[SITE, OTHER]).await;
    let (http, port) = (server.http(), site.port());
    // The other host has a secret of its own, so connections to it are opened.
    let auths = [variable("SITE_TOKEN", SECRET, &[SITE]), variable("OTHER_TOKEN", OTHER_SECRET, &[OTHER])];
    let (vault, made) = vault(&http, &auths).await;
    let visit =
        |host: &str| format!("curl -sS -H \"authorization: Bearer $SITE_TOKEN\" https://{host}:{port}/echo 2>&1");
    let mut body = invocation(vec![runs(&visit(SITE)), runs(&visit(OTHER)), says("done")]);
    body["environment"] = limited(&site, &[SITE, OTHER]);
    body["vaults"] = json!([vault]);
    let (session, given) = results(&http, body).await;
    assert_eq!(site.shown("/echo"), [bearer()]);
    let told = connections(&http, &session, 2).await;
    let violation = outcome(&told, OTHER);
    assert_eq!((&outcome(&told, SITE)["type"], &violation["type"]), (&json!("done"), &json!("violation")));
    let reason = violation["reason"].as_str().expect("a reason");
    assert!(given[1].contains(reason), "{given:?}");

    let uses = uses(&http, &session).await;
    assert_eq!(uses.len(), 2, "{uses:?}");
    let results = [json!({"type": "done"}), json!({"type": "refused", "reason": reason})];
    let events = http.events(&session).await;
    let calls = events.iter().filter(|e| e["type"] == "agent.tool_use").map(|e| &e["id"]);
    for (((used, host), result), call) in uses.iter().zip([SITE, OTHER]).zip(results).zip(calls) {
        assert_eq!(used["actor"], json!({"type": "session", "id": session}));
        assert_eq!((&used["action"], &used["resource"]), (&json!("credentials.use"), &made[0]["id"]));
        assert_eq!(used["result"], result);
        let place = json!({"vault": vault, "credential": made[0]["id"], "host": host, "port": port, "calls": [call]});
        assert_eq!(used["credential_use"], place);
    }
    let shown = traced(&server, &session).await;
    assert!(shown.contains(&format!("connect {OTHER}:{port}  error violation")), "{shown}");
    assert!(words(&shown).contains(&words(reason)), "{shown}");
    for seen in [json!(uses).to_string(), shown, json!(events).to_string(), given.concat()] {
        assert!(!seen.contains(SECRET) && !seen.contains(OTHER_SECRET), "{seen}");
    }
}
