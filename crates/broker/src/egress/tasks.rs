//! What runs beside a connection, and ends with it.

use parking_lot::Mutex;
use std::future::Future;
use std::sync::{Arc, Weak};
use tokio::task::JoinSet;

/// Owns the tasks of one connection: when it is dropped, they are cut.
pub(crate) struct Scope(Arc<Mutex<JoinSet<()>>>);

/// Starts tasks in a [`Scope`]; after its end nothing starts any more.
#[derive(Clone)]
pub(crate) struct Tasks(Weak<Mutex<JoinSet<()>>>);

impl Scope {
    pub(crate) fn new() -> Self {
        Scope(Arc::new(Mutex::new(JoinSet::new())))
    }

    pub(crate) fn tasks(&self) -> Tasks {
        Tasks(Arc::downgrade(&self.0))
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.0.lock().abort_all();
    }
}

impl Tasks {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let Some(set) = self.0.upgrade() else { return };
        let mut set = set.lock();
        while set.try_join_next().is_some() {}
        set.spawn(task);
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}
