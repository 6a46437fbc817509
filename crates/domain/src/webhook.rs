//! Webhooks: the types of events, the filters of endpoints, and the times of retries.

use std::{collections::BTreeSet, fmt, time::Duration};

use chrono::{DateTime, Utc};

use crate::lifecycle::Status;

/// How long the gateway retries a webhook delivery.
pub const PATIENCE: Duration = Duration::from_hours(24);
/// How long an endpoint may fail every delivery before the gateway disables the endpoint.
pub const DISABLE_AFTER: Duration = Duration::from_hours(5 * 24);
/// How long the previous secret still signs after a rotation.
pub const PREVIOUS_SECRET_LIFE: Duration = Duration::from_hours(24);

/// The first pause between two attempts.
const BASE: Duration = Duration::from_secs(5);
/// The longest pause between two attempts.
const CAP: Duration = Duration::from_hours(2);
/// The longest random delay of the last attempt after the end of [`PATIENCE`].
const LAST_SPREAD: Duration = Duration::from_mins(10);

/// The type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventType {
    /// WeChat accepted a message.
    MessageSent,
    /// WeChat's receipt says that a message arrived.
    MessageDelivered,
    /// WeChat's receipt says that a message did not arrive.
    MessageUndelivered,
    /// WeChat refuses a message permanently.
    MessageFailed,
    /// A message could not be sent in time.
    MessageExpired,
    /// The outcome of a message is unknown: WeChat may or may not have the message.
    MessageUncertain,
    /// An app stopped sending, because WeChat refuses every message of the app.
    AppBreakerOpened,
    /// Most of an app's daily quota is used.
    AppQuotaWarning,
    /// Another system replaced an app's access token.
    AppForeignRefresh,
    /// A template has changed.
    TemplateChanged,
    /// The tenant tests its endpoint.
    WebhookTest,
}

impl EventType {
    /// All types.
    pub const ALL: [Self; 11] = [
        Self::MessageSent,
        Self::MessageDelivered,
        Self::MessageUndelivered,
        Self::MessageFailed,
        Self::MessageExpired,
        Self::MessageUncertain,
        Self::AppBreakerOpened,
        Self::AppQuotaWarning,
        Self::AppForeignRefresh,
        Self::TemplateChanged,
        Self::WebhookTest,
    ];

    /// The name in the API, the database and the payload.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MessageSent => "message.sent",
            Self::MessageDelivered => "message.delivered",
            Self::MessageUndelivered => "message.undelivered",
            Self::MessageFailed => "message.failed",
            Self::MessageExpired => "message.expired",
            Self::MessageUncertain => "message.uncertain",
            Self::AppBreakerOpened => "app.breaker_opened",
            Self::AppQuotaWarning => "app.quota_warning",
            Self::AppForeignRefresh => "app.foreign_refresh",
            Self::TemplateChanged => "template.changed",
            Self::WebhookTest => "webhook.test",
        }
    }

    /// The type with the name `text`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The types that an endpoint can subscribe to. A test event goes only to the endpoint under test.
    pub fn subscribable() -> impl Iterator<Item = Self> {
        Self::ALL
            .into_iter()
            .filter(|kind| *kind != Self::WebhookTest)
    }

    /// The event type of a message's new status; `None`: the status has no event.
    pub fn of(status: Status) -> Option<Self> {
        match status {
            Status::Sent => Some(Self::MessageSent),
            Status::Delivered => Some(Self::MessageDelivered),
            Status::Undelivered => Some(Self::MessageUndelivered),
            Status::Failed => Some(Self::MessageFailed),
            Status::Expired => Some(Self::MessageExpired),
            Status::Uncertain => Some(Self::MessageUncertain),
            Status::Scheduled | Status::Queued | Status::Sending | Status::Canceled => None,
        }
    }

    /// The index in [`EventType::ALL`], by which events of one message in the same millisecond sort.
    pub fn ordinal(self) -> u16 {
        let place = Self::ALL.iter().position(|kind| *kind == self);
        place
            .and_then(|place| u16::try_from(place).ok())
            .unwrap_or_default()
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The events that an endpoint wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventFilter {
    /// All events, including those of later versions.
    All,
    /// The listed events.
    Only(BTreeSet<EventType>),
}

impl EventFilter {
    /// Whether the filter accepts `kind`.
    pub fn wants(&self, kind: EventType) -> bool {
        match self {
            Self::All => true,
            Self::Only(kinds) => kinds.contains(&kind),
        }
    }

    /// Parses the output of [`fmt::Display`]; `None`: a word is not an event.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        let kinds = text.split(' ').map(EventType::parse);
        kinds.collect::<Option<BTreeSet<_>>>().map(Self::Only)
    }

    /// The names of the filter, as the API lists the names.
    pub fn words(&self) -> Vec<&'static str> {
        match self {
            Self::All => vec!["*"],
            Self::Only(kinds) => kinds.iter().map(|kind| kind.as_str()).collect(),
        }
    }
}

impl fmt::Display for EventFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join(" "))
    }
}

/// The time of the next attempt after attempt number `attempt` that started at `began` and failed at `now`. `None`: the
/// failed attempt was the last.
///
/// The pauses triple from five seconds to two hours; jitter subtracts up to a third of each pause. `asked` is the pause
/// that the receiver asked for, and makes a pause longer, never shorter. The last attempt comes when [`PATIENCE`] since
/// `since` is over, so that a receiver that was down for a day misses nothing. `jitter` is a random value in
/// `0.0..1.0`.
pub fn next_try(
    since: DateTime<Utc>,
    began: DateTime<Utc>,
    now: DateTime<Utc>,
    attempt: u32,
    asked: Option<Duration>,
    jitter: f64,
) -> Option<DateTime<Utc>> {
    let end = since + PATIENCE;
    if began >= end {
        return None;
    }
    let jitter = jitter.clamp(0.0, 1.0);
    let full = BASE
        .saturating_mul(3u32.saturating_pow(attempt.saturating_sub(1).min(12)))
        .min(CAP);
    let pause = full.saturating_sub((full / 3).mul_f64(jitter));
    let next = now + pause.max(asked.unwrap_or_default().min(PATIENCE));
    Some(next.min(end + LAST_SPREAD.mul_f64(jitter)).max(now))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: DateTime<Utc> = DateTime::UNIX_EPOCH;

    #[test]
    fn words_read_back() {
        for kind in EventType::ALL {
            assert_eq!(EventType::parse(kind.as_str()), Some(kind));
        }
        let some = EventFilter::parse("message.failed message.sent").unwrap();
        assert_eq!(some.to_string(), "message.sent message.failed");
        assert!(some.wants(EventType::MessageSent) && !some.wants(EventType::MessageExpired));
        assert_eq!(EventFilter::parse("*"), Some(EventFilter::All));
        for wrong in ["", "message.read", "* message.sent"] {
            assert_eq!(EventFilter::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn pauses_grow_and_end_with_the_day() {
        let (mut now, mut pauses) = (START, Vec::new());
        for attempt in 1.. {
            let Some(next) = next_try(START, now, now, attempt, None, 0.0) else {
                break;
            };
            pauses.push((next - now).num_seconds());
            now = next;
        }
        assert_eq!(
            pauses[..8],
            [5, 15, 45, 135, 405, 1_215, 3_645, 7_200],
            "{pauses:?}"
        );
        assert_eq!(now - START, chrono::Duration::hours(24));
        assert_eq!(pauses.len(), 19);
    }

    #[test]
    fn a_try_that_began_before_the_end_is_not_the_last() {
        let end = START + PATIENCE;
        let minute = Duration::from_mins(1);
        assert!(next_try(START, end - minute, end + minute, 9, None, 0.5).is_some());
        assert!(next_try(START, end, end + minute, 9, None, 0.5).is_none());
    }

    #[test]
    fn a_receiver_can_ask_for_more_time_but_not_for_less() {
        let asked = |seconds| {
            let next = next_try(
                START,
                START,
                START,
                4,
                Some(Duration::from_secs(seconds)),
                0.0,
            );
            (next.unwrap() - START).num_seconds()
        };
        assert_eq!((asked(1), asked(600), asked(1_000_000)), (135, 600, 86_400));
    }

    proptest! {
        #[test]
        fn a_try_is_ahead_and_the_last_one_not_before_the_end(
            attempt in any::<u32>(), late in 0i64..200_000, took in 0i64..60, jitter in -1.0..2.0f64, asked in any::<u64>(),
        ) {
            let began = START + chrono::Duration::seconds(late);
            let now = began + chrono::Duration::seconds(took);
            match next_try(START, began, now, attempt, Some(Duration::from_secs(asked)), jitter) {
                None => prop_assert!(began >= START + PATIENCE),
                Some(next) => prop_assert!(next >= now && next <= now.max(START + PATIENCE + LAST_SPREAD)),
            }
        }
    }
}
