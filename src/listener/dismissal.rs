//! The end of a request by our own will, whatever it waits for just then.
//!
//! Nothing of Pingora can be told to end while it waits for a client that takes nothing. So the
//! future that serves a request is raced against this, and dropped: over HTTP/1 that closes the
//! connection, over HTTP/2 it resets the stream, and in both cases the client sees that the body
//! is short of its `content-length`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::connection::Connection;
use crate::upstream::Taker;

tokio::task_local! {
    /// The dismissal of the request which this task serves.
    static CURRENT: Arc<Dismissal>;
}

/// Whether a request is to end.
#[derive(Debug, Default)]
pub(super) struct Dismissal {
    told: Notify,
    was_told: AtomicBool,
}

impl Dismissal {
    /// Serves a request until it is over or told to end, which is nothing.
    pub(super) async fn or_serve<T>(serve: impl Future<Output = Option<T>>) -> Option<T> {
        let dismissal = Arc::<Self>::default();
        let serve = CURRENT.scope(Arc::clone(&dismissal), serve);
        tokio::select! {
            biased;
            () = dismissal.told.notified() => None,
            served = serve => served,
        }
    }

    /// Whether the request was told to end.
    pub(super) fn was_told(&self) -> bool {
        self.was_told.load(Ordering::Acquire)
    }

    /// The dismissal of the request which this task serves.
    pub(super) fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }
}

/// The client of a request, as whoever sends it something may look at it and leave it.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) connection: Arc<Connection>,
    /// Whether other requests are served beside it.
    pub(super) multiplexed: bool,
    pub(super) dismissal: Arc<Dismissal>,
}

impl Taker for Served {
    fn waited(&self, now: Instant) -> Duration {
        self.connection.waited(now)
    }

    fn dismiss(&self) {
        if !self.multiplexed {
            // The client is to notice now, and not once it has taken what the system holds for it.
            self.connection.forget();
        }
        self.dismissal.was_told.store(true, Ordering::Release);
        self.dismissal.told.notify_one();
    }
}
