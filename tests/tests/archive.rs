//! Real sessions in real rooms, forked, carried away and back, proved, replayed and redacted: by the command line.

use loopd_tests::cli::{Done, run_with};
use loopd_tests::http::{fenced, text};
use loopd_tests::server::Options;
use loopd_tests::{Http, PATIENCE, Server};
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

const FILES: &str = "mkdir -p deep/er; echo kept > deep/er/note; ln -s /etc/passwd out; chmod 700 deep; mkfifo pipe; \
                     echo made > /mnt/session/outputs/result; echo a-secret-word";

fn command(server: &Server, place: &TempDir, arguments: &[&str]) -> Done {
    run_with(place.path(), &[("LOOPD_URL", server.url())], arguments)
}

async fn says(http: &Http, session: &str, commands: &str) -> String {
    text(&http.invoke(json!({"session": session, "input": fenced(commands)})).await["output"])
}

fn session_of(answer: &Value) -> String {
    answer["session_id"].as_str().expect("a session").to_owned()
}

#[tokio::test]
async fn a_session_is_forked_exported_and_imported() {
    let (server, place) = (Server::start(), TempDir::with_prefix("loopd-archive-").expect("a directory"));
    let http = server.http();
    let session = session_of(&http.shell(FILES).await);
    let loopd = |arguments: &[&str]| command(&server, &place, arguments);
    let fork = loopd(&["sessions", "fork", &session, "--title", "another way"]).ok().trim().to_owned();
    let look = "cat deep/er/note /mnt/session/outputs/result; readlink out; stat -c %a-%U deep; ls; touch deep/mine && echo mine";
    let seen = says(&http, &fork, look).await;
    for needle in ["kept", "made", "/etc/passwd", "700-", "mine"] {
        assert!(seen.contains(needle), "`{needle}` is not in:\n{seen}");
    }
    assert!(!seen.contains("pipe"), "{seen}");
    assert!(!says(&http, &session, "ls deep").await.contains("mine"), "the copy is another one");

    let file = place.path().join("session.tar.gz");
    let file = file.to_str().expect("UTF-8");
    loopd(&["sessions", "export", &session, "--output", file]).ok();
    let there = loopd(&["sessions", "import", file]);
    assert!(there.code == Some(1) && there.err.contains(&session), "{}", there.err);
    let before = http.events(&session).await;
    loopd(&["sessions", "delete", &session]).ok();
    assert_eq!(loopd(&["sessions", "import", file]).ok().trim(), session);
    assert_eq!(http.events(&session).await, before);
    assert!(says(&http, &session, look).await.contains("kept"));
    for id in [&session, &fork] {
        let proof = loopd(&["verify", id]).ok();
        assert!(proof.starts_with("valid: "), "{proof}");
        let replay = loopd(&["replay", id]).ok();
        assert!(replay.contains("no divergence") && replay.contains("(0 not comparable)"), "{replay}");
        assert!(!replay.contains("assumed") && !replay.contains("differs"), "{replay}");
    }
    let shown = loopd(&["sessions", "list"]).ok();
    assert!(shown.contains("WAITING FOR") && shown.contains("another way"), "{shown}");
}

#[tokio::test]
async fn what_is_redacted_is_gone_from_answers_and_files_and_the_chain_holds() {
    let (server, place) = (Server::start(), TempDir::with_prefix("loopd-archive-").expect("a directory"));
    let http = server.http();
    let session = session_of(&http.shell(FILES).await);
    let loopd = |arguments: &[&str]| command(&server, &place, arguments);
    let spoken: Vec<Value> = http.events(&session).await;
    let spoken = spoken.iter().filter(|event| event.to_string().contains("a-secret-word"));
    for event in spoken {
        let id = event["id"].as_str().expect("an id");
        loopd(&["redact", &session, id, "--reason", "not for everybody"]).ok();
    }
    let events = json!(http.events(&session).await).to_string();
    assert!(!events.contains("a-secret-word") && events.contains("loopd.event_redacted"), "{events}");
    let proof = loopd(&["verify", &session]).ok();
    assert!(proof.starts_with("valid: ") && proof.contains("redacted: entry"), "{proof}");
    let files =
        std::fs::read_dir(server.data()).expect("the data directory").map(|entry| entry.expect("an entry").path());
    let stored: Vec<_> = files.filter(|path| path.is_file()).collect();
    assert!(stored.len() > 1, "{stored:?}");
    for path in stored {
        let bytes = std::fs::read(&path).expect("a file");
        assert!(!bytes.windows(13).any(|w| w == b"a-secret-word"), "the text is still in {}", path.display());
    }
    assert!(loopd(&["replay", &session]).ok().contains("no divergence"));
}

/// Processes that have the session's directory mounted.
fn processes_of(session: &str) -> usize {
    let pids =
        std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mounts = pids.filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok());
    mounts.filter(|mounts| mounts.contains(session)).count()
}

/// An approval waits without a process, across a restart, for the arguments that were shown and for no others.
#[tokio::test]
async fn an_approval_outlives_room_and_server() {
    let mut server = Server::with(Options::default().config("room_idle_seconds = 1\n"));
    let tools =
        json!([{"type": "agent_toolset_20260401", "default_config": {"permission_policy": {"type": "always_ask"}}}]);
    let body = json!({"model": "builtin/shell", "tools": tools, "input": fenced("echo approved-$((40 + 2))")});
    let asked = server.http().invoke(body).await;
    assert_eq!(asked["status"], "requires_action", "{asked}");
    let session = session_of(&asked);
    assert!(processes_of(&session) > 0, "the room is there for a while");
    let deadline = Instant::now() + PATIENCE;
    while processes_of(&session) > 0 {
        assert!(Instant::now() < deadline, "a waiting session keeps its room");
        sleep(Duration::from_millis(50)).await;
    }
    server.kill();
    server.start_again();
    let http = server.http();
    let object = http.get(&format!("/v1/sessions/{session}")).await.ok();
    let (action, waits) = (&asked["pending_actions"][0], &object["loopd"]["waiting"][0]);
    assert_eq!((&waits["tool_use_id"], &waits["answer"]), (&action["tool_use_id"], &json!("user.tool_confirmation")));
    assert_eq!(waits["arguments_digest"], action["arguments_digest"]);
    assert_eq!(processes_of(&session), 0, "a restart starts no room for who only waits");

    let call = action["tool_use_id"].clone();
    let answer = |id: &Value, kind: &str, digest: &str| {
        let mut block = json!({"type": kind, "tool_use_id": id, "arguments_digest": digest});
        match kind {
            "tool_confirmation" => block["result"] = json!("allow"),
            _ => block["content"] = json!("42"),
        }
        json!({"session": session, "input": [block]})
    };
    let digest = action["arguments_digest"].as_str().expect("a digest");
    let refusals = [
        (answer(&call, "tool_confirmation", &"0".repeat(64)), digest),
        (answer(&json!("sevt_01ARZ3NDEKTSV4RRFFQ69G5FAV"), "tool_confirmation", digest), "no call of that id"),
        (answer(&call, "tool_result", digest), "user.tool_confirmation"),
    ];
    for (body, told) in refusals {
        let message = http.post("/v1/invoke", body).await.refused(400, "invalid_request_error");
        assert!(message.contains(told), "`{told}` is not in: {message}");
    }
    let done = http.invoke(answer(&call, "tool_confirmation", digest)).await;
    assert_eq!(done["status"], "completed", "{done}");
    assert!(text(&done["output"]).contains("approved-42"), "{done}");
    let second = http.post("/v1/invoke", answer(&call, "tool_confirmation", digest)).await;
    assert!(second.refused(400, "invalid_request_error").contains("answered already"));
}
