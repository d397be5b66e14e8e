//! A machine's wishes for connections to the world, as they come.

use super::shared::Shared;
use crate::{Outlet, OutletStream};
use async_trait::async_trait;
use std::io;
use std::sync::Arc;

pub(super) struct LinkOutlet(Arc<Shared>);

impl LinkOutlet {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        LinkOutlet(shared)
    }
}

#[async_trait]
impl Outlet for LinkOutlet {
    async fn accept(&mut self) -> io::Result<Box<dyn OutletStream>> {
        loop {
            if let Some(stream) = self.0.take_wish()? {
                return Ok(Box::new(stream));
            }
            self.0.wish.notified().await;
        }
    }
}

impl Drop for LinkOutlet {
    fn drop(&mut self) {
        self.0.close_outlet();
    }
}
