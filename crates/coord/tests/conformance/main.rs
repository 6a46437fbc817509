//! One test suite for both forms: the same rules hold in process and over Redis.
//!
//! Every rule is a function of two replicas and the control of their clock. In process the two replicas are two clones;
//! over Redis two connections to a private server, which the test starts and kills.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod cells;
mod leases;
mod limits;
mod redis;
mod wakeups;

use std::time::Duration;

use chrono::{DateTime, Utc};
use wxgate_coord::{Clock, Coord, ManualClock};

const SECOND: Duration = Duration::from_secs(1);
/// How long a wake-up may take on a busy machine before the test fails.
const LOST: Duration = Duration::from_secs(20);

fn start() -> DateTime<Utc> {
    "2026-03-01T10:00:00Z".parse().unwrap()
}

/// Two replicas and the time of both.
struct Pair {
    one: Coord,
    two: Coord,
    clock: Clock,
    time: ManualClock,
}

impl Pair {
    fn in_process() -> Self {
        let (clock, time) = Clock::manual(start());
        let one = Coord::in_process(clock.clone());
        Self {
            two: one.clone(),
            one,
            clock,
            time,
        }
    }

    fn on(server: &testkit::Redis) -> Self {
        let (clock, time) = Clock::manual(start());
        let replica = || Coord::redis(&server.url(), clock.clone()).unwrap();
        Self {
            one: replica(),
            two: replica(),
            time,
            clock: clock.clone(),
        }
    }
}

macro_rules! conformance {
    ($($noun:ident::$rule:ident,)*) => {
        mod in_process {
            $(#[tokio::test]
            async fn $rule() {
                crate::$noun::$rule(super::Pair::in_process()).await;
            })*
        }

        mod over_redis {
            $(#[tokio::test]
            async fn $rule() {
                let server = testkit::Redis::start();
                crate::$noun::$rule(super::Pair::on(&server)).await;
            })*
        }
    };
}

conformance! {
    cells::a_cell_keeps_its_newest_generation_until_its_deadline,
    cells::a_cell_is_dropped_by_its_generation_only,
    leases::a_lease_has_one_owner_until_it_ends,
    leases::a_lost_lease_can_be_neither_renewed_nor_released,
    leases::of_many_takers_one_gets_the_lease,
    limits::a_limit_refills_with_time,
    limits::a_limit_charges_all_or_nothing,
    limits::a_cost_above_the_burst_takes_the_whole_bucket,
    limits::keys_do_not_share_a_bucket,
    limits::many_checks_at_once_get_exactly_the_burst,
    wakeups::a_wake_up_reaches_both_replicas_once,
    wakeups::a_wake_up_between_the_look_and_the_wait_is_kept,
    wakeups::a_slow_subscriber_learns_that_it_missed_some,
    wakeups::what_was_said_here_is_gathered,
    health::everybody_is_healthy,
}

mod health {
    pub(crate) async fn everybody_is_healthy(crate::Pair { one, two, .. }: crate::Pair) {
        assert_eq!((one.health().await, two.health().await), (Ok(()), Ok(())));
    }
}
