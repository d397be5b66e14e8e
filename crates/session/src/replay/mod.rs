//! A session run again: the loop is given the recorded answers and results, and what it decides is held against what the
//! journal says was done. Pure over events.
//!
//! The journal has what the host wrote, not when the loop heard of it: an input may be in the journal before the loop knows
//! it, and a batch of the loop's may have been on its way meanwhile. So there is not one world to replay but several, each
//! with another order of hearing; an event that no world can explain is a divergence. [`world`] says what a world is,
//! [`explain`] which event each of them can explain.
//!
//! A takeover that left no mark in the journal (a hand-over between servers in mid-turn) looks like a loop that was begun
//! anew. It is assumed only where nothing else explains an event, and counted.

mod digests;
mod explain;
mod world;

pub use digests::{Digests, History, RequestDigests};

use explain::Scene;
use loopd_agent_loop::LoopConfig;
use loopd_domain::agent::AgentSpec;
use loopd_domain::content::ContentBlock;
use loopd_domain::event::{Event, EventBody, RetryStatus};
use loopd_domain::fold::{FinalAnswer, IllegalEvent, OpenTurn, SessionFold};
use loopd_domain::limits::REPLAY_WORLDS_MAX;
use loopd_domain::mcp::McpListings;
use loopd_domain::session::SessionAgent;
use loopd_domain::{Seq, limits};
use serde::Serialize;
use world::World;

/// What is wrong with a final answer, when something is.
pub type Judge = Box<dyn Fn(&OpenTurn, &FinalAnswer, &str) -> Option<String> + Send>;

/// What a replay came to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Replay {
    pub turns: u32,
    pub steps: u64,
    pub events: u64,
    /// Takeovers that the journal does not tell of and without which it cannot be explained.
    pub unannounced_takeovers: u32,
    /// The first event that the loop does not explain; nothing after it was replayed.
    pub divergence: Option<Divergence>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Divergence {
    pub seq: Seq,
    #[serde(rename = "type")]
    pub kind: String,
    /// What the loop would have had in this place.
    pub expected: String,
    /// What the journal has there.
    pub got: String,
}

pub struct Replayer {
    config: LoopConfig,
    judge: Judge,
    /// Whose tools `config` names, and what its MCP servers listed last.
    agent: Option<AgentSpec>,
    listed: McpListings,
    fold: SessionFold,
    scene: Scene,
    worlds: Vec<World>,
    report: Replay,
}

impl Replayer {
    pub fn new(config: LoopConfig, judge: Judge) -> Self {
        let worlds = vec![World::default()];
        let (agent, listed, fold, scene, report) = Default::default();
        Replayer { config, judge, agent, listed, fold, scene, worlds, report }
    }

    /// As a session's own host would run it.
    pub fn of(agent: &SessionAgent) -> Self {
        let config = LoopConfig {
            tools: names(&agent.spec, &McpListings::new()),
            parallel_max: limits::CALLS_PARALLEL_MAX,
            calls_max: limits::CALLS_PER_STEP_MAX,
            output_repairs_max: limits::OUTPUT_REPAIRS_MAX,
        };
        let judge = Box::new(crate::output::fault_of);
        Replayer { agent: Some(agent.spec.clone()), ..Replayer::new(config, judge) }
    }

    /// The next event. False once there is a divergence: nothing more is looked at.
    pub fn apply(&mut self, event: &Event) -> Result<bool, IllegalEvent> {
        if self.report.divergence.is_some() {
            return Ok(false);
        }
        let before = self.fold.clone();
        self.fold.apply(event)?;
        let mut explained = self.explained(&before, event, self.worlds.clone());
        if explained.is_empty() {
            let anew = vec![World::default()];
            explained = self.explained(&before, event, anew);
            self.report.unannounced_takeovers += u32::from(!explained.is_empty());
        }
        if explained.is_empty() {
            self.report.divergence = Some(self.divergence(&before, event));
            return Ok(false);
        }
        self.worlds = explained;
        self.remember(event);
        self.report.events += 1;
        self.report.turns = self.fold.turns;
        self.report.steps = self.fold.steps;
        Ok(true)
    }

    pub fn report(self) -> Replay {
        self.report
    }

    /// The worlds after `event`, of all that could be before it.
    fn explained(&self, before: &SessionFold, event: &Event, worlds: Vec<World>) -> Vec<World> {
        let mut next = Vec::new();
        for world in self.reachable(before, event, worlds) {
            for after in explain::explain(&self.scene, &world, before, &self.fold, event, self.judge.as_ref()) {
                if !next.contains(&after) && next.len() < REPLAY_WORLDS_MAX {
                    next.push(after);
                }
            }
        }
        next
    }

    /// What may have come to pass since the last event, without one: the loop was begun, or heard of what is written.
    fn reachable(&self, before: &SessionFold, event: &Event, mut worlds: Vec<World>) -> Vec<World> {
        let mut at = 0;
        while at < worlds.len() {
            let begin = |now| world::begin(&self.config, before, &self.scene, self.judge.as_ref(), now);
            for after in worlds[at].clone().onward(before, event.at, begin) {
                if !worlds.contains(&after) && worlds.len() < REPLAY_WORLDS_MAX {
                    worlds.push(after);
                }
            }
            at += 1;
        }
        worlds
    }

    fn remember(&mut self, event: &Event) {
        let scene = &mut self.scene;
        match &event.body {
            EventBody::UserMessage { .. } | EventBody::SystemMessage { .. } => scene.taken.push(event.id.clone()),
            EventBody::OutputRejected { message } => scene.repair = Some(message.clone()),
            EventBody::McpToolsListed { mcp_server_name, tools: Some(tools) } => {
                self.listed.insert(mcp_server_name.clone(), tools.clone());
                if let Some(agent) = &self.agent {
                    self.config.tools = names(agent, &self.listed);
                }
            }
            EventBody::StatusRunning { .. } => scene.taken.clear(),
            EventBody::ModelRequestStart { .. } => *scene = Scene::default(),
            EventBody::SessionError { error } if error.retry_status == RetryStatus::Exhausted => {
                scene.exhausted = true;
            }
            EventBody::AgentMessage { content, .. } => {
                let texts = content.iter().filter_map(|c| match c {
                    ContentBlock::Text { text } => Some(text.as_str()),
                    _ => None,
                });
                scene.answer.extend(texts);
            }
            _ => {}
        }
    }

    fn divergence(&self, before: &SessionFold, event: &Event) -> Divergence {
        let mut expected: Vec<String> = Vec::new();
        for world in self.reachable(before, event, self.worlds.clone()) {
            let told = world.expects(before);
            if !expected.contains(&told) {
                expected.push(told);
            }
        }
        // What most has been heard in is most likely what would have been done.
        let expected = expected.pop().unwrap_or_else(|| "nothing".to_owned());
        let got = explain::describe(&self.scene, &event.body);
        Divergence { seq: event.seq, kind: event.body.kind().to_owned(), expected, got }
    }
}

fn names(agent: &AgentSpec, listed: &McpListings) -> Vec<String> {
    agent.resolve_tools(listed).into_iter().map(|tool| tool.spec.name).collect()
}
