//! What `invoke` prints: steps for a person, or one JSON object per line for a program.

use crate::client::ClientError;
use crate::exit::Exit;
use crate::screen::{Ink, Screen, StepsView, summary_line};
use anyhow::Result;
use serde_json::Value;
use std::io::Write;
use std::path::Path;

pub enum Output {
    Steps(StepsView),
    Json,
}

impl Output {
    pub fn new(json: bool) -> Self {
        match json {
            true => Output::Json,
            false => Output::Steps(StepsView::new(Screen::stdout())),
        }
    }

    /// The turn was accepted; its session is known.
    pub fn started(&mut self, started: &Value) -> Result<()> {
        match self {
            Output::Json => print_json(started),
            Output::Steps(view) => {
                Ok(view.note(Ink::Dim, &format!("session {}", started["session_id"].as_str().unwrap_or("unknown")))?)
            }
        }
    }

    pub fn event(&mut self, event: &Value) -> Result<()> {
        match self {
            Output::Json => print_json(event),
            // Who asked knows what was asked.
            Output::Steps(_) if event["type"] == "user.message" => Ok(()),
            Output::Steps(view) => Ok(view.show(event)?),
        }
    }

    pub fn result(&mut self, result: &Value, data: Option<&Path>) -> Result<()> {
        match self {
            Output::Json => print_json(result),
            Output::Steps(view) => {
                let session = result["session_id"].as_str().unwrap_or("unknown");
                view.note(Ink::Plain, "")?;
                view.note(Ink::Bold, &summary_line(result))?;
                view.note(Ink::Dim, &format!("session {session}"))?;
                view.note(Ink::Dim, &format!("trace   loopd trace {session}{}", data_flag(data)))?;
                Ok(())
            }
        }
    }

    /// Said when the turn was left before its end.
    pub fn left(&mut self, session: Option<&str>, exit: Exit, inside: bool, data: Option<&Path>) -> Result<()> {
        let (Some(session), Exit::Detached) = (session, exit) else {
            eprintln!("interrupted before the turn began");
            return Ok(());
        };
        let flag = data_flag(data);
        match inside {
            true => eprintln!(
                "detached: the turn of {session} rests now and goes on when loopd is next started on this data directory, \
                 for instance with `loopd sessions tail {session}{flag}`"
            ),
            false => {
                eprintln!("detached: the turn goes on in the server; follow it with `loopd sessions tail {session}`")
            }
        }
        Ok(())
    }

    /// A program that reads JSON gets the failure as JSON, too.
    pub fn failed(&mut self, fault: anyhow::Error) -> anyhow::Error {
        match (&*self, fault.downcast_ref::<ClientError>().map(ClientError::envelope)) {
            (Output::Json, Some(envelope)) => match print_json(&envelope) {
                Ok(()) => fault,
                Err(closed) => closed.context(fault),
            },
            _ => fault,
        }
    }
}

fn data_flag(data: Option<&Path>) -> String {
    data.map(|path| format!(" --data {}", path.display())).unwrap_or_default()
}

fn print_json(value: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}
