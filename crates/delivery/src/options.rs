//! The options of the engine.

use std::time::Duration;

use domain::quota::PriorityShares;

/// The options of the engine.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Number of sending slots: messages in flight at the same time, over all apps.
    pub slots: usize,
    /// How long a claim reserves a message for this replica.
    pub lease: Duration,
    /// The longest time that one send can take: the client's total time-out.
    pub send_timeout: Duration,
    /// How much of an app's quota each priority may use.
    pub shares: PriorityShares,
    /// How long messages and the lines of the audit log are kept.
    pub retention: Retention,
    /// Whether webhook endpoints may be in private networks, and may use plain http.
    pub allow_private_webhooks: bool,
}

/// How long messages are kept after their end, and lines of the audit log after they were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Retention of a message's outcome, with every attempt.
    pub messages: Duration,
    /// Retention of a message's content: template values, page, metadata. At most as long as `messages`.
    pub payloads: Duration,
    /// Retention of the lines of the audit log.
    pub audit: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        let days = |days: u64| Duration::from_hours(24 * days);
        Self {
            messages: days(90),
            payloads: days(90),
            audit: days(400),
        }
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            slots: 1024,
            lease: Duration::from_mins(1),
            send_timeout: Duration::from_secs(5),
            shares: PriorityShares::default(),
            retention: Retention::default(),
            allow_private_webhooks: false,
        }
    }
}
