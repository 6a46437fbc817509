//! Quota reports: the use of the daily quota as counted here and by WeChat.

use std::{sync::Arc, time::Duration};

use broker::Broker;
use chrono::{DateTime, Utc};
use coord::Clock;
use dashmap::DashMap;
use domain::{
    app::{AppId, AppKind},
    id::TenantId,
    message::{Channel, Priority},
    quota::{self, PriorityShares},
};
use store::Store;
use tokio::sync::Mutex;

use crate::{app_pause::day_may_be_late, error::DeliveryError, parts::Parts};

/// How long WeChat's figures are cached.
const KEEP: Duration = Duration::from_mins(1);

/// The use of an app's daily quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaReport {
    /// Messages that the app may send in a Beijing day.
    pub limit: u64,
    /// Sends counted here today.
    pub used: u64,
    /// What is left for messages of high priority.
    pub remaining: u64,
    /// When the next day begins.
    pub reset_at: DateTime<Utc>,
    /// WeChat's own figures. `None` if WeChat did not give them.
    pub wechat: Option<WechatQuotaReport>,
}

/// The answer of `openapi/quota/get`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WechatQuotaReport {
    /// Calls a day.
    pub daily_limit: u64,
    /// Calls made today.
    pub used: u64,
    /// Calls left today.
    pub remain: u64,
    /// When WeChat gave these figures.
    pub as_of: DateTime<Utc>,
}

/// WeChat's last answer: the figures, or `None` if WeChat did not give them.
#[derive(Clone, Copy)]
struct CachedFigures {
    at: DateTime<Utc>,
    figures: Option<WechatQuotaReport>,
}

/// Makes the reports.
pub(crate) struct QuotaReports {
    store: Store,
    broker: Broker,
    client: wechat::Client,
    clock: Clock,
    shares: PriorityShares,
    told: DashMap<AppId, Arc<Mutex<Option<CachedFigures>>>>,
}

impl QuotaReports {
    pub(crate) fn new(parts: &Parts, shares: PriorityShares) -> Self {
        Self {
            store: parts.store.clone(),
            broker: parts.broker.clone(),
            client: parts.wechat.clone(),
            clock: parts.coord.clock().clone(),
            shares,
            told: DashMap::new(),
        }
    }

    pub(crate) async fn report(
        &self,
        tenant: TenantId,
        appid: &AppId,
    ) -> Result<QuotaReport, DeliveryError> {
        let now = self.clock.now();
        let door = self.store.tenant(tenant);
        let app = door.app(appid).await?;
        let channel = match app.kind {
            AppKind::MiniProgram => Channel::Subscribe,
            AppKind::OfficialAccount => Channel::Official,
        };
        let wechat = self.ask(appid, channel, now).await;
        let counted = door.quota_use(appid, now).await?;
        Ok(QuotaReport {
            limit: counted.limit,
            used: counted.used,
            remaining: self
                .shares
                .remaining(counted.limit, counted.used, Priority::High),
            reset_at: quota::reset_at(now),
            wechat,
        })
    }

    /// WeChat's figures, at most a minute old for any number of callers. If WeChat gives no figures, no caller waits
    /// for them in the next minute. If WeChat has less left than was counted here, other systems send in the app's
    /// name, and WeChat's count is taken over.
    pub(crate) async fn ask(
        &self,
        appid: &AppId,
        channel: Channel,
        now: DateTime<Utc>,
    ) -> Option<WechatQuotaReport> {
        let told = self.told.entry(appid.clone()).or_default().clone();
        let mut told = told.lock().await;
        if let Some(told) = told.filter(|told| now < told.at + KEEP) {
            return told.figures;
        }
        let figures = self.fetch(appid, channel, now).await;
        *told = Some(CachedFigures { at: now, figures });
        if let Some(figures) = figures.filter(|_| !day_may_be_late(now)) {
            let platform = self.store.platform();
            let taken_over = platform.cap_quota(appid, figures.remain, now).await;
            if let Err(error) = taken_over {
                tracing::warn!(%appid, %error, "cannot record WeChat's count of the app's quota");
            }
        }
        figures
    }

    async fn fetch(
        &self,
        appid: &AppId,
        channel: Channel,
        now: DateTime<Utc>,
    ) -> Option<WechatQuotaReport> {
        let token = self.broker.token(appid).await.ok()?;
        let figures = match self.client.quota(&token.value, channel).await {
            Ok(figures) => figures,
            Err(error) => {
                tracing::info!(%appid, %error, "cannot get the app's quota from WeChat");
                return None;
            }
        };
        Some(WechatQuotaReport {
            daily_limit: figures.daily_limit,
            used: figures.used,
            remain: figures.remain,
            as_of: now,
        })
    }
}
