//! A model without think time: an OpenAI-compatible provider that answers from the request alone.
//!
//! Owns the script that every subject plays and the time at which a request arrived. The model's name says what to do:
//! `read-10` asks for the tool `read` in each of ten steps and then answers with a text. How far a turn is follows from the
//! number of tool messages since the last user message, so the server remembers nothing and serves any number of turns.
//!
//! It checks nothing else about a request: what a provider refuses is tested in `models`, with a fake of its own. That one is
//! not used here, because a measurement needs the time of arrival, and because sharing code (and cargo features) with the
//! binary under test would change what is measured.

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The path that `read` is asked for: small, and the same inside a room and outside.
pub const READ_PATH: &str = "/usr/lib/os-release";
/// The command that `bash` is asked for.
pub const BASH_COMMAND: &str = "echo benchmark";

/// Served until dropped.
pub struct Fake {
    address: SocketAddr,
    last_arrival: Arc<Mutex<Option<Instant>>>,
    accepting: JoinHandle<()>,
}

/// The part of a request that decides the answer.
#[derive(Deserialize)]
struct Question<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(default)]
    stream: bool,
    #[serde(borrow)]
    messages: Vec<MessageHead<'a>>,
}

#[derive(Deserialize)]
struct MessageHead<'a> {
    #[serde(borrow)]
    role: Cow<'a, str>,
}

/// What to answer: the next tool call, or the end.
#[derive(Debug, PartialEq)]
enum Reply {
    Call { number: usize, tool: String, arguments: String },
    Done,
}

impl Fake {
    pub async fn start() -> Result<Fake> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for the fake provider")?;
        let address = listener.local_addr()?;
        let last_arrival = Arc::new(Mutex::new(None));
        let accepting = tokio::spawn(accept(listener, last_arrival.clone()));
        Ok(Fake { address, last_arrival, accepting })
    }

    /// As `OPENAI_BASE_URL` wants it.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Forgets the last arrival and returns it: the head of the newest request was here at that time.
    pub fn take_arrival(&self) -> Option<Instant> {
        self.last_arrival.lock().expect("no holder of this lock panics").take()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, last_arrival: Arc<Mutex<Option<Instant>>>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, last_arrival.clone()))),
            Err(fault) => eprintln!("fake provider: a connection could not be accepted: {fault}"),
        }
    }
}

async fn serve(stream: TcpStream, last_arrival: Arc<Mutex<Option<Instant>>>) {
    if let Err(fault) = stream.set_nodelay(true) {
        eprintln!("fake provider: TCP_NODELAY: {fault}");
    }
    let service = hyper::service::service_fn(|request| {
        *last_arrival.lock().expect("no holder of this lock panics") = Some(Instant::now());
        answer(request)
    });
    // A client that hangs up in mid-request ends its own measurement with an error; nothing is lost here.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = match request.into_body().collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(fault) => return Ok(refusal(&anyhow!(fault))),
    };
    Ok(reply_to(&body).unwrap_or_else(|fault| refusal(&fault)))
}

fn reply_to(body: &[u8]) -> Result<Response<Full<Bytes>>> {
    let question: Question<'_> = serde_json::from_slice(body)?;
    let reply = decide(&question.model, calls_so_far(&question.messages))?;
    let (kind, text) = match question.stream {
        true => ("text/event-stream", streamed(&question.model, &reply)),
        false => ("application/json", whole(&question.model, &reply)),
    };
    Ok(Response::builder().header("content-type", kind).body(Full::from(text))?)
}

fn refusal(fault: &anyhow::Error) -> Response<Full<Bytes>> {
    let text = json!({"error": {"type": "invalid_request_error", "message": format!("{fault:#}")}}).to_string();
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}

fn calls_so_far(messages: &[MessageHead<'_>]) -> usize {
    messages.iter().rev().take_while(|m| m.role != "user").filter(|m| m.role == "tool").count()
}

fn decide(model: &str, calls: usize) -> Result<Reply> {
    let (tool, steps) = model
        .split_once('-')
        .with_context(|| format!("model `{model}`: accepted: `<tool>-<steps>`, as in `read-10`"))?;
    let steps: usize = steps.parse().with_context(|| format!("model `{model}`: `{steps}` is not a number of steps"))?;
    if calls >= steps {
        return Ok(Reply::Done);
    }
    let arguments = match tool {
        "read" => json!({"file_path": READ_PATH}),
        "bash" => json!({"command": BASH_COMMAND}),
        other => return Err(anyhow!("model `{model}`: no tool `{other}`; accepted: `read`, `bash`")),
    };
    Ok(Reply::Call { number: calls + 1, tool: tool.to_owned(), arguments: arguments.to_string() })
}

fn whole(model: &str, reply: &Reply) -> String {
    let (message, finish) = match reply {
        Reply::Call { number, tool, arguments } => {
            let call = tool_call(*number, tool, arguments);
            (json!({"role": "assistant", "content": null, "tool_calls": [call]}), "tool_calls")
        }
        Reply::Done => (json!({"role": "assistant", "content": "done"}), "stop"),
    };
    let choice = json!({"index": 0, "message": message, "finish_reason": finish, "logprobs": null});
    json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": usage()})
        .to_string()
}

/// The pieces that a provider would send one by one, in one write.
fn streamed(model: &str, reply: &Reply) -> String {
    let mut deltas = vec![json!({"role": "assistant", "content": null})];
    let finish = match reply {
        Reply::Call { number, tool, arguments } => {
            let mut call = tool_call(*number, tool, "");
            call["index"] = json!(0);
            deltas.push(json!({"tool_calls": [call]}));
            let (first, rest) = arguments.split_at(arguments.len() / 2);
            for piece in [first, rest] {
                deltas.push(json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}));
            }
            "tool_calls"
        }
        Reply::Done => {
            deltas.push(json!({"content": "done"}));
            "stop"
        }
    };
    let mut text = String::with_capacity(2_048);
    for delta in deltas {
        frame(&mut text, model, json!([{"index": 0, "delta": delta, "finish_reason": null}]), Value::Null);
    }
    frame(&mut text, model, json!([{"index": 0, "delta": {}, "finish_reason": finish}]), Value::Null);
    frame(&mut text, model, json!([]), usage());
    text.push_str("data: [DONE]\n\n");
    text
}

fn frame(text: &mut String, model: &str, choices: Value, usage: Value) {
    let chunk = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": choices, "usage": usage});
    text.push_str("data: ");
    text.push_str(&chunk.to_string());
    text.push_str("\n\n");
}

fn tool_call(number: usize, tool: &str, arguments: &str) -> Value {
    json!({"id": format!("call_{number}"), "type": "function", "function": {"name": tool, "arguments": arguments}})
}

fn usage() -> Value {
    json!({"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(roles: &[&str], stream: bool) -> Response<Full<Bytes>> {
        let messages: Vec<Value> = roles.iter().map(|r| json!({"role": r, "content": "x"})).collect();
        reply_to(json!({"model": "read-2", "stream": stream, "messages": messages}).to_string().as_bytes()).unwrap()
    }

    async fn text(response: Response<Full<Bytes>>) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[test]
    fn counts_calls_of_the_current_turn_only() {
        let heads = |roles: &[&'static str]| -> Vec<MessageHead<'static>> {
            roles.iter().map(|role| MessageHead { role: Cow::Borrowed(role) }).collect()
        };
        assert_eq!(calls_so_far(&heads(&["system", "user"])), 0);
        assert_eq!(calls_so_far(&heads(&["user", "assistant", "tool", "assistant", "tool"])), 2);
        assert_eq!(calls_so_far(&heads(&["user", "assistant", "tool", "assistant", "user", "assistant", "tool"])), 1);
    }

    #[test]
    fn ends_after_the_steps_that_the_model_names() {
        let call =
            Reply::Call { number: 2, tool: "bash".into(), arguments: json!({"command": BASH_COMMAND}).to_string() };
        assert_eq!(decide("bash-2", 1).unwrap(), call);
        assert_eq!(decide("bash-2", 2).unwrap(), Reply::Done);
        assert!(decide("bash", 0).is_err());
        assert!(decide("write-2", 0).unwrap_err().to_string().contains("`write`"));
    }

    #[tokio::test]
    async fn streamed_arguments_add_up_to_the_whole_ones() {
        let whole: Value = serde_json::from_str(&text(ask(&["user"], false)).await).unwrap();
        let wanted =
            whole["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"].as_str().unwrap().to_owned();
        let stream = text(ask(&["user"], true)).await;
        let pieces =
            stream.split("\n\n").filter_map(|frame| serde_json::from_str::<Value>(frame.strip_prefix("data: ")?).ok());
        let joined: String = pieces
            .filter_map(|p| {
                p["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].as_str().map(str::to_owned)
            })
            .collect();
        assert_eq!(joined, wanted);
        assert!(stream.ends_with("data: [DONE]\n\n"));
    }
}
