//! The state of Redis as the calls find it. Each change is logged once.

use std::sync::{Arc, Mutex, PoisonError};

/// The last known state. Clones share the state.
#[derive(Clone, Default)]
pub(super) struct RedisState(Arc<Mutex<RedisHealth>>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum RedisHealth {
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
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) == RedisHealth::Up
    }

    /// Records a call without an answer.
    pub(super) fn is_away(&self, why: &str) {
        if matches!(
            self.turn(|_| RedisHealth::Away),
            RedisHealth::Nothing | RedisHealth::Up
        ) {
            tracing::warn!(
                why,
                "Redis does not answer: each replica counts limits and keeps tokens for itself until Redis answers; check WXGATE_REDIS_URL and the server"
            );
        }
    }

    /// Records a refusal of the regular watch.
    pub(super) fn is_refusing(&self, why: &str) {
        if self.turn(|_| RedisHealth::Refusing) != RedisHealth::Refusing {
            tracing::warn!(
                why,
                "Redis refuses commands: each replica counts limits and keeps tokens for itself until Redis takes commands; check the password in WXGATE_REDIS_URL and that the server takes writes"
            );
        }
    }

    /// Records an answer. `to_watch`: the answer was to the regular watch, so Redis no longer refuses.
    pub(super) fn answers(&self, to_watch: bool) {
        let refuses_still = |known| known == RedisHealth::Refusing && !to_watch;
        let turn = |known| {
            if refuses_still(known) {
                known
            } else {
                RedisHealth::Up
            }
        };
        let before = self.turn(turn);
        if before == RedisHealth::Away || before == RedisHealth::Refusing && to_watch {
            tracing::info!("Redis answers again: the replicas share limits and tokens");
        }
    }

    /// Changes the state, and returns the previous one.
    fn turn(&self, next: impl FnOnce(RedisHealth) -> RedisHealth) -> RedisHealth {
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
