//! The services that a session's host calls, as a test wants them: they note what they are sent, and answer or not.

use super::TestClock;
use async_trait::async_trait;
use loopd_domain::agent::{HttpTool, PermissionPolicy, Tool};
use loopd_domain::content::ContentBlock;
use loopd_domain::event::EffectClass;
use loopd_domain::{Clock, Timestamp};
use loopd_host_tools::{HostCall, HostResult, HostTools, SessionTools};
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
#[derive(Default)]
pub struct Errands(Arc<State>);

#[derive(Default)]
struct State {
    sent: Mutex<Vec<(HostCall, Timestamp)>>,
    next: Mutex<Option<Errand>>,
}

impl Errands {
    pub fn from_now(&self, errand: Errand) {
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
    fn for_session(&self) -> Arc<dyn SessionTools> {
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
