//! A line through time: what a clock that follows another one shows at each instant of the monotonic clock. No IO, no
//! clock of its own.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

/// The longest round trip of an answer that is of use: half of it is how far the answer may be off.
const LONGEST: Duration = Duration::from_secs(1);
/// A difference that is worked off, so that time never goes back; a larger one is a jump of the other clock.
pub(super) const STEP: Duration = Duration::from_secs(1);
/// While time is ahead it goes slower by a tenth.
const SLOWER: u32 = 10;

/// What another clock answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The time that it showed at some moment between the question and the answer.
    pub time: DateTime<Utc>,
    /// When it was asked.
    pub asked_at: Instant,
    /// How long the answer took.
    pub round_trip: Duration,
}

impl Sample {
    /// Whether it says enough: an answer that took long may be off by as much.
    pub fn is_useful(&self) -> bool {
        self.round_trip <= LONGEST
    }

    /// What the other clock shows at `at`.
    fn shows(&self, at: Instant) -> DateTime<Utc> {
        let middle = self.asked_at + self.round_trip / 2;
        self.time + at.saturating_duration_since(middle)
    }
}

/// What a sample changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing to speak of: time goes on without a jump.
    Smooth,
    /// The other clock has jumped, so this one has.
    Jump,
}

/// The line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Anchor {
    at: Instant,
    /// What is shown at `at`.
    time: DateTime<Utc>,
    /// How far that is ahead of the other clock.
    ahead: Duration,
}

impl Anchor {
    /// The line through the first sample, seen from `at`, which is after its answer.
    pub(super) fn first(sample: &Sample, at: Instant) -> Self {
        Self {
            at,
            time: sample.shows(at),
            ahead: Duration::ZERO,
        }
    }

    /// The time at `at`.
    pub(super) fn now(&self, at: Instant) -> DateTime<Utc> {
        let passed = at.saturating_duration_since(self.at);
        self.time + passed.saturating_sub(self.ahead.min(passed / SLOWER))
    }

    /// The line from `at` on, with what one more sample says.
    ///
    /// A difference that the round trip explains changes nothing. One to the front is made up for at once. A small one to
    /// the back is worked off: time goes slower and never back. A large one means that the other clock was set back, and is
    /// followed at once: as long as replicas differ, one of them judges the leases of another.
    pub(super) fn take(&self, sample: &Sample, at: Instant) -> (Self, Change) {
        let (shown, wanted) = (self.now(at), sample.shows(at));
        let ahead = shown - wanted;
        let off = ahead.abs().to_std().unwrap_or(Duration::MAX);
        let (time, ahead, change) = if off <= sample.round_trip / 2 {
            (shown, Duration::ZERO, Change::Smooth)
        } else if off > STEP {
            (wanted, Duration::ZERO, Change::Jump)
        } else if ahead > TimeDelta::zero() {
            (shown, off, Change::Smooth)
        } else {
            (wanted, Duration::ZERO, Change::Smooth)
        };
        (Self { at, time, ahead }, change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn start() -> DateTime<Utc> {
        DateTime::from_timestamp(1_780_000_000, 0).unwrap()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// An answer of a clock that is `off` from the time since `zero`: asked for at `asked`, read `there` later, here `back`
    /// after that, all in milliseconds. And when it was here.
    fn sample(zero: Instant, asked: u64, there: u64, back: u64, off: i64) -> (Sample, Instant) {
        let sample = Sample {
            time: start() + ms(asked + there) + TimeDelta::milliseconds(off),
            asked_at: zero + ms(asked),
            round_trip: ms(there + back),
        };
        (sample, zero + ms(asked + there + back))
    }

    fn distance(one: DateTime<Utc>, other: DateTime<Utc>) -> Duration {
        (one - other).abs().to_std().unwrap()
    }

    #[test]
    fn a_small_lead_is_worked_off_and_a_large_one_given_up_at_once() {
        let zero = Instant::now();
        let (first, at) = sample(zero, 0, 0, 0, 0);
        let line = Anchor::first(&first, at);
        // The other clock is 500 ms behind what it was.
        let (back, at) = sample(zero, 1000, 0, 0, -500);
        let (slowed, change) = line.take(&back, at);
        assert_eq!(change, Change::Smooth);
        assert_eq!(slowed.now(at), start() + ms(1000), "no step");
        assert_eq!(
            slowed.now(at + ms(1000)),
            start() + ms(1900),
            "a tenth slower"
        );
        assert_eq!(slowed.now(at + ms(5000)), start() + ms(5500), "worked off");
        assert_eq!(slowed.now(at + ms(9000)), start() + ms(9500));
        // And a minute behind.
        let (back, at) = sample(zero, 1000, 0, 0, -60_000);
        let (set_back, change) = line.take(&back, at);
        assert_eq!(change, Change::Jump);
        assert_eq!(set_back.now(at), start() + ms(1000) - ms(60_000));
    }

    #[test]
    fn an_answer_that_took_long_is_of_no_use() {
        let zero = Instant::now();
        assert!(sample(zero, 0, 500, 500, 0).0.is_useful());
        assert!(!sample(zero, 0, 500, 501, 0).0.is_useful());
    }

    proptest! {
        /// However the answers travel: the line is as near to the other clock as their round trips permit, and never goes
        /// back by itself.
        #[test]
        fn a_line_follows_a_clock_and_never_goes_back(
            trips in proptest::collection::vec((1u64..9_000, 0u64..200, 0u64..200, -80i64..80), 1..40),
        ) {
            let zero = Instant::now();
            let (mut asked, mut off, mut line, mut shown) = (0, 0, None::<Anchor>, start() - ms(3_600_000));
            for (pause, there, back, drift) in trips {
                asked += pause;
                off += drift;
                let (sample, at) = sample(zero, asked, there, back, off);
                let (next, change) = match line {
                    None => (Anchor::first(&sample, at), Change::Smooth),
                    Some(line) => {
                        prop_assert!(line.now(at) >= shown);
                        shown = line.now(at);
                        line.take(&sample, at)
                    }
                };
                prop_assert_eq!(change, Change::Smooth);
                // As it shows from now on, and when a lead is worked off.
                prop_assert!(next.now(at) >= shown);
                let settled = at + ms(20_000);
                let truth = start() + (settled - zero) + TimeDelta::milliseconds(off);
                prop_assert!(distance(next.now(settled), truth) <= ms(there + back));
                line = Some(next);
                asked += there + back;
            }
        }

        /// A clock that is set, by whatever, is followed with the next answer.
        #[test]
        fn a_clock_that_is_set_is_followed_at_once(set in prop_oneof![-4_000_000i64..-2_000, 2_000i64..4_000_000], there in 0u64..400, back in 0u64..400) {
            let zero = Instant::now();
            let (first, at) = sample(zero, 0, 1, 1, 0);
            let line = Anchor::first(&first, at);
            let (other, at) = sample(zero, 5_000, there, back, set);
            let (line, change) = line.take(&other, at);
            prop_assert_eq!(change, Change::Jump);
            let truth = start() + (at - zero) + TimeDelta::milliseconds(set);
            prop_assert!(distance(line.now(at), truth) <= ms(there + back) / 2 + ms(1));
        }
    }
}
