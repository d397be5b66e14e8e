//! What several want at the same time is done once. It is a task of its own: those who wait may go.

use crate::{ImageError, Resolved};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use loopd_sandbox::progress::{Heard, Teller};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

type Outcome = Result<Resolved, ImageError>;

/// Those who wait, and hear how far it is.
#[derive(Clone)]
struct Flight {
    outcome: Shared<BoxFuture<'static, Outcome>>,
    heard: Heard,
}

#[derive(Default, Clone)]
pub(crate) struct Flights(Arc<Mutex<HashMap<String, Flight>>>);

impl Flights {
    /// What comes of `work`, or of the work of whoever asked for the same before. How far that is `teller` is told.
    pub(crate) async fn join<W>(&self, key: String, teller: &Teller, work: impl FnOnce(Teller) -> W) -> Outcome
    where
        W: Future<Output = Outcome> + Send + 'static,
    {
        let Flight { mut outcome, mut heard } = {
            let mut flights = self.0.lock();
            if let Some(flight) = flights.get(&key) {
                flight.clone()
            } else {
                let (all, done) = (self.clone(), key.clone());
                let (words, heard) = Teller::new();
                let work = work(words);
                let task = tokio::spawn(async move {
                    let landing = Landing { flights: all, key: done };
                    let outcome = work.await;
                    drop(landing);
                    outcome
                });
                let outcome =
                    task.map(|done| done.unwrap_or_else(|stopped| Err(ImageError::unavailable(stopped.to_string()))));
                let flight = Flight { outcome: outcome.boxed().shared(), heard };
                flights.insert(key, flight.clone());
                flight
            }
        };
        // Whoever joins late hears the last word.
        heard.mark_changed();
        loop {
            tokio::select! {
                // Its last word comes before what came of it.
                biased;
                Ok(()) = heard.changed() => {
                    if let Some(progress) = heard.borrow_and_update().clone() {
                        teller.say(progress);
                    }
                }
                outcome = &mut outcome => return outcome,
            }
        }
    }
}

/// Takes a flight off the list, also when its work panics.
struct Landing {
    flights: Flights,
    key: String,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.flights.0.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loopd_domain::progress::{Progress, Stage};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn what_many_want_is_done_once_even_when_the_first_goes_away() {
        let (flights, done, go) = (Flights::default(), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (teller, heard) = Teller::new();
        let work = || {
            let (done, go) = (Arc::clone(&done), Arc::clone(&go));
            move |teller: Teller| async move {
                teller.say(Progress::of(Stage::Install, "a"));
                go.notified().await;
                done.fetch_add(1, Ordering::Relaxed);
                Err(ImageError::broken("torn"))
            }
        };
        assert!(flights.join("a".to_owned(), &Teller::silent(), work()).now_or_never().is_none());
        let (one, two) = (flights.join("a".to_owned(), &teller, work()), flights.join("a".to_owned(), &teller, work()));
        go.notify_one();
        let (one, two) = tokio::join!(one, two);
        assert_eq!((one.unwrap_err().to_string(), two.unwrap_err().to_string()), ("torn".into(), "torn".into()));
        assert_eq!(done.load(Ordering::Relaxed), 1);
        // Said to the first, who is gone; heard by who came later.
        assert_eq!(*heard.borrow(), Some(Progress::of(Stage::Install, "a")));
        // The next one tries again.
        go.notify_one();
        flights.join("a".to_owned(), &Teller::silent(), work()).await.unwrap_err();
        assert_eq!(done.load(Ordering::Relaxed), 2);
        assert!(flights.0.lock().is_empty());
    }
}
