//! Watching a turn: frames of the stream, and Ctrl-C.
//!
//! ```text
//!  watching ── result ─► done
//!     │ Ctrl-C: the server is asked to interrupt
//!     ▼
//!  interrupting ── result ─► done (interrupted)
//!     │ Ctrl-C
//!     ▼
//!  detached: whatever happens now happens without us
//! ```

use super::output::Output;
use crate::client::{Client, ClientError, Frame, Frames};
use crate::exit::Exit;
use crate::signals;
use anyhow::{Result, anyhow};
use serde_json::{Value, json};
use tokio::sync::watch;

/// The frames that begin and end a stream of `/v1/invoke`.
const STARTED: &str = "loopd.invoke_started";
const RESULT: &str = "loopd.invoke_result";

/// What became of a turn as far as it was watched.
#[derive(Debug, Default)]
pub struct Turn {
    pub session: Option<String>,
    /// `None`: we left before it ended.
    pub result: Option<Value>,
    interrupts: u32,
}

impl Turn {
    pub fn exit(&self) -> Exit {
        match (&self.result, self.interrupts) {
            (Some(result), _) => Exit::of_result(result),
            // Nothing was accepted before the first Ctrl-C, so nothing goes on.
            (None, _) if self.session.is_none() => Exit::Interrupted,
            (None, _) => Exit::Detached,
        }
    }
}

pub async fn watch(
    client: &Client,
    body: &Value,
    output: &mut Output,
    mut ends: watch::Receiver<signals::Ends>,
) -> Result<Turn> {
    let mut turn = Turn { session: body["session"].as_str().map(str::to_owned), ..Turn::default() };
    let mut frames = tokio::select! {
        frames = client.post_stream(&["v1", "invoke"], body) => frames?,
        () = signals::nth(&mut ends, 1) => return Ok(turn),
    };
    loop {
        tokio::select! {
            frame = next(&mut frames) => {
                let frame = frame?;
                match frame.event.as_str() {
                    STARTED => {
                        turn.session = frame.data["session_id"].as_str().map(str::to_owned);
                        output.started(&frame.data)?;
                    }
                    RESULT => {
                        turn.result = Some(frame.data);
                        return Ok(turn);
                    }
                    _ => output.event(&frame.data)?,
                }
            }
            () = signals::nth(&mut ends, turn.interrupts + 1) => {
                turn.interrupts += 1;
                match (&turn.session, turn.interrupts) {
                    (Some(session), 1) => interrupt(client.clone(), session.clone()),
                    _ => return Ok(turn),
                }
            }
        }
    }
}

async fn next(frames: &mut Frames) -> Result<Frame> {
    let frame = frames.next().await?;
    let frame =
        frame.ok_or_else(|| anyhow!("the server ended the stream before the turn ended; is it shutting down?"))?;
    match frame.event.as_str() {
        "error" => Err(anyhow!("{}", frame.data["error"]["message"].as_str().unwrap_or("the server met an error"))),
        _ => Ok(frame),
    }
}

/// Asks in the background, so that what happens meanwhile is still seen.
fn interrupt(client: Client, session: String) {
    eprintln!("\ninterrupting the turn; press Ctrl-C again to leave without waiting");
    tokio::spawn(async move {
        let asked: Result<Value, ClientError> = client
            .post(&["v1", "sessions", &session, "events"], &json!({"events": [{"type": "user.interrupt"}]}))
            .await;
        if let Err(fault) = asked {
            eprintln!("the turn could not be interrupted: {fault}");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_and_interrupting_have_their_own_codes() {
        let ended = Some(json!({"status": "completed", "stop_reason": {"type": "end_turn"}}));
        let turn = |result, interrupts| Turn { session: Some("sesn_1".to_owned()), result, interrupts };
        assert_eq!(turn(ended.clone(), 0).exit(), Exit::Success);
        // It ended by itself before the interrupt came.
        assert_eq!(turn(ended, 1).exit(), Exit::Success);
        let stopped = Some(json!({"status": "interrupted", "stop_reason": {"type": "end_turn"}}));
        assert_eq!(turn(stopped, 1).exit(), Exit::Interrupted);
        assert_eq!(turn(None, 2).exit(), Exit::Detached);
        assert_eq!(Turn::default().exit(), Exit::Interrupted);
    }
}
