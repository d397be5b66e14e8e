//! Sessions in rooms with a kernel of their own: what works in every room works here, and what only they can.

use loopd_tests::cli::{Done, run, run_with};
use loopd_tests::http::{fenced, text, tool_results};
use loopd_tests::script::{runs, says, script};
use loopd_tests::server::Options;
use loopd_tests::site::Site;
use loopd_tests::{Http, PATIENCE, Server, guest};
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

const SITE: &str = "site.test";
const SECRET: &str = "variable-secret-0123456789";

fn machine(more: Value) -> Value {
    let limits = json!({"memory_bytes": 256u64 << 20, "disk_bytes": 256u64 << 20, "cpu_millis": 1_000});
    let mut config = json!({"isolation": "microvm", "limits": limits, "networking": {"type": "none"}});
    for (name, value) in more.as_object().expect("an object") {
        config[name] = value.clone();
    }
    config
}

fn session_of(answer: &Value) -> String {
    answer["session_id"].as_str().expect("a session").to_owned()
}

/// A new session that runs some commands, and what its shell said.
async fn begin(http: &Http, environment: Value, commands: &str) -> (String, String) {
    let input = fenced(commands);
    let answer = http.invoke(json!({"model": "builtin/shell", "environment": environment, "input": input})).await;
    let session = session_of(&answer);
    let events = http.events(&session).await;
    let said = tool_results(&events).last().map(|result| text(&result["content"]));
    (session, said.unwrap_or_else(|| panic!("no result: {events:#?}")))
}

async fn go_on(http: &Http, session: &str, commands: &str) -> String {
    text(&http.invoke(json!({"session": session, "input": fenced(commands)})).await["output"])
}

fn told<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["type"] == kind).collect()
}

fn host_kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux").trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_a_kernel_of_its_own_and_carries_its_files_away() {
    let Some((root, _turn)) = guest::root() else { return };
    let (server, place) = (Server::on(root, Options::default()), TempDir::new().expect("a directory"));
    let http = server.http();
    let loopd = |arguments: &[&str]| -> Done { run_with(place.path(), &[("LOOPD_URL", server.url())], arguments) };
    let commands = "uname -r; mkdir -p deep; echo kept > deep/note; ln -s /etc/passwd out; \
                    echo made > /mnt/session/outputs/result; id -u";
    let body = json!({"model": "builtin/shell", "environment": machine(json!({})), "input": fenced(commands)});
    let frames = http.invoke_stream(body).await.until_end().await;
    // The first machine of its form takes a while, and whoever waits for it is told.
    let at = |event: &str| frames.iter().position(|frame| frame.event == event).expect(event);
    let waits = &frames[at("loopd.room_progress")].data;
    assert_eq!((&waits["stage"], &waits["what"]), (&json!("boot"), &json!("the machine")), "{waits}");
    assert!(at("loopd.room_progress") < at("loopd.room_started"), "{frames:?}");
    let session = session_of(&frames[at("loopd.invoke_started")].data);
    let events = http.events(&session).await;
    let said = text(&tool_results(&events).last().expect("a result")["content"]);
    assert!(!said.contains(&host_kernel()) && !said.lines().any(|line| line == "0"), "{said}");
    let rooms = told(&events, "loopd.room_started");
    assert_eq!(rooms.len(), 1, "{events:#?}");
    assert_eq!((&rooms[0]["isolation"], &rooms[0]["woken"]), (&json!("microvm"), &json!(false)));
    let accelerator = rooms[0]["accelerator"].as_str().expect("told").to_owned();
    let trace = loopd(&["trace", &session]).ok();
    let shown = if accelerator == "emulation" { "microvm, emulated: slow" } else { "microvm (kvm)" };
    assert!(trace.contains(shown), "{trace}");
    let json = http.get(&format!("/v1/sessions/{session}/trace")).await.ok();
    assert_eq!(json["root"]["attributes"]["loopd.sandbox.isolation"], "microvm");
    assert_eq!(json["root"]["attributes"]["loopd.sandbox.accelerator"], accelerator.as_str());

    // Its files leave a machine that lives, and come into a new one.
    let look = "cat deep/note /mnt/session/outputs/result; readlink out; touch deep/mine && echo mine";
    let fork = loopd(&["sessions", "fork", &session]).ok().trim().to_owned();
    let seen = go_on(&http, &fork, look).await;
    for needle in ["kept", "made", "/etc/passwd", "mine"] {
        assert!(seen.contains(needle), "`{needle}` is not in:\n{seen}");
    }
    assert!(!go_on(&http, &session, "ls deep").await.contains("mine"), "the copy is another one");
    let file = place.path().join("session.tar");
    let file = file.to_str().expect("UTF-8");
    loopd(&["sessions", "export", &session, "--output", file]).ok();
    loopd(&["sessions", "delete", &session]).ok();
    assert!(!server.data().join("sessions").join(&session).exists());
    assert_eq!(loopd(&["sessions", "import", file]).ok().trim(), session);
    assert!(go_on(&http, &session, look).await.contains("kept"));
    let proof = loopd(&["verify", &session]).ok();
    assert!(proof.starts_with("valid: "), "{proof}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_sleeps_with_its_machine_and_goes_on_after_a_restart() {
    let Some((root, _turn)) = guest::root() else { return };
    let mut server = Server::on(root, Options::default().config("room_idle_seconds = 1\n"));
    let http = server.http();
    let environment = machine(json!({"hibernation": "memory"}));
    let commands = "MARK=here; (while :; do sleep 0.2; date +%s%N > beat; done) & echo $! > pid; echo begun";
    let (session, said) = begin(&http, environment, commands).await;
    assert!(said.contains("begun"), "{said}");
    let asleep = server.data().join("sessions").join(&session).join("machine.suspended");
    until_there(&asleep).await;
    // Its files are read while it sleeps, and it sleeps on.
    let place = TempDir::new().expect("a directory");
    let file = place.path().join("session.tar");
    let arguments = ["sessions", "export", &session, "--output", file.to_str().expect("UTF-8")];
    run_with(place.path(), &[("LOOPD_URL", server.url())], &arguments).ok();
    assert!(asleep.exists());
    server.terminate();
    server.start_again();
    let http = server.http();
    let title = json!({"title": "asleep"});
    http.post(&format!("/v1/sessions/{session}"), title).await.ok();
    assert!(asleep.exists(), "who only renames it does not wake it");
    let said = go_on(
        &http,
        &session,
        "kill -0 $(cat pid) && echo lives $MARK; a=$(cat beat); sleep 1; [ $a != $(cat beat) ] && echo beats",
    )
    .await;
    assert!(said.contains("lives here") && said.contains("beats"), "{said}");
    let events = http.events(&session).await;
    let woken: Vec<bool> = told(&events, "loopd.room_started").iter().map(|event| event["woken"] == true).collect();
    assert_eq!(woken, [false, true]);
    assert_eq!(told(&events, "loopd.room_restarted").len(), 0, "its shell is the one that it was");
    until_there(&asleep).await;
    http.delete(&format!("/v1/sessions/{session}")).await.ok();
    assert!(!asleep.exists(), "nothing of it stays");
}

async fn until_there(path: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while !path.exists() {
        assert!(Instant::now() < deadline, "`{}` does not come", path.display());
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_memory_a_session_keeps_its_files_and_the_model_is_told() {
    let Some((root, _turn)) = guest::root() else { return };
    let server = Server::on(root, Options::default().config("room_idle_seconds = 1\n"));
    let http = server.http();
    let (session, _) = begin(&http, machine(json!({})), "sleep 1000 & echo $! > pid").await;
    let place = server.data().join("sessions").join(&session);
    // A machine that ends leaves nothing to wake.
    sleep(Duration::from_secs(3)).await;
    assert!(!place.join("machine.suspended").exists() && place.join("disk.ext4").exists());
    let said = go_on(&http, &session, "kill -0 $(cat pid) || echo gone").await;
    assert!(said.contains("gone"), "{said}");
    assert_eq!(told(&http.events(&session).await, "loopd.room_restarted").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_machine_sleeps_when_its_time_is_over_though_its_server_was_killed_before() {
    let Some((root, _turn)) = guest::root() else { return };
    let mut server = Server::on(root, Options::default().config("room_idle_seconds = 8\n"));
    let http = server.http();
    let environment = machine(json!({"hibernation": "memory"}));
    let (session, _) = begin(&http, environment, "MARK=here; echo begun").await;
    let asleep = server.data().join("sessions").join(&session).join("machine.suspended");
    assert!(!asleep.exists(), "its time is not over");
    server.kill();
    server.start_again();
    let http = server.http();
    until_there(&asleep).await;
    let said = go_on(&http, &session, "echo lives $MARK").await;
    assert!(said.contains("lives here"), "{said}");
}

/// What its kernel, its VMM and this machine can do to it: the session goes on in another machine with what it had written, the client and
/// the model are told why, and a neighbour's machine does not notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_dies_in_a_turn_costs_its_own_session_an_unknown_outcome() {
    let Some((root, _turn)) = guest::root() else { return };
    let server = Server::on(root, Options::default());
    let http = server.http();
    let environment = machine(json!({}));
    let (neighbour, _) = begin(&http, environment.clone(), "MARK=unharmed; echo ready").await;
    let (session, _) = begin(&http, environment, "echo kept > kept; echo ready").await;
    let rooms = server.data().join("rooms");
    let body = json!({"session": session, "input": fenced("echo begun > begun; sync; sleep 600"), "background": true});
    http.post("/v1/invoke", body).await.ok();
    while told(&http.events(&session).await, "agent.tool_use").len() < 2 {
        sleep(Duration::from_millis(50)).await;
    }
    // As one that its guest switched off, or that its host's administrator did.
    let mut control = UnixStream::connect(short(&rooms.join(&session).join("control"))).expect("it listens");
    for order in ["qmp_capabilities", "quit"] {
        control.write_all(format!("{{\"execute\": \"{order}\"}}\n").as_bytes()).expect("written");
    }
    http.until_idle(&session).await;
    let events = http.events(&session).await;
    let recovered = told(&events, "loopd.session_recovered");
    let why = recovered.last().map(|event| text_of(&event["message"])).unwrap_or_default();
    assert!(why.contains("the machine ended: it was told to end"), "{events:#?}");
    let result = tool_results(&events).last().map(|result| text(&result["content"])).unwrap_or_default();
    assert!(result.contains("outcome_unknown") && result.contains("the machine ended"), "{result}");
    assert!(go_on(&http, &session, "cat kept").await.contains("kept"));
    assert!(go_on(&http, &neighbour, "echo still $MARK").await.contains("still unharmed"));
}

/// A path that an address holds.
fn short(path: &Path) -> std::path::PathBuf {
    let directory = std::fs::File::open(path.parent().expect("it lies somewhere")).expect("it is there");
    let short = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&directory));
    // Open for as long as the test.
    std::mem::forget(directory);
    Path::new(&short).join(path.file_name().expect("a name"))
}

/// A filler gets no further than its disk, is told so, and whoever deletes what it wrote goes on. With one large file, as no more than one
/// word of the cell waits for the disk meanwhile, and with many.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_an_error_of_the_call_and_the_session_goes_on() {
    let Some((root, _turn)) = guest::root() else { return };
    let server = Server::on(root, Options::default());
    let http = server.http();
    // By the file system, or by whoever looks at it and was faster.
    let is_told =
        |said: &str| said.contains("No space left on device") || said.contains("disk limit of 640 MiB was reached");
    // With so much memory that what is written stays in it.
    let limits = json!({"memory_bytes": 640u64 << 20, "disk_bytes": 640u64 << 20, "cpu_millis": 1_000});
    let environment = machine(json!({"limits": limits}));
    let fill = "head -c 700M /dev/zero > large; echo \"large: $?\"";
    let (session, said) = begin(&http, environment, fill).await;
    assert!(is_told(&said), "{said}");
    let many = "rm -f large; for n in $(seq 40); do head -c 20M /dev/zero > many-$n || break; sleep 0.1; done; echo \"stopped at $n\"";
    let said = go_on(&http, &session, many).await;
    assert!(is_told(&said), "{said}");
    // Blocks of a deleted file are free when the file system's journal has been written.
    let freed = "rm -f many-*; sync; until echo x > small; do sleep 0.2; done; cat small && echo \"fine $((40 + 2))\"";
    let said = go_on(&http, &session, freed).await;
    assert!(said.contains("fine 42"), "{said}");
    let events = http.events(&session).await;
    assert_eq!(told(&events, "loopd.room_started").len(), 1, "its machine is the one that it was: {events:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_out_of_a_machine_is_the_one_of_every_room() {
    let Some((root, _turn)) = guest::root() else { return };
    let site = Site::start(&[SITE]).await;
    let port = site.port();
    let authority = root.path().join("site.pem");
    std::fs::write(&authority, &site.certificate).expect("written");
    let config = format!(
        "[network]\nallow_addresses = [\"{SITE}:{port}\"]\nhosts = {{ \"{SITE}\" = \"127.0.0.1\" }}\nextra_roots = {:?}\n",
        authority.to_str().expect("UTF-8")
    );
    let server = Server::on(root, Options::default().config(&config));
    let http = server.http();
    let vault = http.post("/v1/vaults", json!({"display_name": "v"})).await.ok()["id"].clone();
    let credential = json!({"auth": {"type": "environment_variable", "secret_name": "API_TOKEN", "secret_value": SECRET,
        "networking": {"type": "limited", "allowed_hosts": [SITE]}}});
    http.post(&format!("/v1/vaults/{}/credentials", vault.as_str().expect("an id")), credential).await.ok();
    let networking = json!({"type": "limited", "allowed_hosts": [SITE], "ports": [443, port]});
    let environment = json!({"name": "e", "config": machine(json!({"networking": networking}))});
    let environment = http.post("/v1/environments", environment).await.ok()["id"].clone();
    let visit = format!(
        "echo \"token: $API_TOKEN\"; curl -sS -H \"x-token: $API_TOKEN\" https://{SITE}:{port}/hello 2>&1; \
         curl -sS -m 20 https://other.test/ 2>&1; true"
    );
    let system = script(vec![runs(&visit), says("done")]);
    let agent = json!({"name": "a", "model": "builtin/script", "system": system,
        "tools": [{"type": "agent_toolset_20260401"}]});
    let agent = http.post("/v1/agents", agent).await.ok()["id"].clone();
    let hello = json!([{"type": "user.message", "content": [{"type": "text", "text": "go"}]}]);
    let body = json!({"agent": agent, "environment_id": environment, "vault_ids": [vault], "initial_events": hello});
    let session = http.post("/v1/sessions", body).await.ok()["id"].as_str().expect("an id").to_owned();
    http.until_idle(&session).await;
    let events = http.events(&session).await;
    let said = tool_results(&events).last().map(|result| text(&result["content"])).unwrap_or_default();
    assert!(said.contains(&format!("hello from {SITE}:{port}")), "{said}");
    assert!(said.contains("allowed_hosts"), "what is refused is told: {said}");
    assert!(!json!(events).to_string().contains(SECRET), "a room has a placeholder");
    let heads = site.heads();
    assert!(heads.iter().any(|head| head.contains(&format!("x-token: {SECRET}"))), "{heads:?}");
}

#[tokio::test]
async fn a_machine_that_cannot_be_made_says_what_to_do() {
    let server = Server::start();
    let http = server.http();
    let answer =
        http.invoke(json!({"model": "builtin/shell", "environment": machine(json!({})), "input": fenced("true")}));
    let session = session_of(&answer.await);
    let events = http.events(&session).await;
    let errors = told(&events, "session.error");
    let message = errors.last().map(|event| text_of(&event["error"]["message"])).unwrap_or_default();
    assert!(message.contains("`microvm`") && message.contains("loopd image build"), "{events:#?}");
    assert_eq!(http.status(&session).await, "idle");
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn an_operator_requires_walls_and_nothing_weaker_comes_to_use() {
    let server = Server::start();
    let http = server.http();
    let (session, _) = begin(&http, json!({"networking": {"type": "none"}}), "true").await;
    let root = server.data().parent().expect("it lies somewhere").to_owned();
    let loopd = |arguments: &[&str]| run(&root, &[arguments, &["--data", "data"]].concat());
    let shown = loopd(&["workspaces", "update", "default", "--require-isolation", "microvm"]).ok();
    assert!(shown.contains("default") && shown.contains("requires microvm"), "{shown}");
    assert!(loopd(&["workspaces", "list"]).ok().contains("requires microvm"));
    let wrong = loopd(&["workspaces", "update", "default", "--require-isolation", "castle"]);
    assert!(wrong.code == Some(2) && wrong.err.contains("microvm"), "{}", wrong.err);
    assert_eq!(loopd(&["workspaces", "update", "nobody", "--require-isolation", "microvm"]).code, Some(1));
    let told = "accepted: `microvm`, as workspace `default` requires";
    for (path, body) in [
        ("/v1/environments", json!({"name": "e", "config": {"isolation": "namespaces"}})),
        ("/v1/invoke", json!({"model": "builtin/shell", "input": fenced("true")})),
        ("/v1/invoke", json!({"session": session, "input": fenced("true")})),
    ] {
        let refused = http.post(path, body).await.refused(400, "invalid_request_error");
        assert!(refused.contains(told), "{path}: {refused}");
    }
    http.post("/v1/environments", json!({"name": "e", "config": {"isolation": "microvm"}})).await.ok();
    let audit = loopd(&["audit", "--action", "workspaces.update"]).ok();
    assert!(audit.contains("workspaces.update"), "{audit}");
    loopd(&["workspaces", "update", "default", "--require-isolation", "namespaces"]).ok();
    assert!(go_on(&http, &session, "echo back").await.contains("back"));
}
