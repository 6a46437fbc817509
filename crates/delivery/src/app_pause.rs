//! Pauses: what the outcome of one attempt means for the whole app.
//!
//! A misconfigured app, or an app with a spent daily quota, pauses as a whole: the transaction of the record pauses the
//! lane, so that no other message of the app fails for the same reason. A repair opens the lane at once: `verify`, a
//! new AppSecret, a larger quota.
//!
//! **Probes.** When a pause ends, the claim takes one message, the probe. The lane opens when WeChat accepts or rejects
//! the probe. The app pauses again if WeChat refuses the app. A probe whose worker is lost is followed by the next
//! probe when the lease ends.
//!
//! **Spent days.** WeChat answers 45009 for a spent day and sometimes for a spent minute. WeChat's own count (`quota`)
//! decides: with sends left, only the minute is spent. WeChat does not say when the day begins, so the gateway probes a
//! spent day every half hour in the first eight hours after midnight in Shanghai. WeChat's count replaces the gateway's
//! count where WeChat has fewer sends left, because other systems send in the app's name.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::{lifecycle::Event, quota, retry::Delay, verdict::Verdict};
use store::{ClaimedMessage, LaneChange, LanePause, QUOTA_EXHAUSTED, THROTTLED};

/// How long an app stays paused after a probe without a clear result.
const PROBE_AGAIN: Duration = Duration::from_secs(5);
/// WeChat does not say when its day begins: for this long after midnight here, a spent quota may be yesterday's.
const DAY_MAY_BE_LATE: Duration = Duration::from_hours(8);
/// The interval of probes in that time.
const LOOK_FOR_THE_DAY: Duration = Duration::from_mins(30);

/// Why an app is paused, and until when.
#[derive(Debug)]
pub(crate) struct AppPause {
    pub(crate) until: DateTime<Utc>,
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
}

impl AppPause {
    /// The pause that an answer to one message causes for the app. `said` is the text of WeChat's answer.
    pub(crate) fn of(verdict: &Verdict, said: &str, now: DateTime<Utc>) -> Option<Self> {
        match verdict {
            Verdict::AppBlocked { reason, pause } => Some(Self {
                until: now + *pause,
                reason: reason.as_str(),
                detail: format!("{} ({said})", reason.advice()),
            }),
            Verdict::Later(Delay::NextMinute) => Some(Self::minute(now, said)),
            Verdict::QuotaSpent => Some(Self {
                until: next_day(now),
                reason: QUOTA_EXHAUSTED,
                detail: format!("WeChat says that the app's quota for today is used up ({said})"),
            }),
            _ => None,
        }
    }

    /// The pause in view of WeChat's own count: a "spent day" with sends left was a spent minute. `remain` is the
    /// number of sends that WeChat says are left today, if WeChat gave a number.
    pub(crate) fn reconciled(self, remain: Option<u64>, now: DateTime<Utc>) -> Self {
        match remain {
            Some(remain) if self.reason == QUOTA_EXHAUSTED && remain > 0 => {
                let said = format!(
                    "{}; by WeChat's own count {remain} messages are left",
                    self.detail
                );
                Self::minute(now, &said)
            }
            _ => self,
        }
    }

    fn minute(now: DateTime<Utc>, said: &str) -> Self {
        Self {
            until: Delay::NextMinute.next_try(now, 1, 0.0),
            reason: THROTTLED,
            detail: format!("WeChat accepts no more messages of the app this minute ({said})"),
        }
    }
}

/// When an app with a spent day is probed: at the start of the next day, or soon if the present day may not have
/// begun at WeChat yet.
fn next_day(now: DateTime<Utc>) -> DateTime<Utc> {
    if day_may_be_late(now) {
        now + LOOK_FOR_THE_DAY
    } else {
        quota::reset_at(now)
    }
}

/// Whether WeChat's count may still be yesterday's.
pub(crate) fn day_may_be_late(now: DateTime<Utc>) -> bool {
    quota::day(now) != quota::day(now - DAY_MAY_BE_LATE)
}

/// The change to the app's lane that the outcome of one attempt causes.
pub(crate) fn news(
    message: &ClaimedMessage,
    rest: Option<&AppPause>,
    event: &Event,
    now: DateTime<Utc>,
) -> Option<LaneChange> {
    let appid = message.appid.clone();
    if let Some(rest) = rest {
        return Some(LaneChange::Pause(LanePause {
            appid,
            until: rest.until,
            reason: rest.reason.to_owned(),
            detail: rest.detail.clone(),
            refused: 1,
            by_probe: message.is_probe,
        }));
    }
    message.is_probe.then(|| {
        if event.is_final() {
            LaneChange::Open(appid)
        } else {
            LaneChange::StillPaused(appid, now + PROBE_AGAIN)
        }
    })
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    #[test]
    fn a_spent_day_is_looked_at_again_while_it_may_be_yesterday() {
        let rest = |hour| {
            let now = Utc.with_ymd_and_hms(2026, 3, 1, hour, 0, 0).unwrap();
            AppPause::of(&Verdict::QuotaSpent, "45009", now).map(|rest| rest.until - now)
        };
        // 00:00 in Shanghai is 16:00 UTC.
        assert_eq!(rest(12), Some(chrono::Duration::hours(4)));
        assert_eq!(rest(16), Some(chrono::Duration::minutes(30)));
        assert_eq!(rest(23), Some(chrono::Duration::minutes(30)));
        assert_eq!(rest(0), Some(chrono::Duration::hours(16)));
    }

    #[test]
    fn a_spent_day_with_sends_left_was_a_minute() {
        let now = Utc.with_ymd_and_hms(2026, 3, 1, 12, 0, 30).unwrap();
        let spent = || AppPause::of(&Verdict::QuotaSpent, "45009", now).unwrap();
        assert_eq!(spent().reconciled(Some(0), now).reason, QUOTA_EXHAUSTED);
        assert_eq!(spent().reconciled(None, now).reason, QUOTA_EXHAUSTED);
        let minute = spent().reconciled(Some(1), now);
        assert_eq!(minute.reason, THROTTLED);
        assert!(minute.until - now <= chrono::Duration::seconds(30));
    }
}
