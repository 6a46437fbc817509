//! Fast coordination of replicas: rate limits, shared cells with deadlines, leases, wake-ups, and the common time.
//!
//! A [`Coord`] comes in two forms: in process, for a gateway of one replica, and over Redis, for several replicas. This
//! is the only crate that uses Redis, and [`Clock`] is the only reader of the wall clock in the program.
//!
//! Two guarantees hold for everything here:
//!
//! - **Correctness does not depend on coordination.** A cell may be missing, two owners may hold a lease, a wake-up may
//!   come without a reason or not at all. Callers check the facts themselves and continue without Redis.
//! - **Answers are quick.** The first call without an answer from Redis fails after a second, together with all other
//!   calls, and opens a circuit breaker. Calls then fail at once until a background probe, one a second, gets an
//!   answer. After a loss of all data in Redis no restart is needed: every subscriber receives [`Wake::Missed`].
//!
//! To add another thing that replicas share: write the trait and the in-process form in one module and the Redis form
//! under `remote`, give [`Coord`] an accessor, and add the rules to `tests/conformance`, which runs the rules against
//! both forms.
//!
//! ```
//! use std::time::Duration;
//! use wxgate_coord::{Clock, Coord, RateLimit};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let (clock, time) = Clock::manual("2026-03-01T10:00:00Z".parse().unwrap());
//! let coord = Coord::in_process(clock);
//! let quota = RateLimit::new(2, Duration::from_secs(1), 1);
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
    clock::{Clock, ClockFeed, ClockTrouble, FARTHEST, ManualClock, Off, Sample},
    error::CoordError,
    leases::Leases,
    limits::{Decision, Limits, RateLimit},
    wakeups::{Wake, WakeupSubscription, Wakeups},
};

/// The entry point to everything that replicas coordinate. Cloning is cheap, and clones share their state.
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
    /// Creates the form for a gateway of one replica: everything is in this process's memory.
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

    /// Whether [`Coord::redis`] accepts this URL. The error contains no part of the URL.
    pub fn check_url(url: &str) -> Result<(), CoordError> {
        remote::check_url(url)
    }

    /// Creates the form for several replicas, shared through the Redis at `url` (`redis://` or `rediss://`).
    ///
    /// Does not wait for Redis: the connection is made at the first use, and again whenever necessary. Must be called
    /// inside a Tokio runtime. The tasks that carry wake-ups end with the last clone.
    pub fn redis(url: &str, clock: Clock) -> Result<Self, CoordError> {
        Self::redis_trusting(url, None, clock)
    }

    /// As [`Coord::redis`], for a `rediss://` server with a certificate that one of `ca` (PEM) has signed.
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

    /// Leases for work that need not be done twice.
    pub fn leases(&self) -> &dyn Leases {
        &*self.0.leases
    }

    /// Wake-ups: messages to the subscribers of a topic that something has changed.
    pub fn wakeups(&self) -> &dyn Wakeups {
        &*self.0.wakeups
    }

    /// Rate limits.
    pub fn limits(&self) -> &dyn Limits {
        &*self.0.limits
    }

    /// The time.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Sends a PING to Redis, for the readiness page. Always succeeds in process.
    pub async fn health(&self) -> Result<(), CoordError> {
        match &self.0.remote {
            Some(remote) => remote.ping().await,
            None => Ok(()),
        }
    }

    /// Checks that Redis can do all that replicas need, such as scripts and access to every key, and leaves nothing in
    /// Redis. Always succeeds in process.
    pub async fn examine(&self) -> Result<(), CoordError> {
        match &self.0.remote {
            Some(remote) => remote.examine().await,
            None => Ok(()),
        }
    }

    /// Whether Redis answers and takes writes, as the last calls by any caller here have shown; none: there is no
    /// Redis. For metrics: this method makes no call. A change is noticed within 5 s, also without other calls.
    pub fn is_up(&self) -> Option<bool> {
        self.0.remote.as_ref().map(Remote::is_up)
    }

    /// Whether other replicas see what this replica writes here.
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
