//! A room that is being made, and how far it is: told to followers at a pace that they can read.

use super::room::StartedRoom;
use super::until;
use crate::hub::Showing;
use loopd_domain::limits::{ROOM_PROGRESS_MS, ROOM_PROGRESS_QUIET_MS, ROOM_PROGRESS_REPEAT_MS};
use loopd_domain::progress::{Progress, Stage};
use loopd_sandbox::SandboxError;
use loopd_sandbox::progress::{Heard, Teller};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::Instant;

type Outcome = Result<StartedRoom, SandboxError>;

pub struct StartingRoom {
    made: Pin<Box<dyn Future<Output = Outcome> + Send>>,
    heard: Heard,
    since: Instant,
    /// Nothing is told before, as most rooms are there by then; and then the last word again, even when there is no new one.
    next: Instant,
    again: Instant,
    /// From the first word on.
    pub(super) showing: Option<Showing>,
}

/// What comes next of a room.
pub(super) enum Step {
    Made(Box<Outcome>),
    Word(RoomProgress),
}

/// How far a room is for which a session waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomProgress {
    pub progress: Progress,
    pub waited_ms: u64,
}

impl StartingRoom {
    /// `make` tells how far it is, where that takes long.
    pub fn new<F: Future<Output = Outcome> + Send + 'static>(make: impl FnOnce(Teller) -> F) -> Self {
        let (teller, heard) = Teller::new();
        let since = Instant::now();
        let again = since + Duration::from_millis(ROOM_PROGRESS_QUIET_MS);
        let next = since + Duration::from_millis(ROOM_PROGRESS_MS);
        StartingRoom { made: Box::pin(make(teller)), heard, since, next, again, showing: None }
    }

    /// The same room, made in a task of its own from now on: also while nobody asks how far it is.
    pub fn spawned(self) -> Self {
        let task = tokio::spawn(self.made);
        let lost = |e| SandboxError::Launcher(format!("starting a room: {e}"));
        StartingRoom { made: Box::pin(async move { task.await.map_err(lost)? }), ..self }
    }

    /// Safe to cancel.
    pub(super) async fn step(&mut self) -> Step {
        let (heard, next, again) = (&mut self.heard, self.next, self.again);
        // What was heard is not waited for any more after it was taken: whoever is cancelled has taken nothing.
        let word = async {
            until(Some(next)).await;
            tokio::select! {
                Ok(()) = heard.changed() => {}
                () = until(Some(again)) => {}
            }
            heard.borrow().clone()
        };
        let word = tokio::select! {
            biased;
            made = &mut self.made => return Step::Made(Box::new(made)),
            word = word => word,
        };
        let now = Instant::now();
        self.next = now + Duration::from_millis(ROOM_PROGRESS_MS);
        self.again = now + Duration::from_millis(ROOM_PROGRESS_REPEAT_MS);
        let progress = word.unwrap_or_else(|| Progress::of(Stage::Start, ""));
        Step::Word(RoomProgress { progress, waited_ms: now.duration_since(self.since).as_millis() as u64 })
    }

    /// However far it is.
    pub(super) async fn made(mut self) -> Outcome {
        self.made.as_mut().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    async fn word(room: &mut StartingRoom) -> RoomProgress {
        match room.step().await {
            Step::Word(word) => word,
            Step::Made(_) => panic!("it is made"),
        }
    }

    /// A room that is never made, and who makes it.
    fn room() -> (StartingRoom, Teller) {
        let mut teller = None;
        let room = StartingRoom::new(|said| {
            teller = Some(said);
            std::future::pending()
        });
        (room, teller.expect("it was asked for"))
    }

    #[tokio::test]
    async fn a_room_that_says_nothing_is_told_of_after_a_while_and_again() {
        let (mut room, _teller) = room();
        assert!(room.step().now_or_never().is_none(), "most rooms are there before anybody has to be told");
        for _ in 0..2 {
            // The while is over.
            (room.next, room.again) = (room.since, room.since);
            assert_eq!(word(&mut room).await.progress, Progress::of(Stage::Start, ""));
            assert!(room.again > room.next && room.next > room.since);
        }
    }

    #[tokio::test]
    async fn words_come_at_a_pace_and_the_last_one_wins() {
        let (mut room, teller) = room();
        let pull = |done| Progress::of(Stage::Pull, "image").bytes(done, None);
        teller.say(pull(1));
        assert_eq!(word(&mut room).await.progress, pull(1));
        for done in 2..100 {
            teller.say(pull(done));
        }
        room.next = Instant::now() + Duration::from_secs(3_600);
        // Whoever is woken for something else in between loses nothing.
        assert!(room.step().now_or_never().is_none(), "it is too early");
        room.next = room.since;
        assert_eq!(word(&mut room).await.progress, pull(99));
        room.next = room.since;
        assert!(room.step().now_or_never().is_none(), "each once");
    }
}
