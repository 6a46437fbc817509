//! Callbacks: the requests of WeChat that report what happened to messages and users.
//!
//! ```text
//! POST /callbacks/{appid}
//!  Keys          the app's Token and EncodingAESKey; for a day also those before the last change
//!  Event         time stamp → signature → decryption → what happened, and when        wechat::callback
//!  Seen          a repeated signature has no effect
//!  Consequence   what the event means for the gateway
//!  Writer        one transaction for all callbacks that wait at this moment → `success`
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
mod error;
mod keys;
mod seen;
mod times;
mod waiting;
mod writer;

use std::net::IpAddr;

use coord::{Clock, Coord, RateLimit};
use domain::{app::AppId, id::TenantId};
use tokio_util::sync::CancellationToken;
use wechat::callback::{CallbackCheckError, EventKind, Keys, Query, WechatEvent};

pub use self::{
    consequence::Consequence,
    error::{CallbackError, CallbackRefusal},
};

pub(crate) use self::waiting::ReceiptSweeper;

use self::{
    keys::KeyCache,
    seen::{Seen, VerifiedCallback},
    times::{check_event_time, check_readings, check_time},
    writer::{CallbackWriter, CallbackWriterLoop},
};
use crate::{
    metrics::{CallbackOutcome, DeliveryMetrics},
    parts::Parts,
};

/// Callbacks a second that one replica takes for one app from one address. WeChat sends one for each message, from
/// several addresses. Each verified callback costs a transaction.
const RATE: u32 = 2000;

/// Rows a second that one replica takes from one tenant's verified callbacks, see [`Consequence::weight`]: the holder
/// of an app's Token can sign any content. WeChat reports each message once, and the gateway sends no tenant's messages
/// faster.
const TENANT_RATE: u32 = 2000;

/// How often a minute one kind of refusal is logged as a warning.
const TOLD_A_MINUTE: u32 = 10;

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

impl std::fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Callbacks").finish_non_exhaustive()
    }
}
