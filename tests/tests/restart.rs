//! `kill -9` of the server in the middle of a turn: the turn goes on by itself, and nothing acknowledged is lost.

use loopd_tests::http::{Frame, text, tool_results};
use loopd_tests::script::{invocation, runs, says};
use loopd_tests::{Http, Server};
use serde_json::{Value, json};

/// Steps of the scripted turn; each appends its number to a file in the room.
const STEPS: usize = 6;

fn turn() -> Value {
    let mut steps: Vec<Value> = (1..=STEPS)
        .map(|n| {
            let mut step = runs(&format!("sleep 0.1; echo {n} >> /workspace/effects; echo did {n}"));
            step["delay_ms"] = json!(100);
            step
        })
        .collect();
    steps.push(runs("cat /workspace/effects"));
    steps.push(says("{{last_result}}"));
    invocation(steps)
}

/// Kills at the first frame for which `now` holds, starts again, and gives what was seen before and the whole afterwards.
async fn killed(now: impl Fn(&Frame) -> bool) -> (Vec<Frame>, Vec<Value>) {
    let mut server = Server::start();
    let mut stream = server.http().invoke_stream(turn()).await;
    let seen = stream.until(now).await;
    let session = seen[0].data["session_id"].as_str().expect("a session").to_owned();
    server.kill();
    server.start_again();
    let http = server.http();
    http.until_idle(&session).await;
    (seen, http.events(&session).await)
}

fn is_complete(seen: &[Frame], events: &[Value]) {
    let acknowledged: Vec<&str> = seen.iter().filter_map(|f| f.seq.and(f.data["id"].as_str())).collect();
    let kept: Vec<&str> = events.iter().filter_map(|e| e["id"].as_str()).collect();
    assert_eq!(kept[..acknowledged.len()], acknowledged, "what was told is what is kept");

    let idle = events.last().expect("events");
    assert_eq!((&idle["type"], &idle["stop_reason"]["type"]), (&json!("session.status_idle"), &json!("end_turn")));
    let uses = events.iter().filter(|e| e["type"] == "agent.tool_use").count();
    let results = tool_results(events);
    assert_eq!((uses, results.len()), (STEPS + 1, STEPS + 1), "no recorded step is repeated, and each call is settled");

    let message = events.iter().rfind(|e| e["type"] == "agent.message").expect("a final answer");
    let effects = text(&message["content"]);
    for n in 1..=STEPS {
        let done = effects.lines().filter(|line| line.trim() == n.to_string()).count();
        let outcome = results[n - 1]["outcome"].as_str().expect("an outcome");
        match outcome {
            "completed" => assert_eq!(done, 1, "effect {n} was recorded as done; effects:\n{effects}"),
            "unknown" => {
                assert!(done <= 1, "effect {n} was repeated; effects:\n{effects}");
                assert_eq!(results[n - 1]["is_error"], true);
            }
            other => panic!("effect {n} came to `{other}`"),
        }
    }
}

#[tokio::test]
async fn killed_while_a_tool_runs() {
    let third = |frame: &Frame| frame.event == "agent.tool_use" && frame.data.to_string().contains("echo 3");
    let (seen, events) = killed(third).await;
    is_complete(&seen, &events);
}

#[tokio::test]
async fn killed_while_the_model_thinks() {
    let (seen, events) = killed(|frame| frame.event == "span.model_request_start" && frame.seq > Some(12)).await;
    is_complete(&seen, &events);
}

#[tokio::test]
async fn killed_right_after_a_result() {
    let (seen, events) = killed(|frame| frame.event == "agent.tool_result").await;
    is_complete(&seen, &events);
}

#[tokio::test]
async fn killed_as_soon_as_the_message_was_accepted() {
    let mut server = Server::start();
    let mut body = turn();
    body["background"] = json!(true);
    let accepted = server.http().post("/v1/invoke", body).await.ok();
    server.kill();
    server.start_again();
    let http = server.http();
    let session = accepted["session_id"].as_str().expect("a session");
    http.until_idle(session).await;
    is_complete(&[], &http.events(session).await);
}

#[tokio::test]
async fn an_idle_session_is_as_it_was() {
    let mut server = Server::start();
    let http = server.http();
    let answer = http.shell("echo kept > /workspace/note").await;
    let session = answer["session_id"].as_str().expect("a session").to_owned();
    let (events, object) = (http.events(&session).await, read(&http, &session).await);
    server.kill();
    server.start_again();
    let http = server.http();
    assert_eq!((http.events(&session).await, read(&http, &session).await), (events, object));
    let next = json!({"session": session, "input": loopd_tests::http::fenced("cat /workspace/note")});
    assert!(text(&http.invoke(next).await["output"]).contains("kept"));
}

#[tokio::test]
async fn stopped_with_a_signal_the_turn_rests_and_goes_on() {
    let mut server = Server::start();
    let mut stream = server.http().invoke_stream(turn()).await;
    let seen = stream.until(|frame| frame.event == "agent.tool_result").await;
    let session = seen[0].data["session_id"].as_str().expect("a session").to_owned();
    let asked = tokio::time::Instant::now();
    assert_eq!(server.terminate(), Some(0));
    assert!(asked.elapsed() < std::time::Duration::from_secs(5), "nobody has to wait for those who watch");
    assert!(stream.until_end().await.iter().all(|frame| frame.event != "error"), "the stream ends, and is not cut");
    server.start_again();
    let http = server.http();
    http.until_idle(&session).await;
    is_complete(&seen, &http.events(&session).await);
}

/// The session's object, without the time that has gone by.
async fn read(http: &Http, session: &str) -> Value {
    let mut object = http.get(&format!("/v1/sessions/{session}")).await.ok();
    object["stats"]["duration_seconds"] = Value::Null;
    object
}
