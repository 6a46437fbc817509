//! Callbacks: the requests of WeChat that report what happened to messages and users.
//!
//! ```text
//! POST /callbacks/{appid}
//!  Keys          the app's Token and EncodingAESKey; for a day also those before the last change
//!  Event         time stamp → signature → decryption → what happened, and when        wechat::callback
//!  Seen          a repeated signature has no effect
//!  Consequence   what the event means for the gateway
//!  Desk          one transaction for all callbacks that wait at this moment → `success`
//! ```
//!
//! WeChat repeats a callback up to three times until it is answered. So a callback is answered only after its content
//! is in the database. Nothing counts twice: a receipt settles its message once, and other events are deduplicated by a
//! digest.
//!
//! **Bounded cost.** The holder of an app's Token can invent receipts, so every cost has a limit: 100 items in one
//! callback, 2,000 rows a second of one tenant on one replica, 128 rows in one transaction with the tenants in
//! rotation, and 10,000 receipts of one app that wait for a message. The sweeper of waiting receipts is a task of its
//! own (`waiting`): the sweeper serves the apps in rotation, tries at most 200 receipts a sweep and makes at most 16
//! sweeps a second, and after each sweep pauses for three times the duration of the sweep.
//!
//! To handle another event, add a variant of [`Consequence`], its arm in [`Consequence::of`], and its part in `writer`.

mod consequence;
mod keys;
mod seen;
mod waiting;
mod writer;

use std::{net::IpAddr, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use coord::{Clock, Coord, RateLimit};
use domain::{app::AppId, id::TenantId};
use store::StoreError;
use tokio_util::sync::CancellationToken;
use wechat::callback::{CallbackCheckError, EventKind, Keys, Query, SigningStamp, WechatEvent};

pub use consequence::Consequence;

pub(crate) use self::{waiting::ReceiptSweeper, writer::announce};

use self::{
    keys::KeyCache,
    seen::{Seen, VerifiedCallback},
    writer::{CallbackWriter, CallbackWriterLoop},
};
use crate::{
    metrics::{CallbackOutcome, DeliveryMetrics},
    parts::Parts,
};

/// The largest difference between a callback's time stamp and the gateway's time, and between an event's time and the
/// time stamp. An overheard signature is valid no longer than this.
const SKEW: TimeDelta = TimeDelta::minutes(5);

/// How far back a swap of timestamp and nonce is considered in a plain callback: the callback is refused if its
/// signature could be that of another callback from this time. Of nonces that are random numbers, one in 7,000 looks
/// like that.
const OVERHEARD: TimeDelta = TimeDelta::days(7);

/// Callbacks a second that one replica takes for one app from one address. WeChat sends one for each message, from
/// several addresses. Each verified callback costs a transaction.
const RATE: u32 = 2000;

/// Rows a second that one replica takes from one tenant's verified callbacks, see [`Consequence::weight`]: the holder
/// of an app's Token can sign any content. WeChat reports each message once, and the gateway sends no tenant's messages
/// faster.
const TENANT_RATE: u32 = 2000;

/// How often a minute one kind of refusal is logged as a warning.
const TOLD_A_MINUTE: u32 = 10;

/// Why a callback is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// The callback does not prove that it comes from WeChat, or concerns no tenant. Only the log says which: a
    /// stranger must not learn which apps there are, nor which check failed.
    #[error("the callback is refused: {0}")]
    Refused(CallbackRefusal),
    /// More callbacks than WeChat ever sends: for this app from this address, for unknown apps, or verified ones for
    /// one tenant. WeChat repeats its own callbacks.
    #[error("too many callbacks from this address, or for all apps of one tenant")]
    TooMany {
        /// When to come again.
        retry_after: Duration,
    },
    /// The database does not answer, or more callbacks wait than it can take. WeChat will repeat the callback.
    #[error("{0}")]
    Unavailable(String),
    /// The database gives an answer that it should not give, or a secret does not open.
    #[error("{0}")]
    Broken(String),
}

/// Why a callback is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallbackRefusal {
    /// No tenant has this app.
    #[error("there is no such app")]
    UnknownApp,
    /// The tenant has not set the app's Token.
    #[error("the app has no callback_token: set callback_token with PATCH /v1/apps/{{appid}}")]
    NoToken,
    /// The callback was signed too long ago, or in the future.
    #[error(
        "the signature is {0} s away from the gateway's time: check the gateway's clock; if the clock is right, an \
        attacker repeats an old callback"
    )]
    Stale(i64),
    /// The event happened long before the callback was signed, or after.
    #[error(
        "the time of the event is {0} s away from the time of the signature: an attacker repeats an old callback with another timestamp and nonce"
    )]
    Untimely(i64),
    /// The signature could be that of an older callback, with timestamp and nonce swapped.
    #[error(
        "the signature may belong to a callback of another time: choose the safe mode in WeChat's console, which \
        excludes this case"
    )]
    Ambiguous,
    /// The signature came with another body before.
    #[error(
        "the signature came with another body before, so an attacker has read a plain callback: choose the safe mode in WeChat's console"
    )]
    Reused,
    /// The callback is not WeChat's for this app.
    #[error(transparent)]
    Push(#[from] CallbackCheckError),
}

impl CallbackRefusal {
    /// The kind in one word, for metrics.
    fn as_str(self) -> &'static str {
        match self {
            Self::UnknownApp => "unknown_app",
            Self::NoToken => "no_token",
            Self::Stale(_) => "stale",
            Self::Untimely(_) => "untimely",
            Self::Ambiguous => "ambiguous",
            Self::Reused => "reused",
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

/// Receives WeChat's callbacks.
pub struct Callbacks {
    keys: KeyCache,
    seen: Seen,
    writer: CallbackWriter,
    clock: Clock,
    /// Counts floods for this replica alone, so that no callback waits for Redis.
    alone: Coord,
    metrics: DeliveryMetrics,
}

impl Callbacks {
    pub(crate) fn new(parts: &Parts, stop: CancellationToken) -> (Self, CallbackWriterLoop) {
        let (writer, writer_loop) = CallbackWriter::new(parts.clone(), stop);
        let callbacks = Self {
            keys: KeyCache::new(parts),
            seen: Seen::new(parts.coord.clone()),
            writer,
            clock: parts.coord.clock().clone(),
            alone: Coord::in_process(parts.coord.clock().clone()),
            metrics: parts.metrics.clone(),
        };
        (callbacks, writer_loop)
    }

    /// The answer to WeChat's check of an app's URL. The answer repeats the request's own `echostr`, so an old check
    /// reveals nothing.
    pub async fn check_url(
        &self,
        appid: &AppId,
        from: Option<IpAddr>,
        query: &Query,
    ) -> Result<String, CallbackError> {
        self.admit(appid, from).await?;
        let checked = self
            .with_keys(appid, from, |keys| keys.check_url(query).map(str::to_owned))
            .await;
        let (_, echo) = self.told(appid, checked).await?;
        Ok(echo)
    }

    /// Receives a callback. When this returns without an error, the content is in the database. After an error, WeChat
    /// repeats the callback.
    pub async fn receive(
        &self,
        appid: &AppId,
        from: Option<IpAddr>,
        query: &Query,
        body: &[u8],
    ) -> Result<(), CallbackError> {
        self.admit(appid, from).await?;
        let believed = self.believe(appid, from, query, body).await;
        let (tenant, event, taken) = self.told(appid, believed).await?;
        let name = event.kind.as_str();
        if taken.is_repeat() {
            self.metrics.heard(name, CallbackOutcome::Repeated);
            return Ok(());
        }
        let consequence = Consequence::of(tenant, appid, &event);
        self.charge(tenant, &consequence).await?;
        tracing::debug!(%appid, ?event, "WeChat says");
        if let EventKind::Unreadable { why } = event.kind {
            tracing::warn!(%appid, why, "the gateway cannot read a callback that WeChat signed: the gateway answers \
                and ignores the callback");
        }
        let outcome = self.writer.take(tenant, consequence).await?;
        self.seen.carried_out(taken);
        self.metrics.heard(name, outcome);
        Ok(())
    }

    /// Checks that a callback is WeChat's and recent, and has no other body than an earlier callback with its
    /// signature.
    async fn believe(
        &self,
        appid: &AppId,
        from: Option<IpAddr>,
        query: &Query,
        body: &[u8],
    ) -> Result<(TenantId, WechatEvent, VerifiedCallback), CallbackError> {
        let stamp = query.stamp().map_err(CallbackRefusal::Push)?;
        let (tenant, event) = self
            .with_keys(appid, from, |keys| keys.open(appid, query, body))
            .await?;
        let now = self.clock.now();
        check_time(&stamp, now)?;
        check_event_time(&event, &stamp)?;
        if !query.is_encrypted() {
            check_readings(&stamp, now)?;
        }
        Ok((tenant, event, self.seen.take(appid, query, body).await?))
    }

    /// Refuses a flood before it costs anything.
    async fn admit(&self, appid: &AppId, from: Option<IpAddr>) -> Result<(), CallbackError> {
        let Some(from) = from else { return Ok(()) };
        self.count(&format!("callbacks {appid} {from}"), RATE, 1)
            .await
    }

    /// Counts the rows of a verified callback against the rate of the tenant.
    async fn charge(
        &self,
        tenant: TenantId,
        consequence: &Consequence,
    ) -> Result<(), CallbackError> {
        let rows = u32::try_from(consequence.weight()).unwrap_or(u32::MAX);
        self.count(&format!("callbacks {tenant}"), TENANT_RATE, rows)
            .await
    }

    async fn count(&self, key: &str, rate: u32, cost: u32) -> Result<(), CallbackError> {
        let limits = self.alone.limits();
        match limits.check(key, RateLimit::per_second(rate), cost).await {
            Ok(decision) if !decision.allowed => {
                self.metrics.refused("too_many");
                Err(CallbackError::TooMany {
                    retry_after: decision.retry_after,
                })
            }
            _ => Ok(()),
        }
    }

    /// Tries the app's keys, the newest first. Also returns the tenant that owns the app.
    async fn with_keys<T>(
        &self,
        appid: &AppId,
        from: Option<IpAddr>,
        check: impl Fn(&Keys) -> Result<T, CallbackCheckError>,
    ) -> Result<(TenantId, T), CallbackError> {
        let now = self.clock.now();
        let chain = self.keys.of(appid, from, now).await?;
        let newest = check(&chain.newest).map_err(CallbackRefusal::Push);
        let checked = match (newest, chain.previous(now)) {
            (Ok(checked), _) => checked,
            // If neither key fits, the error of the newest key is returned.
            (Err(refusal), Some(previous)) => check(previous).map_err(|_| refusal)?,
            (Err(refusal), None) => return Err(refusal.into()),
        };
        Ok((chain.tenant, checked))
    }

    /// Counts and logs a refusal. Refusals above [`TOLD_A_MINUTE`] are logged as debug messages only.
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
                .check(&key, RateLimit::per_minute(TOLD_A_MINUTE), 1)
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

fn check_time(stamp: &SigningStamp, now: DateTime<Utc>) -> Result<(), CallbackRefusal> {
    let away = stamp.signed_at().saturating_sub(now.timestamp());
    if is_near(away) {
        Ok(())
    } else {
        Err(CallbackRefusal::Stale(away))
    }
}

/// WeChat signs a callback at the time of the event. In an encrypted callback only WeChat can write the event's time.
/// An event without a meaning here may have no time.
fn check_event_time(event: &WechatEvent, stamp: &SigningStamp) -> Result<(), CallbackRefusal> {
    let away = event.created_at.saturating_sub(stamp.signed_at());
    let says_nothing = matches!(
        event.kind,
        EventKind::Unknown { .. } | EventKind::Unreadable { .. }
    );
    let is_timeless = event.created_at == 0 && says_nothing;
    if is_timeless || is_near(away) {
        Ok(())
    } else {
        Err(CallbackRefusal::Untimely(away))
    }
}

/// A plain signature covers neither the body nor the order of its parts.
fn check_readings(stamp: &SigningStamp, now: DateTime<Utc>) -> Result<(), CallbackRefusal> {
    let (from, to) = ((now - OVERHEARD).timestamp(), (now + SKEW).timestamp());
    let mut others = stamp.other_times();
    if others.any(|time| (from..=to).contains(&time)) {
        Err(CallbackRefusal::Ambiguous)
    } else {
        Ok(())
    }
}

fn is_near(seconds: i64) -> bool {
    seconds.unsigned_abs() <= SKEW.num_seconds().unsigned_abs()
}

impl std::fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Callbacks").finish_non_exhaustive()
    }
}
