//! Token checks: the test of a token that WeChat has refused once.
//!
//! WeChat's edge servers refuse living tokens now and then, and a pass-through call may be refused for a credential of
//! its own. So the broker takes a token out of use only when WeChat refuses the token in calls that depend on nothing
//! but the token. All callers with a refusal of the same token share one check, and the result holds for a few seconds.

use std::sync::Arc;

use domain::app::AppId;
use futures::FutureExt;
use wechat::TokenCheck;

use crate::{
    fetcher::Fetcher,
    health::{Check, TokenHealth},
    memory::Memory,
    token::Token,
};

/// How many refusals in a row prove a token dead. Where a tenth of all calls is refused for no reason, one of ten
/// thousand checks is wrong, which is one or two a day.
const REFUSALS: u32 = 4;
impl Fetcher {
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
fn launch(fetcher: &Arc<Fetcher>, appid: &AppId, memory: &Arc<Memory>, token: Token) -> Check {
    let generation = token.generation;
    let ended = {
        let (fetcher, memory) = (Arc::clone(fetcher), Arc::clone(memory));
        move |found| {
            let now = fetcher.coord.clock().now();
            memory.checks.end(generation, found, now)
        }
    };
    let task = {
        let (fetcher, appid, ended) = (Arc::clone(fetcher), appid.clone(), ended.clone());
        async move {
            let found = ask(&fetcher, &appid, &token).await;
            fetcher.metrics.checked(found);
            ended(found)
        }
    };
    let task = fetcher.tasks.spawn(task);
    // A check that panicked, or that the end of the runtime cancelled, has not called `end`.
    let health = async move { task.await.unwrap_or_else(|_| ended(None)) };
    health.boxed().shared()
}

/// Calls WeChat up to [`REFUSALS`] times; none: no clear answer.
async fn ask(fetcher: &Fetcher, appid: &AppId, token: &Token) -> Option<TokenHealth> {
    let generation = token.generation;
    for _ in 0..REFUSALS {
        match fetcher.client.check_token(&token.value).await {
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
