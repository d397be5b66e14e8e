//! What is compared: anything that runs one turn of the script and says how long it took.

use crate::stats::Samples;
use anyhow::{Context, Result, anyhow};
use async_trait::async_trait;
use serde::Serialize;
use std::time::Duration;
use tokio::time::Instant;

/// A turn that takes longer hangs.
const TURN_WAIT: Duration = Duration::from_secs(60);

/// One turn: so many steps, each with one call of the tool, then a text.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Turn {
    pub tool: &'static str,
    pub steps: usize,
}

impl Turn {
    /// The model's name that makes the fake provider play this turn.
    pub fn model(self) -> String {
        format!("{}-{}", self.tool, self.steps)
    }
}

#[async_trait]
pub trait Subject: Send {
    /// As the table shows it.
    fn name(&self) -> &'static str;

    /// Runs one whole turn of a new conversation. Fails unless every tool call ran and succeeded.
    async fn turn(&mut self, turn: Turn) -> Result<()>;

    /// Tidies up after a turn, outside of its time.
    async fn settle(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Milliseconds a step of each subject, one sample a round. The subjects take turns, and each round begins with another
/// one, so that a slow minute of the machine hits all of them. One round before the first is not counted.
pub async fn in_turn(subjects: &mut [Box<dyn Subject>], turn: Turn, rounds: usize) -> Result<Vec<Samples>> {
    let mut samples = vec![Samples::default(); subjects.len()];
    for round in 0..=rounds {
        for offset in 0..subjects.len() {
            let index = (round + offset) % subjects.len();
            let took = timed(subjects[index].as_mut(), turn).await?;
            if round > 0 {
                samples[index].push(took.as_secs_f64() * 1e3 / turn.steps as f64);
            }
        }
    }
    Ok(samples)
}

async fn timed(subject: &mut dyn Subject, turn: Turn) -> Result<Duration> {
    let start = Instant::now();
    let ran = tokio::time::timeout(TURN_WAIT, subject.turn(turn)).await;
    let ran = ran.unwrap_or_else(|_| Err(anyhow!("no answer within {TURN_WAIT:?}")));
    ran.with_context(|| format!("{}: a turn of {} steps", subject.name(), turn.steps))?;
    let took = start.elapsed();
    subject.settle().await.with_context(|| format!("{}: tidying up", subject.name()))?;
    Ok(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counter(&'static str, usize);

    #[async_trait]
    impl Subject for Counter {
        fn name(&self) -> &'static str {
            self.0
        }
        async fn turn(&mut self, _: Turn) -> Result<()> {
            self.1 += 1;
            anyhow::ensure!(self.1 <= 4, "worn out");
            Ok(())
        }
    }

    #[tokio::test]
    async fn every_subject_runs_every_round_and_a_failure_names_it() {
        let mut subjects: Vec<Box<dyn Subject>> = vec![Box::new(Counter("one", 0)), Box::new(Counter("two", 0))];
        let turn = Turn { tool: "read", steps: 1 };
        let samples = in_turn(&mut subjects, turn, 3).await.unwrap();
        assert!(samples.iter().all(|s| s.p50() >= 0.0), "{samples:?}");
        let fault = in_turn(&mut subjects, turn, 1).await.unwrap_err();
        assert!(format!("{fault:#}").contains("one: a turn of 1 steps: worn out"), "{fault:#}");
    }
}
