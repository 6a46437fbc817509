//! How a call continues after WeChat has refused the access token.
//!
//! A live token stays in use, and the call is repeated once, at a limited rate. A fresh token that WeChat refuses gets
//! a token check too; only a dead fresh token pauses the app.

use std::time::Duration;

use broker::{Broker, BrokerError, Token};
use coord::{Clock, Coord, RateLimit};
use domain::app::AppId;

/// How to repeat the call.
pub(crate) enum Again {
    /// With another token: WeChat refuses the first token for good.
    Fresh(Token),
    /// With the same token: the token check passed, so the refusal was a stray one or about something else.
    Same(Token),
    /// Later: the token is alive, but the app's calls are repeated too often.
    Later,
}

/// Finds out what a refusal of a token means, and limits the rate of repeats.
pub(crate) struct TokenRefusals {
    broker: Broker,
    /// Counts in this process alone: the limit only saves calls to WeChat.
    repeats: Coord,
}

impl TokenRefusals {
    pub(crate) fn new(broker: Broker, clock: Clock) -> Self {
        Self {
            broker,
            repeats: Coord::in_process(clock),
        }
    }

    /// How to continue a call of the app after WeChat has refused the token `refused`.
    pub(crate) async fn after_refusal(
        &self,
        appid: &AppId,
        refused: &Token,
    ) -> Result<Again, BrokerError> {
        let token = self.broker.stale(appid, refused.generation).await?;
        if token.generation != refused.generation {
            return Ok(Again::Fresh(token));
        }
        let rate = RateLimit::new(10, Duration::from_secs(1), 20);
        let repeat = self.repeats.limits().check(appid.as_str(), rate, 1).await;
        let allowed = repeat.is_ok_and(|decision| decision.allowed);
        Ok(if allowed {
            Again::Same(token)
        } else {
            Again::Later
        })
    }
}
