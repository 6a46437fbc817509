//! Times in the form of the database.

use chrono::{DateTime, Utc};

/// A time in the database's form: milliseconds since 1970, UTC.
pub(crate) fn millis(time: DateTime<Utc>) -> i64 {
    time.timestamp_millis()
}

/// The time that the database stores as `millis`.
pub(crate) fn time(millis: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(millis).unwrap_or_default()
}
