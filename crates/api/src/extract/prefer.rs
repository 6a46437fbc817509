//! `Prefer: wait=N` (RFC 7240).

use std::{convert::Infallible, time::Duration};

use axum::extract::FromRequestParts;
use http::{HeaderMap, HeaderName, request::Parts};

const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The longest wait, in seconds.
const LONGEST: u64 = 30;

/// How many seconds the caller would wait for the message's end. A longer value than allowed counts as the longest one;
/// an unreadable value is ignored, as the RFC requires: a preference is no demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait(Option<u64>);

impl Wait {
    fn of(headers: &HeaderMap) -> Self {
        let values = headers
            .get_all(PREFER)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let mut preferences = values.flat_map(|value| value.split(','));
        Self(preferences.find_map(wait_seconds))
    }

    /// The duration of the wait.
    pub(crate) fn duration(self) -> Option<Duration> {
        self.0.map(Duration::from_secs)
    }

    /// The value of `Preference-Applied`.
    pub(crate) fn applied(self) -> Option<String> {
        self.0.map(|seconds| format!("wait={seconds}"))
    }
}

fn wait_seconds(preference: &str) -> Option<u64> {
    let (name, value) = preference.split(';').next()?.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("wait") {
        return None;
    }
    let seconds: u64 = value.trim().trim_matches('"').parse().ok()?;
    (seconds > 0).then_some(seconds.min(LONGEST))
}

impl<S: Send + Sync> FromRequestParts<S> for Wait {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_are_read_and_nonsense_is_ignored() {
        let of = |values: &[&str]| {
            Wait::of(
                &values
                    .iter()
                    .map(|value| (PREFER, value.parse().unwrap()))
                    .collect(),
            )
            .0
        };
        assert_eq!(of(&["wait=10"]), Some(10));
        assert_eq!(of(&["respond-async, Wait = \"5\"; foo=bar"]), Some(5));
        assert_eq!(of(&["return=minimal", "wait=7"]), Some(7));
        assert_eq!(of(&["wait=3600"]), Some(30));
        for nothing in ["wait=0", "wait", "wait=soon", "wait=-1", "await=3", ""] {
            assert_eq!(of(&[nothing]), None, "{nothing:?}");
        }
    }
}
