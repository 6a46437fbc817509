//! Token checks: the test of a token that WeChat has refused once.
//!
//! WeChat's edge servers refuse living tokens now and then, and a pass-through call may be refused for a credential of
//! its own. So the broker takes a token out of use only when WeChat refuses the token in calls that depend on nothing
//! but the token. All callers with a refusal of the same token share one check, and the result holds for a few seconds.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use domain::app::AppId;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use wechat::TokenCheck;

use crate::{broker::Inner, memory::Memory, token::Token};

/// How long a result holds. A token that dies meanwhile stays in use for at most this time.
const HOLDS: Duration = Duration::from_secs(5);
/// How many refusals in a row prove a token dead. Where a tenth of all calls is refused for no reason, one of ten
/// thousand checks is wrong, which is one or two a day.
const REFUSALS: u32 = 4;
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
type Check = Shared<BoxFuture<'static, TokenHealth>>;

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
    fn look(
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
    fn end(&self, generation: u64, found: Option<TokenHealth>, now: DateTime<Utc>) -> TokenHealth {
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

impl Inner {
    /// Whether a token that WeChat has refused once is dead.
    pub(crate) async fn check(
        self: &Arc<Self>,
        appid: &AppId,
        memory: &Arc<Memory>,
        token: &Token,
    ) -> TokenHealth {
        let now = self.coord.clock().now();
        let launch = || launch(self, appid, memory, token.clone());
        match memory.checks.look(token.generation, now, launch) {
            Ok(health) => health,
            Err(check) => check.await,
        }
    }
}

/// Starts a check that continues without callers.
fn launch(inner: &Arc<Inner>, appid: &AppId, memory: &Arc<Memory>, token: Token) -> Check {
    let generation = token.generation;
    let ended = {
        let (inner, memory) = (Arc::clone(inner), Arc::clone(memory));
        move |found| {
            let now = inner.coord.clock().now();
            memory.checks.end(generation, found, now)
        }
    };
    let task = {
        let (inner, appid, ended) = (Arc::clone(inner), appid.clone(), ended.clone());
        async move {
            let found = ask(&inner, &appid, &token).await;
            inner.metrics.checked(found);
            ended(found)
        }
    };
    let task = inner.tasks.spawn(task);
    // A check that panicked, or that the end of the runtime cancelled, has not called `end`.
    let health = async move { task.await.unwrap_or_else(|_| ended(None)) };
    health.boxed().shared()
}

/// Calls WeChat up to [`REFUSALS`] times; none: no clear answer.
async fn ask(inner: &Inner, appid: &AppId, token: &Token) -> Option<TokenHealth> {
    let generation = token.generation;
    for _ in 0..REFUSALS {
        match inner.client.check_token(&token.value).await {
            TokenCheck::Alive => {
                tracing::info!(%appid, generation, "WeChat accepts the access token that WeChat has just refused");
                return Some(TokenHealth::Alive);
            }
            TokenCheck::Refused(cause) => {
                tracing::debug!(%appid, generation, %cause, "WeChat refuses the access token");
            }
            TokenCheck::Unclear(cause) => {
                tracing::warn!(
                    %appid,
                    generation,
                    %cause,
                    "cannot check whether WeChat accepts the access token: let the gateway call \
                     /cgi-bin/get_api_domain_ip"
                );
                return None;
            }
        }
    }
    Some(TokenHealth::Dead)
}

#[cfg(test)]
mod tests {
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
