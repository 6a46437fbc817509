//! The state of Redis as the calls find it. Each change is logged once.

use std::sync::{Arc, Mutex, PoisonError};

/// The last known state. Clones share the state.
#[derive(Clone, Default)]
pub(super) struct RedisState(Arc<Mutex<Known>>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Known {
    /// No call has been made yet.
    #[default]
    Nothing,
    /// Redis answers.
    Up,
    /// Redis does not answer.
    Away,
    /// Redis answers and refuses writes: a wrong password, a Redis replica, a server that loads its data.
    Refusing,
}

impl RedisState {
    /// Whether Redis answers and takes writes.
    pub(super) fn is_up(&self) -> bool {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) == Known::Up
    }

    /// Records a call without an answer.
    pub(super) fn is_away(&self, why: &str) {
        if matches!(self.turn(|_| Known::Away), Known::Nothing | Known::Up) {
            tracing::warn!(
                why,
                "Redis does not answer: each replica counts limits and keeps tokens for itself until Redis answers; check WXGATE_REDIS_URL and the server"
            );
        }
    }

    /// Records a refusal of the regular watch.
    pub(super) fn is_refusing(&self, why: &str) {
        if self.turn(|_| Known::Refusing) != Known::Refusing {
            tracing::warn!(
                why,
                "Redis refuses commands: each replica counts limits and keeps tokens for itself until Redis takes commands; check the password in WXGATE_REDIS_URL and that the server takes writes"
            );
        }
    }

    /// Records an answer. `to_watch`: the answer was to the regular watch, so Redis no longer refuses.
    pub(super) fn answers(&self, to_watch: bool) {
        let refuses_still = |known| known == Known::Refusing && !to_watch;
        let turn = |known| {
            if refuses_still(known) {
                known
            } else {
                Known::Up
            }
        };
        let before = self.turn(turn);
        if before == Known::Away || before == Known::Refusing && to_watch {
            tracing::info!("Redis answers again: the replicas share limits and tokens");
        }
    }

    /// Changes the state, and returns the previous one.
    fn turn(&self, next: impl FnOnce(Known) -> Known) -> Known {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *known;
        *known = next(before);
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_over_when_the_watch_may_write() {
        let standing = RedisState::default();
        assert!(!standing.is_up(), "nobody has asked");
        standing.answers(false);
        assert!(standing.is_up());
        standing.is_refusing("NOAUTH");
        standing.answers(false);
        assert!(!standing.is_up(), "others may still read");
        standing.answers(true);
        assert!(standing.is_up());
        standing.is_away("refused");
        assert!(!standing.is_up());
        standing.answers(false);
        assert!(standing.is_up());
    }
}
