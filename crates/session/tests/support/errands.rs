//! The services that a session's host calls, as a test wants them: they note what they are sent, and answer or not.

use super::TestClock;
use async_trait::async_trait;
use loopd_domain::agent::{HttpTool, PermissionPolicy, Tool};
use loopd_domain::content::ContentBlock;
use loopd_domain::event::EffectClass;
use loopd_domain::mcp::{McpServer, McpTool};
use loopd_domain::{Clock, Timestamp};
use loopd_host_tools::{HostCall, HostResult, HostTools, ListFault, SessionTools, Tokens};
use parking_lot::Mutex;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Errand {
    /// Answers with its input.
    Answer,
    /// Answers after a while.
    Slow(Duration),
    Hang,
    Panic,
}

/// What was sent, and what is to become of what is sent from now on.
pub struct Errands(Arc<State>);

struct State {
    sent: Mutex<Vec<(HostCall, Timestamp)>>,
    next: Mutex<Option<Errand>>,
    /// `None`: no server answers.
    listed: Mutex<Option<Result<Vec<McpTool>, ListFault>>>,
    asked: Mutex<Vec<String>>,
}

impl Default for Errands {
    fn default() -> Self {
        let (sent, next, asked) = (Mutex::default(), Mutex::default(), Mutex::default());
        Errands(Arc::new(State { sent, next, listed: Mutex::new(Some(Ok(Vec::new()))), asked }))
    }
}

impl Errands {
    /// What every MCP server lists from now on.
    pub fn lists(&self, listed: Result<Vec<McpTool>, ListFault>) {
        *self.0.listed.lock() = Some(listed);
    }

    pub fn hangs_listing(&self) {
        *self.0.listed.lock() = None;
    }

    /// The servers that were asked for their tools, in order.
    pub fn asked(&self) -> Vec<String> {
        self.0.asked.lock().clone()
    }

    pub fn does(&self, errand: Errand) {
        *self.0.next.lock() = Some(errand);
    }

    pub fn sent(&self) -> Vec<HostCall> {
        self.0.sent.lock().iter().map(|(call, _)| call.clone()).collect()
    }

    pub fn sent_at(&self) -> Vec<Timestamp> {
        self.0.sent.lock().iter().map(|(_, at)| *at).collect()
    }

    /// Returns when that many were sent.
    pub async fn until_sent(&self, n: usize) {
        let wait = async {
            while self.0.sent.lock().len() < n {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(15), wait).await;
        assert!(in_time.is_ok(), "{} were sent, not {n}", self.0.sent.lock().len());
    }
}

impl HostTools for Errands {
    fn for_session(&self, _: Arc<dyn Tokens>) -> Arc<dyn SessionTools> {
        self.0.clone()
    }
}

#[async_trait]
impl SessionTools for State {
    async fn call(&self, call: HostCall) -> HostResult {
        let text = call.input.to_string();
        self.sent.lock().push((call, TestClock.now()));
        let errand = self.next.lock().unwrap_or(Errand::Answer);
        match errand {
            Errand::Answer => {}
            Errand::Slow(time) => tokio::time::sleep(time).await,
            Errand::Hang => std::future::pending().await,
            Errand::Panic => panic!("the test wants it so"),
        }
        HostResult::completed(vec![ContentBlock::text(text)], false)
    }

    async fn list(&self, server: &McpServer) -> Result<Vec<McpTool>, ListFault> {
        self.asked.lock().push(server.name.clone());
        let listed = self.listed.lock().clone();
        match listed {
            Some(listed) => listed,
            None => std::future::pending().await,
        }
    }
}

/// A tool that the host runs.
pub fn errand(name: &str, effect: EffectClass, permission_policy: PermissionPolicy) -> Tool {
    Tool::Http(HttpTool {
        name: name.to_owned(),
        description: "for tests".to_owned(),
        input_schema: json!({"type": "object"}),
        url: "http://127.0.0.1:1/".to_owned(),
        effect,
        timeout_ms: 1_000,
        permission_policy,
    })
}
