//! What replicas agree on quickly: rate limits, shared cells with deadlines, leases and wake-ups, and the
//! time they all go by.
//!
//! A [`Coord`] comes in two kinds: in process, for a gateway that is alone, and over Redis, for replicas. This
//! is the only crate that knows Redis, and [`Clock`] is the only reader of the wall clock in the program.
//!
//! Two promises hold for everything here:
//!
//! - **Nothing is on the path of correctness.** A cell may be missing, a lease may be held twice, a wake-up may
//!   come for nothing or not at all. Callers look for themselves and go on when Redis is gone.
//! - **Answers are quick.** The first call that Redis leaves without an answer fails after a second, and all others with it:
//!   a breaker opens. Calls then fail at once until a background probe, one a second, finds Redis back. A Redis that comes back empty, or that somebody empties,
//!   needs no restart: every subscriber hears [`Wake::Missed`].
//!
//! To add a thing that replicas share: write its trait and its in-process form in one module, its Redis form
//! under `remote`, give [`Coord`] an accessor, and add its rules to `tests/conformance`, which runs them
//! against both.
//!
//! ```
//! use std::time::Duration;
//! use wxgate_coord::{Clock, Coord, Quota};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let (clock, time) = Clock::manual("2026-03-01T10:00:00Z".parse().unwrap());
//! let coord = Coord::in_process(clock);
//! let quota = Quota::new(2, Duration::from_secs(1), 1);
//!
//! assert!(coord.limits().check("wx0a1b2c3d4e5f6789", quota, 1).await.unwrap().allowed);
//! assert!(!coord.limits().check("wx0a1b2c3d4e5f6789", quota, 1).await.unwrap().allowed);
//! time.advance(Duration::from_millis(500));
//! assert!(coord.limits().check("wx0a1b2c3d4e5f6789", quota, 1).await.unwrap().allowed);
//! # });
//! ```

mod cells;
mod clock;
mod error;
mod leases;
mod limits;
mod remote;
mod wakeups;

use std::sync::Arc;

use self::{
    cells::LocalCells, leases::LocalLeases, limits::LocalLimits, remote::Remote, wakeups::Hub,
};
pub use self::{
    cells::{Cell, Cells},
    clock::{Clock, ClockTrouble, FARTHEST, Leader, ManualClock, Off, Sample},
    error::{CoordError, CoordErrorKind},
    leases::Leases,
    limits::{Decision, Limits, Quota},
    wakeups::{Subscription, Wake, Wakeups},
};

/// Everything that replicas agree on quickly. Cloning is cheap, and clones are the same thing.
#[derive(Clone)]
pub struct Coord(Arc<Inner>);

struct Inner {
    clock: Clock,
    cells: Box<dyn Cells>,
    leases: Box<dyn Leases>,
    wakeups: Box<dyn Wakeups>,
    limits: Box<dyn Limits>,
    remote: Option<Remote>,
}

impl Coord {
    /// For a gateway that is alone: everything in this process's memory.
    pub fn in_process(clock: Clock) -> Self {
        Self(Arc::new(Inner {
            cells: Box::new(LocalCells::new(clock.clone())),
            leases: Box::new(LocalLeases::new(clock.clone())),
            wakeups: Box::new(Hub::default()),
            limits: Box::new(LocalLimits::new(clock.clone())),
            remote: None,
            clock,
        }))
    }

    /// Whether [`Coord::redis`] takes this URL. A refusal has nothing of it in it.
    pub fn check_url(url: &str) -> Result<(), CoordError> {
        remote::check_url(url)
    }

    /// For replicas: shared through the Redis at `url` (`redis://` or `rediss://`).
    ///
    /// Does not wait for Redis: it connects at the first use, and again by itself whenever it must. Has to be
    /// called inside a Tokio runtime; the tasks that carry wake-ups end with the last clone.
    pub fn redis(url: &str, clock: Clock) -> Result<Self, CoordError> {
        Self::redis_trusting(url, None, clock)
    }

    /// As [`Coord::redis`] at a `rediss://` URL whose server shows a certificate that one of `ca` (PEM) has signed.
    pub fn redis_trusting(url: &str, ca: Option<&[u8]>, clock: Clock) -> Result<Self, CoordError> {
        let hub = Hub::default();
        let remote = Remote::open(url, ca, clock.clone(), hub.clone())?;
        Ok(Self(Arc::new(Inner {
            cells: Box::new(remote.cells()),
            leases: Box::new(remote.leases()),
            wakeups: Box::new(remote.wakeups(hub)),
            limits: Box::new(remote.limits()),
            remote: Some(remote),
            clock,
        })))
    }

    /// Values that replicas show each other until a deadline.
    pub fn cells(&self) -> &dyn Cells {
        &*self.0.cells
    }

    /// Turns at doing something that need not be done twice.
    pub fn leases(&self) -> &dyn Leases {
        &*self.0.leases
    }

    /// "Look now", said to whoever waits for a topic.
    pub fn wakeups(&self) -> &dyn Wakeups {
        &*self.0.wakeups
    }

    /// How often something may happen.
    pub fn limits(&self) -> &dyn Limits {
        &*self.0.limits
    }

    /// The time.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Asks Redis for a sign of life; in process there is nothing to ask. For the readiness page.
    pub async fn health(&self) -> Result<(), CoordError> {
        match &self.0.remote {
            Some(remote) => remote.ping().await,
            None => Ok(()),
        }
    }

    /// Asks Redis for all that replicas need of it, such as scripts and every key, and leaves nothing in it; in process there is
    /// nothing to ask.
    pub async fn examine(&self) -> Result<(), CoordError> {
        match &self.0.remote {
            Some(remote) => remote.examine().await,
            None => Ok(()),
        }
    }

    /// Whether Redis took the last thing that it was asked, by anybody here; none: there is no Redis. For metrics: it
    /// asks nothing. A Redis that goes or comes back is noticed within 5 s, also where nobody needs it.
    pub fn is_up(&self) -> Option<bool> {
        self.0.remote.as_ref().map(Remote::is_up)
    }

    /// Whether other replicas see what this one puts here.
    pub fn is_shared(&self) -> bool {
        self.0.remote.is_some()
    }
}

impl std::fmt::Debug for Coord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coord")
            .field("is_shared", &self.is_shared())
            .field("clock", self.clock())
            .finish()
    }
}
