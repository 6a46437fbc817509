//! The timekeeper keeps the program's clock in step with the database's clock, which is the same for all replicas, and
//! reports when this machine's own clock is off.
//!
//! The timekeeper asks the database three times before any other part starts, and every 5 seconds after that. The
//! answer with the shortest round trip becomes a sample of `coord::Clock`. The clock then shows the time of the sample,
//! taken as the middle of the round trip, plus the monotonic time since (`coord::clock::anchor`). An answer that took
//! more than a second is not used. A difference that the round trip explains changes nothing.
//!
//! Due times, leases, ttl, quota days, token expiry, signatures and the times in all rows therefore agree over replicas
//! within half a round trip, whatever the clocks of the machines show. A lead of up to a second is worked off: the
//! clock runs a tenth slower and never goes back. A larger difference means that the database's clock was set or that
//! another server has taken over. The clock follows such a difference at once, because replicas with different times
//! misjudge each other's leases.
//!
//! An embedded gateway follows no clock and uses the clock of the machine.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use coord::{Clock, ClockFeed, FARTHEST, Off, Sample};
use store::{Store, StoreError};
use tokio::time::{sleep, timeout};
use tokio_util::{future::FutureExt, sync::CancellationToken, task::TaskTracker};

/// The interval of the questions to the database, in real time under every clock: the database's clock is real.
const EVERY: Duration = Duration::from_secs(5);
/// The number of questions in a row. The answer with the shortest round trip is the most exact.
const QUESTIONS: usize = 3;
/// The longest wait for one answer. An answer that takes longer is useless.
const PATIENCE: Duration = Duration::from_secs(2);
/// The number of attempts to get the first answer.
const FIRST_TRIES: usize = 5;
/// The largest offset of this machine's clock that the log does not mention.
pub(crate) const NOTICEABLE: TimeDelta = TimeDelta::seconds(1);
/// Hysteresis: a reported offset must fall below `NOTICEABLE` by this margin before the report ends.
const MARGIN: TimeDelta = TimeDelta::milliseconds(200);

/// The task that asks the database, where the database has a clock.
#[derive(Debug)]
pub(crate) struct Timekeeper {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Timekeeper {
    /// Keeps `clock` in step with the database's clock. When this function returns, the time of the database is known.
    /// An embedded database has no clock, and a manual clock follows none.
    pub(crate) async fn start(store: &Store, clock: &Clock) -> Result<Self, StoreError> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        if store.time().await?.is_some()
            && let Some(leader) = clock.follow()
        {
            first(store, &leader).await?;
            let keeping = keep(store.clone(), clock.clone(), leader);
            tasks.spawn(keeping.with_cancellation_token_owned(stop.clone()));
        }
        tasks.close();
        Ok(Self { tasks, stop })
    }

    /// Stops the questions.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

async fn first(store: &Store, leader: &ClockFeed) -> Result<(), StoreError> {
    for _ in 0..FIRST_TRIES {
        if let Some(sample) = ask(store).await?
            && leader.take(&sample)
        {
            return Ok(());
        }
    }
    Err(StoreError::Unavailable(
        "the database takes over a second to report its time, which due times and leases depend on"
            .into(),
    ))
}

async fn keep(store: Store, clock: Clock, leader: ClockFeed) {
    let mut standing = ClockState::Right;
    loop {
        if let Some(off) = clock.off() {
            standing = standing.next(off);
        }
        tokio::select! {
            () = leader.asked() => {}
            () = sleep(EVERY) => {}
        }
        match ask(&store).await {
            Ok(Some(sample)) => drop(leader.take(&sample)),
            Ok(None) => {}
            // The watch reports an unavailable database.
            Err(error) => tracing::debug!(%error, "the database does not report its time"),
        }
    }
}

/// The answer with the shortest round trip. `None`: no answer came.
pub(crate) async fn ask(store: &Store) -> Result<Option<Sample>, StoreError> {
    let mut best: Option<Sample> = None;
    for _ in 0..QUESTIONS {
        let asked_at = Instant::now();
        let Ok(answer) = timeout(PATIENCE, store.time()).await else {
            break;
        };
        let Some(time) = answer? else {
            return Ok(None);
        };
        let round_trip = asked_at.elapsed();
        if best.is_none_or(|best| round_trip < best.round_trip) {
            best = Some(Sample {
                time,
                asked_at,
                round_trip,
            });
        }
    }
    Ok(best)
}

/// The reported state of this machine's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClockState {
    Right,
    Off,
    Far,
}

impl ClockState {
    /// The next state. Each change writes a line to the log.
    fn next(self, off: TimeDelta) -> Self {
        let now = self.of(off.abs());
        let by = Off(off);
        match now {
            _ if now == self => {}
            Self::Right => {
                tracing::info!("this machine's clock agrees with the database's again");
            }
            Self::Off => tracing::warn!(
                offset_ms = off.num_milliseconds(),
                "this machine's clock is {by} the database's clock: due times and leases follow the database's clock; certificates, the log and WeChat's signatures follow this machine's clock; synchronise both clocks (NTP)"
            ),
            Self::Far => tracing::error!(
                offset_ms = off.num_milliseconds(),
                "this machine's clock is {by} the database's clock, more than {} s: this replica takes no work until both clocks are synchronised (NTP)",
                FARTHEST.num_seconds()
            ),
        }
        now
    }

    fn of(self, off: TimeDelta) -> Self {
        let margin = if self == Self::Right {
            TimeDelta::zero()
        } else {
            MARGIN
        };
        if off > FARTHEST {
            Self::Far
        } else if off > NOTICEABLE - margin {
            Self::Off
        } else {
            Self::Right
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_is_mentioned_once_until_it_is_clearly_right() {
        let mut standing = ClockState::Right;
        let ms = TimeDelta::milliseconds;
        for (off, expected) in [
            (900, ClockState::Right),
            (1_100, ClockState::Off),
            (900, ClockState::Off),
            (-1_100, ClockState::Off),
            (700, ClockState::Right),
            (-31_000, ClockState::Far),
            (29_000, ClockState::Off),
            (0, ClockState::Right),
        ] {
            standing = standing.next(ms(off));
            assert_eq!(standing, expected, "{off} ms");
        }
    }

    #[tokio::test]
    async fn an_embedded_database_has_no_clock_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/wxgate.db", folder.path().display());
        let (store, clock) = (Store::connect(&url).await.unwrap(), Clock::system());
        let keeper = Timekeeper::start(&store, &clock).await.unwrap();
        assert_eq!((clock.off(), clock.trouble()), (None, None));
        keeper.stop().await;
        store.close().await.unwrap();
    }
}
