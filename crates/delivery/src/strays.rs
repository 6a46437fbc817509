//! How a call goes on whose access token WeChat has refused.

use std::time::Duration;

use broker::{Broker, BrokerError, Token};
use coord::{Clock, Coord, Quota};
use domain::app::AppId;

/// What to call again with.
pub(crate) enum Again {
    /// Another token: WeChat refuses the first one for good.
    Fresh(Token),
    /// The same token: WeChat takes it at a second look, so the refusal was a stray one or about something else.
    Same(Token),
    /// The token is alive, and the app's calls are repeated too often: later.
    Later,
}

/// Finds out what a refusal of a token means, and keeps the repeats to a rate.
pub(crate) struct Strays {
    broker: Broker,
    /// Counts in this process alone: what it saves is WeChat's time.
    repeats: Coord,
}

impl Strays {
    pub(crate) fn new(broker: Broker, clock: Clock) -> Self {
        Self {
            broker,
            repeats: Coord::in_process(clock),
        }
    }

    /// How a call of the app goes on that WeChat has refused for its token.
    pub(crate) async fn after_refusal(
        &self,
        appid: &AppId,
        refused: &Token,
    ) -> Result<Again, BrokerError> {
        let token = self.broker.stale(appid, refused.generation).await?;
        if token.generation != refused.generation {
            return Ok(Again::Fresh(token));
        }
        let rate = Quota::new(10, Duration::from_secs(1), 20);
        let repeat = self.repeats.limits().check(appid.as_str(), rate, 1).await;
        let allowed = repeat.is_ok_and(|decision| decision.allowed);
        Ok(if allowed {
            Again::Same(token)
        } else {
            Again::Later
        })
    }
}
