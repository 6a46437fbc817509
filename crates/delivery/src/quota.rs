//! Quota reports: the day's use as counted here and as WeChat says.

use std::time::Duration;

use broker::Broker;
use chrono::{DateTime, Utc};
use coord::Clock;
use dashmap::DashMap;
use domain::{
    app::{AppId, AppKind},
    id::TenantId,
    message::{Channel, Priority},
    quota::{self, Shares},
};
use std::sync::Arc;
use store::Store;

use crate::engine::{DeliveryError, Parts};

/// How long WeChat's figures are kept before it is asked again.
const KEEP: Duration = Duration::from_mins(1);

/// How much of an app's day is used.
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
    /// WeChat's own figures; none when it did not tell them.
    pub wechat: Option<WechatQuotaReport>,
}

/// What `openapi/quota/get` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WechatQuotaReport {
    /// Calls a day.
    pub daily_limit: u64,
    /// Calls made today.
    pub used: u64,
    /// Calls left today.
    pub remain: u64,
    /// When WeChat said so.
    pub as_of: DateTime<Utc>,
}

/// Makes the reports.
pub(crate) struct Quotas {
    store: Store,
    broker: Broker,
    client: wechat::Client,
    clock: Clock,
    shares: Shares,
    told: Arc<DashMap<AppId, WechatQuotaReport>>,
}

impl Quotas {
    pub(crate) fn new(parts: &Parts, shares: Shares) -> Self {
        Self {
            store: parts.store.clone(),
            broker: parts.broker.clone(),
            client: parts.wechat.clone(),
            clock: parts.coord.clock().clone(),
            shares,
            told: Arc::default(),
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
        let counted = door.quota_use(appid, now).await?;
        let channel = match app.kind {
            AppKind::MiniProgram => Channel::Subscribe,
            AppKind::OfficialAccount => Channel::Official,
        };
        Ok(QuotaReport {
            limit: counted.limit,
            used: counted.used,
            remaining: self
                .shares
                .remaining(counted.limit, counted.used, Priority::High),
            reset_at: quota::reset_at(now),
            wechat: self.ask(appid, channel, now).await,
        })
    }

    /// WeChat's figures, at most a minute old. It may not tell them: then nobody is kept waiting for them.
    async fn ask(
        &self,
        appid: &AppId,
        channel: Channel,
        now: DateTime<Utc>,
    ) -> Option<WechatQuotaReport> {
        if let Some(told) = self.told.get(appid).filter(|told| now < told.as_of + KEEP) {
            return Some(*told);
        }
        let token = self.broker.token(appid).await.ok()?;
        let figures = match self.client.quota(&token.value, channel).await {
            Ok(figures) => figures,
            Err(error) => {
                tracing::info!(%appid, %error, "WeChat does not tell the app's quota");
                return None;
            }
        };
        let report = WechatQuotaReport {
            daily_limit: figures.daily_limit,
            used: figures.used,
            remain: figures.remain,
            as_of: now,
        };
        self.told.insert(appid.clone(), report);
        Some(report)
    }
}
