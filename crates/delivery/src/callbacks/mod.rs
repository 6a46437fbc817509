//! Callbacks: what WeChat pushes becomes what happened to messages and users.
//!
//! ```text
//! POST /callbacks/{appid}
//!  Keys          the app's Token and EncodingAESKey; for a day also those before the last change
//!  Event         signature → time → decryption → what happened                        wechat::callback
//!  Consequence   what it means here
//!  Desk          one transaction for all that wait at this moment → `success`
//! ```
//!
//! WeChat repeats a push up to three times until it is answered, so nothing is answered before it is in the database,
//! and nothing counts twice: a receipt settles its message once, other events are remembered by a digest.
//!
//! To make something of an event: a variant of [`Consequence`], its arm in [`Consequence::of`], and where the desk
//! carries it out.

mod consequence;
mod desk;
mod keys;

use std::{net::IpAddr, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use coord::{Clock, Coord, Quota};
use domain::app::AppId;
use store::StoreError;
use tokio_util::sync::CancellationToken;
use wechat::callback::{Event, Keys, Query, Refusal};

pub use consequence::Consequence;

pub(crate) use desk::{Outcome, announce};

use self::{
    desk::{Desk, DeskLoop},
    keys::KeyChain,
};
use crate::{engine::Parts, metrics::Metrics};

/// How far a push's time may be from the gateway's: a signature that was overheard is good for no longer.
const SKEW: TimeDelta = TimeDelta::minutes(5);

/// How many callbacks for one app one replica takes from one address in a second. WeChat sends one for each message, from several
/// addresses; each costs a look at the database.
const RATE: u32 = 2000;

/// How often one kind of refusal is logged as a warning.
const TOLD_A_MINUTE: u32 = 10;

/// Why a callback is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// It does not prove that it comes from WeChat, or there is nobody whom it could concern. Which of these is for the
    /// log alone: a stranger must not learn which apps there are, nor which check failed.
    #[error("the callback is refused: {0}")]
    Refused(CallbackRefusal),
    /// More come for this app from this address than WeChat ever sends. What is WeChat's, it will repeat.
    #[error("too many callbacks for this app from this address")]
    TooMany {
        /// When to come again.
        retry_after: Duration,
    },
    /// The database does not answer, or more callbacks wait than it can take. WeChat will repeat the push.
    #[error("{0}")]
    Unavailable(String),
    /// The database answers what it should not, or a secret does not open.
    #[error("{0}")]
    Broken(String),
}

/// Why a callback is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallbackRefusal {
    /// No tenant has this app.
    #[error("there is no such app")]
    UnknownApp,
    /// Its tenant has not told its Token.
    #[error("the app has no callback_token: set it with PATCH /v1/apps/{{appid}}")]
    NoToken,
    /// It was signed too long ago, or in the future.
    #[error(
        "it was signed {0} s away from the gateway's time: check the gateway's clock, or somebody repeats an old push"
    )]
    Stale(i64),
    /// It is not WeChat's for this app.
    #[error(transparent)]
    Push(#[from] Refusal),
}

impl CallbackRefusal {
    /// The kind in one word, for metrics.
    fn as_str(self) -> &'static str {
        match self {
            Self::UnknownApp => "unknown_app",
            Self::NoToken => "no_token",
            Self::Stale(_) => "stale",
            Self::Push(refusal) => refusal.as_str(),
        }
    }
}

impl From<StoreError> for CallbackError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Unavailable(error.to_string()),
            _ => Self::Broken(error.to_string()),
        }
    }
}

impl From<CallbackRefusal> for CallbackError {
    fn from(refusal: CallbackRefusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The ear of the gateway.
pub struct Callbacks {
    keys: KeyChain,
    desk: Desk,
    clock: Clock,
    /// Floods are counted by this replica alone: no callback waits for Redis.
    alone: Coord,
    metrics: Metrics,
}

impl Callbacks {
    pub(crate) fn new(parts: &Parts, stop: CancellationToken) -> (Self, DeskLoop) {
        let (desk, desk_loop) = Desk::new(parts.clone(), stop);
        let callbacks = Self {
            keys: KeyChain::new(parts),
            desk,
            clock: parts.coord.clock().clone(),
            alone: Coord::in_process(parts.coord.clock().clone()),
            metrics: parts.metrics.clone(),
        };
        (callbacks, desk_loop)
    }

    /// The words that answer WeChat's check of an app's URL: those it came with, so an old check tells nobody anything.
    pub async fn check_url(
        &self,
        appid: &AppId,
        from: Option<IpAddr>,
        query: &Query,
    ) -> Result<String, CallbackError> {
        self.admit(appid, from).await?;
        let checked = self
            .with_keys(appid, |keys| keys.check_url(query).map(str::to_owned))
            .await;
        self.told(appid, checked).await
    }

    /// Takes a push: when this returns, what it says is in the database, or WeChat will say it again.
    pub async fn receive(
        &self,
        appid: &AppId,
        from: Option<IpAddr>,
        query: &Query,
        body: &[u8],
    ) -> Result<(), CallbackError> {
        self.admit(appid, from).await?;
        let opened = self
            .with_keys(appid, |keys| keys.open(appid, query, body))
            .await;
        let opened = match check_time(query, self.clock.now()) {
            Err(stale) if opened.is_ok() => Err(stale.into()),
            _ => opened,
        };
        let event: Event = self.told(appid, opened).await?;
        let consequence = Consequence::of(appid, &event);
        tracing::debug!(%appid, ?event, "WeChat says");
        let name = event.kind.as_str();
        let outcome = self.desk.take(consequence).await?;
        self.metrics.heard(name, outcome);
        Ok(())
    }

    /// Turns a flood away before it costs anything.
    async fn admit(&self, appid: &AppId, from: Option<IpAddr>) -> Result<(), CallbackError> {
        let Some(from) = from else { return Ok(()) };
        let key = format!("callbacks {appid} {from}");
        let limits = self.alone.limits();
        match limits.check(&key, Quota::per_second(RATE), 1).await {
            Ok(decision) if !decision.allowed => {
                self.metrics.refused("too_many");
                Err(CallbackError::TooMany {
                    retry_after: decision.retry_after,
                })
            }
            _ => Ok(()),
        }
    }

    /// Tries the app's keys, the newest first.
    async fn with_keys<T>(
        &self,
        appid: &AppId,
        check: impl Fn(&Keys) -> Result<T, Refusal>,
    ) -> Result<T, CallbackError> {
        let now = self.clock.now();
        let chain = self.keys.of(appid, now).await?;
        let newest = check(&chain.newest).map_err(CallbackRefusal::Push);
        match (newest, &chain.previous) {
            (Ok(checked), _) => Ok(checked),
            // If neither fits, the newest says why.
            (Err(refusal), Some(previous)) => check(previous).map_err(|_| refusal.into()),
            (Err(refusal), None) => Err(refusal.into()),
        }
    }

    /// Counts a refusal and says it to the log, but not as often as a stranger likes to be refused.
    async fn told<T>(
        &self,
        appid: &AppId,
        result: Result<T, CallbackError>,
    ) -> Result<T, CallbackError> {
        if let Err(CallbackError::Refused(refusal)) = &result {
            self.metrics.refused(refusal.as_str());
            let key = format!("callback refused {}", refusal.as_str());
            let told = self
                .alone
                .limits()
                .check(&key, Quota::per_minute(TOLD_A_MINUTE), 1)
                .await;
            if told.is_ok_and(|decision| decision.allowed) {
                tracing::warn!(%appid, %refusal, "callback refused");
            } else {
                tracing::debug!(%appid, %refusal, "callback refused");
            }
        }
        result
    }
}

fn check_time(query: &Query, now: DateTime<Utc>) -> Result<(), CallbackRefusal> {
    let away = query.signed_at()?.saturating_sub(now.timestamp());
    if away.unsigned_abs() <= SKEW.num_seconds().unsigned_abs() {
        Ok(())
    } else {
        Err(CallbackRefusal::Stale(away))
    }
}

impl std::fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Callbacks").finish_non_exhaustive()
    }
}
