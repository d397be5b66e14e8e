//! Connections of the fake provider: request in, reply out.

use super::history::{History, Wire};
use super::http::Connection;
use super::{Delivery, End, Planned, Recorded, Reply, State, anthropic, error, openai};
use crate::builtin::script::{Script, Step};
use loopd_domain::chain::sha256_hex;
use loopd_domain::usage::Usage;
use serde_json::json;
use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Accepts until it is dropped; its connections end with it.
pub(super) async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                let _ = stream.set_nodelay(true);
                // A client that leaves in the middle is no concern of a fake's.
                let state = state.clone();
                connections.spawn(async move { let _ = serve(Connection::new(stream), &state).await; });
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(mut connection: Connection, state: &State) -> io::Result<()> {
    while let Some(request) = connection.request().await? {
        state.record(&request);
        let planned = plan(&request, state);
        if !send(&mut connection, planned).await? {
            return Ok(());
        }
    }
    Ok(())
}

fn plan(request: &Recorded, state: &State) -> Planned {
    let path = request.path.split('?').next().unwrap_or_default();
    let wire = match (request.method.as_str(), path) {
        ("POST", path) if path.ends_with("/messages") => Wire::Anthropic,
        ("POST", path) if path.ends_with("/chat/completions") => Wire::OpenAi,
        ("GET", path) if path.ends_with("/models") => {
            return Reply::json(200, &json!({"object": "list", "data": []})).into();
        }
        _ => {
            return Reply::json(404, &json!({"error": {"type": "not_found_error", "message": "no such address"}}))
                .into();
        }
    };
    let history = match History::read(&request.body) {
        Ok(history) => history,
        Err(fault) => {
            let message = format!("the body cannot be read: {fault}");
            return Reply::json(400, &json!({"error": {"type": "invalid_request_error", "message": message}})).into();
        }
    };
    let planned = state.planned.lock().pop_front();
    let planned = planned.unwrap_or_else(|| choose(&history, state).into());
    match planned.reply {
        Reply::Step(step) => play(&step, wire, &history, request, state, planned.delivery),
        _ => planned,
    }
}

fn choose(history: &History, state: &State) -> Step {
    if let Some(script) = &state.script {
        return script.step(history.answers);
    }
    match Script::parse(&history.system) {
        Ok(script) => script.step(history.answers),
        Err(_) => Step { text: Some(history.last_text.clone()), ..Step::default() },
    }
}

fn play(step: &Step, wire: Wire, history: &History, request: &Recorded, state: &State, delivery: Delivery) -> Planned {
    let delivery = Delivery {
        delay_ms: delivery.delay_ms + step.delay_ms,
        piece_delay_ms: delivery.piece_delay_ms + step.chunk_delay_ms,
        ..delivery
    };
    let usage = step.usage(made_up(step, request));
    if let Some(fault) = &step.fault
        // An attempt repeats its body byte for byte; so the body names the step of one conversation.
        && state.attempts.fails(&sha256_hex(&request.body), history.answers, fault.times)
    {
        let Some(text) = &fault.after_text else { return error::at_once(fault, wire) };
        let begun = match wire {
            Wire::Anthropic => anthropic::begun(text, history, usage),
            Wire::OpenAi => openai::begun(text, history),
        };
        return error::in_stream(fault, wire, begun.concat());
    }
    let reply = match (wire, history.stream) {
        (Wire::Anthropic, true) => Reply::Stream(anthropic::stream(step, history, usage).concat()),
        (Wire::OpenAi, true) => Reply::Stream(openai::stream(step, history, usage).concat()),
        (Wire::Anthropic, false) => Reply::json(200, &anthropic::document(step, history, usage)),
        (Wire::OpenAi, false) => Reply::json(200, &openai::document(step, history, usage)),
    };
    reply.delivered(delivery)
}

/// A token for every four bytes, as the scripted models count.
fn made_up(step: &Step, request: &Recorded) -> Usage {
    let said = step.text.as_ref().map_or(0, String::len) + step.thinking.as_ref().map_or(0, String::len);
    let called: usize = step.tools.iter().map(|call| call.name.len() + call.arguments().len()).sum();
    let tokens = |bytes: usize| bytes.div_ceil(4) as u64;
    Usage { input_tokens: tokens(request.body.len()), output_tokens: tokens(said + called), ..Usage::default() }
}

/// Sends it; false when the connection must close.
async fn send(connection: &mut Connection, planned: Planned) -> io::Result<bool> {
    let Planned { reply, delivery } = planned;
    Delivery::pause(delivery.delay_ms).await;
    let (status, headers, body) = match reply {
        Reply::Nothing | Reply::Step(_) => return Ok(false),
        Reply::Silence => return connection.hang().await.map(|()| false),
        Reply::Stream(body) => (200, stream_headers(), body),
        Reply::Response { status, headers, body } => (status, headers, body),
    };
    if delivery == Delivery::default() && status != 200 {
        connection.respond(status, &headers, &body).await?;
        return Ok(true);
    }
    connection.start(status, &headers);
    for piece in pieces(&body, &delivery) {
        if delivery.piece_delay_ms > 0 {
            connection.flush().await?;
            Delivery::pause(delivery.piece_delay_ms).await;
        }
        connection.piece(piece);
        if delivery.piece_bytes.is_some() {
            connection.flush().await?;
        }
    }
    match delivery.end {
        End::Complete => connection.finish().await.map(|()| true),
        End::Close => connection.flush().await.map(|()| false),
        End::Hang => {
            connection.flush().await?;
            connection.hang().await.map(|()| false)
        }
        End::Endless(bytes) => loop {
            connection.piece(&bytes);
            connection.flush().await?;
            Delivery::pause(delivery.piece_delay_ms).await;
        },
    }
}

fn stream_headers() -> Vec<(String, String)> {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    vec![
        header("content-type", "text/event-stream"),
        header("request-id", "req_fake"),
        header("x-request-id", "req_fake"),
    ]
}

/// The body, cut as asked: into pieces of one size, or into events where time passes between them, or not at all.
fn pieces<'a>(body: &'a [u8], delivery: &Delivery) -> Vec<&'a [u8]> {
    let body = &body[..delivery.cut_after.unwrap_or(body.len()).min(body.len())];
    match (delivery.piece_bytes, delivery.piece_delay_ms) {
        (Some(bytes), _) => body.chunks(bytes.max(1)).collect(),
        (None, 0) => vec![body],
        (None, _) => events(body),
    }
}

fn events(mut body: &[u8]) -> Vec<&[u8]> {
    let mut out = Vec::new();
    while let Some(at) = body.windows(2).position(|window| window == b"\n\n") {
        let (event, rest) = body.split_at(at + 2);
        out.push(event);
        body = rest;
    }
    out.push(body);
    out
}
