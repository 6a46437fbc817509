//! The times of a callback: when WeChat signed the callback, and when the event happened.

use chrono::{DateTime, TimeDelta, Utc};
use wechat::callback::{EventKind, SigningStamp, WechatEvent};

use super::error::CallbackRefusal;

/// The largest difference between a callback's time stamp and the gateway's time, and between an event's time and the
/// time stamp. An overheard signature is valid no longer than this.
pub(super) const SKEW: TimeDelta = TimeDelta::minutes(5);

/// How far back a swap of timestamp and nonce is considered in a plain callback: the callback is refused if its
/// signature could be that of another callback from this time. Of nonces that are random numbers, one in 7,000 looks
/// like that.
const OVERHEARD: TimeDelta = TimeDelta::days(7);

/// A callback was signed at about the present time.
pub(super) fn check_time(stamp: &SigningStamp, now: DateTime<Utc>) -> Result<(), CallbackRefusal> {
    let away = stamp.signed_at().saturating_sub(now.timestamp());
    if is_near(away) {
        Ok(())
    } else {
        Err(CallbackRefusal::Stale(away))
    }
}

/// WeChat signs a callback at the time of the event. In an encrypted callback only WeChat can write the event's time.
/// An event without a meaning here may have no time.
pub(super) fn check_event_time(
    event: &WechatEvent,
    stamp: &SigningStamp,
) -> Result<(), CallbackRefusal> {
    let away = event.created_at.saturating_sub(stamp.signed_at());
    let says_nothing = matches!(
        event.kind,
        EventKind::Unknown { .. } | EventKind::Unreadable { .. }
    );
    let is_timeless = event.created_at == 0 && says_nothing;
    if is_timeless || is_near(away) {
        Ok(())
    } else {
        Err(CallbackRefusal::Untimely(away))
    }
}

/// A plain signature covers neither the body nor the order of its parts.
pub(super) fn check_readings(
    stamp: &SigningStamp,
    now: DateTime<Utc>,
) -> Result<(), CallbackRefusal> {
    let (from, to) = ((now - OVERHEARD).timestamp(), (now + SKEW).timestamp());
    let mut others = stamp.other_times();
    if others.any(|time| (from..=to).contains(&time)) {
        Err(CallbackRefusal::Ambiguous)
    } else {
        Ok(())
    }
}

fn is_near(seconds: i64) -> bool {
    seconds.unsigned_abs() <= SKEW.num_seconds().unsigned_abs()
}
