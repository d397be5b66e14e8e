//! What several want at the same time is done once. It is a task of its own: those who wait may go.

use crate::{ImageError, Resolved};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

type Outcome = Result<Resolved, ImageError>;
type Flight = Shared<BoxFuture<'static, Outcome>>;

#[derive(Default, Clone)]
pub(crate) struct Flights(Arc<Mutex<HashMap<String, Flight>>>);

impl Flights {
    /// What comes of `work`, or of the work of whoever asked for the same before.
    pub(crate) async fn join(&self, key: String, work: impl Future<Output = Outcome> + Send + 'static) -> Outcome {
        let flight = {
            let mut flights = self.0.lock();
            if let Some(flight) = flights.get(&key) {
                flight.clone()
            } else {
                let (all, done) = (self.clone(), key.clone());
                let task = tokio::spawn(async move {
                    let landing = Landing { flights: all, key: done };
                    let outcome = work.await;
                    drop(landing);
                    outcome
                });
                let flight =
                    task.map(|done| done.unwrap_or_else(|stopped| Err(ImageError::unavailable(stopped.to_string()))));
                let flight = flight.boxed().shared();
                flights.insert(key, flight.clone());
                flight
            }
        };
        flight.await
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
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn what_many_want_is_done_once_even_when_the_first_goes_away() {
        let (flights, done, go) = (Flights::default(), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let work = || {
            let (done, go) = (Arc::clone(&done), Arc::clone(&go));
            async move {
                go.notified().await;
                done.fetch_add(1, Ordering::Relaxed);
                Err(ImageError::broken("torn"))
            }
        };
        assert!(flights.join("a".to_owned(), work()).now_or_never().is_none());
        let (one, two) = (flights.join("a".to_owned(), work()), flights.join("a".to_owned(), work()));
        go.notify_one();
        let (one, two) = tokio::join!(one, two);
        assert_eq!((one.unwrap_err().to_string(), two.unwrap_err().to_string()), ("torn".into(), "torn".into()));
        assert_eq!(done.load(Ordering::Relaxed), 1);
        // The next one tries again.
        go.notify_one();
        flights.join("a".to_owned(), work()).await.unwrap_err();
        assert_eq!(done.load(Ordering::Relaxed), 2);
        assert!(flights.0.lock().is_empty());
    }
}
