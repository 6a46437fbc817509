//! The results of token checks of one app: decisions without IO under one lock.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures::future::{BoxFuture, Shared};

/// How long the result of a check is reused. A token that WeChat ends after the check stays in use for at most this time.
const HOLDS: Duration = Duration::from_secs(5);
/// With this many checks in a row without a result, the broker believes the refusal: a firewall may keep the check
/// itself from WeChat for ever.
const UNCLEAR: u32 = 3;

/// The result of a token check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenHealth {
    /// WeChat accepts the token, or nothing proves the opposite.
    Alive,
    /// WeChat refuses the token.
    Dead,
}

/// A check in progress. Every waiting caller holds a clone.
pub(crate) type Check = Shared<BoxFuture<'static, TokenHealth>>;

/// The checks of one app's tokens.
#[derive(Default)]
pub(crate) struct Checks(Mutex<CheckState>);

#[derive(Default)]
struct CheckState {
    last: Option<Last>,
    /// The generation of the token that is being checked, and the check.
    running: Option<(u64, Check)>,
    /// How many of the last checks in a row had no result.
    unclear: u32,
}

struct Last {
    generation: u64,
    health: TokenHealth,
    until: DateTime<Utc>,
}

impl Checks {
    /// Returns the result for the token of `generation` where one holds, otherwise the check to wait for. `launch`
    /// starts a check when none is in progress.
    pub(crate) fn look(
        &self,
        generation: u64,
        now: DateTime<Utc>,
        launch: impl FnOnce() -> Check,
    ) -> Result<TokenHealth, Check> {
        let mut state = self.lock();
        let last = state.last.as_ref();
        if let Some(last) = last.filter(|last| last.generation == generation && now < last.until) {
            return Ok(last.health);
        }
        match &state.running {
            Some((of, check)) if *of == generation => Err(check.clone()),
            _ => {
                let check = launch();
                state.running = Some((generation, check.clone()));
                Err(check)
            }
        }
    }

    /// Ends the check of `generation`. `found`: the result; none: WeChat gave no clear answer.
    pub(crate) fn end(
        &self,
        generation: u64,
        found: Option<TokenHealth>,
        now: DateTime<Utc>,
    ) -> TokenHealth {
        let mut state = self.lock();
        state.unclear = if found.is_some() {
            0
        } else {
            state.unclear.saturating_add(1)
        };
        let health = found.unwrap_or(if state.unclear < UNCLEAR {
            TokenHealth::Alive
        } else {
            TokenHealth::Dead
        });
        state.running.take_if(|(of, _)| *of == generation);
        state.last = Some(Last {
            generation,
            health,
            until: now + HOLDS,
        });
        health
    }

    fn lock(&self) -> MutexGuard<'_, CheckState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn idle() -> Check {
        std::future::pending().boxed().shared()
    }

    #[test]
    fn a_result_holds_for_its_token_and_a_while() {
        let (checks, now) = (Checks::default(), DateTime::UNIX_EPOCH);
        assert!(checks.look(7, now, idle).is_err());
        assert!(checks.look(7, now, || panic!("one is under way")).is_err());
        checks.end(7, Some(TokenHealth::Dead), now);
        let known = |generation, at| checks.look(generation, at, idle).ok();
        assert_eq!(known(7, now), Some(TokenHealth::Dead));
        assert_eq!(known(8, now), None);
        assert_eq!(known(7, now + HOLDS), None);
    }

    #[test]
    fn the_third_check_without_a_result_in_a_row_believes_the_refusal() {
        let (checks, now) = (Checks::default(), DateTime::UNIX_EPOCH);
        let end = |found| checks.end(7, found, now);
        assert_eq!([end(None), end(None)], [TokenHealth::Alive; 2]);
        assert_eq!(end(Some(TokenHealth::Alive)), TokenHealth::Alive);
        assert_eq!([end(None), end(None)], [TokenHealth::Alive; 2]);
        assert_eq!(end(None), TokenHealth::Dead);
    }
}
