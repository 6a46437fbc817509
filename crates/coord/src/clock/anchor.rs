//! The time of a clock that follows another one, as a line over the instants of the monotonic clock. Pure computation
//! without IO and without a clock.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

/// The longest round trip of a useful answer. The answer may be off by half of the round trip.
const LONGEST: Duration = Duration::from_secs(1);
/// A lead up to this is worked off, so that time never goes back; a larger difference is a jump of the other clock.
pub(super) const STEP: Duration = Duration::from_secs(1);
/// While the time is ahead, the clock runs a tenth slower.
const SLOWER: u32 = 10;

/// An answer of another clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The time that the other clock showed at some moment between the question and the answer.
    pub time: DateTime<Utc>,
    /// When the question was sent.
    pub asked_at: Instant,
    /// The time from the question to the answer.
    pub round_trip: Duration,
}

impl Sample {
    /// Whether the answer is precise enough: a slow answer may be off by half of its round trip.
    pub fn is_useful(&self) -> bool {
        self.round_trip <= LONGEST
    }

    /// The time of the other clock at `at`.
    fn shows(&self, at: Instant) -> DateTime<Utc> {
        let middle = self.asked_at + self.round_trip / 2;
        self.time + at.saturating_duration_since(middle)
    }
}

/// The effect of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SampleEffect {
    /// The time continues without a jump.
    Smooth,
    /// The other clock has jumped, and this clock with it.
    Jump,
}

/// A point of the line, and the lead that is being worked off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Anchor {
    at: Instant,
    /// The time shown at `at`.
    time: DateTime<Utc>,
    /// How far `time` is ahead of the other clock.
    ahead: Duration,
}

impl Anchor {
    /// The line through the first sample, as of `at`, which is after the answer.
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

    /// Returns the line from `at` on, corrected by one more sample.
    ///
    /// A difference within half of the round trip changes nothing. A clock that is behind is corrected at once. A small
    /// lead is worked off: the time runs slower and never goes back. A large lead means that the other clock was set
    /// back, and is corrected at once, because replicas with different times misjudge each other's leases.
    pub(super) fn take(&self, sample: &Sample, at: Instant) -> (Self, SampleEffect) {
        let (shown, wanted) = (self.now(at), sample.shows(at));
        let ahead = shown - wanted;
        let off = ahead.abs().to_std().unwrap_or(Duration::MAX);
        let (time, ahead, change) = if off <= sample.round_trip / 2 {
            (shown, Duration::ZERO, SampleEffect::Smooth)
        } else if off > STEP {
            (wanted, Duration::ZERO, SampleEffect::Jump)
        } else if ahead > TimeDelta::zero() {
            (shown, off, SampleEffect::Smooth)
        } else {
            (wanted, Duration::ZERO, SampleEffect::Smooth)
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

    /// An answer of a clock that is `off` from the time since `zero`: asked at `asked`, read `there` later, received
    /// `back` after that, all in milliseconds. Returns the instant of receipt too.
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
        // The other clock is set back by 500 ms.
        let (back, at) = sample(zero, 1000, 0, 0, -500);
        let (slowed, change) = line.take(&back, at);
        assert_eq!(change, SampleEffect::Smooth);
        assert_eq!(slowed.now(at), start() + ms(1000), "no step");
        assert_eq!(
            slowed.now(at + ms(1000)),
            start() + ms(1900),
            "a tenth slower"
        );
        assert_eq!(slowed.now(at + ms(5000)), start() + ms(5500), "worked off");
        assert_eq!(slowed.now(at + ms(9000)), start() + ms(9500));
        // The other clock is set back by a minute.
        let (back, at) = sample(zero, 1000, 0, 0, -60_000);
        let (set_back, change) = line.take(&back, at);
        assert_eq!(change, SampleEffect::Jump);
        assert_eq!(set_back.now(at), start() + ms(1000) - ms(60_000));
    }

    #[test]
    fn an_answer_that_took_long_is_of_no_use() {
        let zero = Instant::now();
        assert!(sample(zero, 0, 500, 500, 0).0.is_useful());
        assert!(!sample(zero, 0, 500, 501, 0).0.is_useful());
    }

    proptest! {
        /// For any delays of the answers, the line stays as near to the other clock as the round trips permit, and
        /// never goes back.
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
                    None => (Anchor::first(&sample, at), SampleEffect::Smooth),
                    Some(line) => {
                        prop_assert!(line.now(at) >= shown);
                        shown = line.now(at);
                        line.take(&sample, at)
                    }
                };
                prop_assert_eq!(change, SampleEffect::Smooth);
                // The line shows no earlier time at once, and is near the truth after a lead is worked off.
                prop_assert!(next.now(at) >= shown);
                let settled = at + ms(20_000);
                let truth = start() + (settled - zero) + TimeDelta::milliseconds(off);
                prop_assert!(distance(next.now(settled), truth) <= ms(there + back));
                line = Some(next);
                asked += there + back;
            }
        }

        /// After the other clock was set, the line follows with the next answer.
        #[test]
        fn a_clock_that_is_set_is_followed_at_once(set in prop_oneof![-4_000_000i64..-2_000, 2_000i64..4_000_000], there in 0u64..400, back in 0u64..400) {
            let zero = Instant::now();
            let (first, at) = sample(zero, 0, 1, 1, 0);
            let line = Anchor::first(&first, at);
            let (other, at) = sample(zero, 5_000, there, back, set);
            let (line, change) = line.take(&other, at);
            prop_assert_eq!(change, SampleEffect::Jump);
            let truth = start() + (at - zero) + TimeDelta::milliseconds(set);
            prop_assert!(distance(line.now(at), truth) <= ms(there + back) / 2 + ms(1));
        }
    }
}
