//! Audit lines about access tokens.
//!
//! A token that died young gets the line `access_token.died_young` at once. If Redis does not answer at that moment,
//! the broker decides later whether another system or another replica was the cause: 3 s after Redis is back, from the
//! ledgers of all replicas. The owner of an app also finds lines about foreign refreshes and about budgets that run
//! low.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use broker::{BrokerError, BrokerEvent, ForeignRefresh, Observer};
use chrono::{DateTime, Utc};
use coord::Coord;
use domain::{app::AppId, webhook::EventType};
use store::{AppEvent, NewAuditLine, Origin, Store, StoreError};
use tokio::sync::Semaphore;

use crate::{token_failure::TokenFailure, topic};

/// How many events may wait while the database takes no lines. Events arrive at a rate of one for each app and half
/// minute.
const MOST_WAITING: usize = 4096;
/// The wait after a failure of the database. Real time under every clock, because the database has a clock of its own.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What was requested.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AuditedRequest {
    /// The token itself.
    HandOut,
    /// Another token.
    Refresh,
}

/// The audit line of a request for a token: done, or refused and why.
pub(crate) fn asked(
    what: AuditedRequest,
    appid: &AppId,
    origin: &Origin,
    refusal: Option<&BrokerError>,
) -> NewAuditLine {
    let action = match what {
        AuditedRequest::HandOut => "access_token.hand_out",
        AuditedRequest::Refresh => "access_token.refresh",
    };
    match refusal {
        None => origin.did(action, appid),
        Some(error) => {
            let TokenFailure { reason, detail, .. } = TokenFailure::of(error);
            origin.was_refused(action, appid, &format_args!("{reason}: {detail}"))
        }
    }
}

/// Writes the broker's observations into the audit log of the app's tenant.
#[derive(Clone, Debug)]
pub struct TokenAudit {
    store: Store,
    coord: Coord,
    places: Arc<Semaphore>,
}

impl TokenAudit {
    /// Writes to `store`, by the clock of `coord`.
    pub fn new(store: Store, coord: Coord) -> Self {
        Self {
            store,
            coord,
            places: Arc::new(Semaphore::new(MOST_WAITING)),
        }
    }

    async fn write(
        &self,
        appid: &AppId,
        event: BrokerEvent,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let tenant = self.store.platform().app(appid).await?.tenant;
        let line = noticed(appid, event);
        let door = self.store.tenant(tenant);
        let BrokerEvent::ForeignRefresh(seen) = event else {
            return door.append_audit(line, now).await;
        };
        let data = serde_json::json!({
            "appid": appid.as_str(),
            "count_today": seen.count_today,
            "detail": ForeignRefresh::ADVICE,
        });
        let told = AppEvent::new(EventType::AppForeignRefresh, appid, data, now);
        door.append_audit_with_event(line, &told, now).await?;
        self.coord.wakeups().wake(topic::WEBHOOKS, "");
        Ok(())
    }
}

#[async_trait]
impl Observer for TokenAudit {
    async fn observe(&self, appid: &AppId, event: BrokerEvent) {
        let Ok(_place) = self.places.try_acquire() else {
            tracing::error!(%appid, ?event, "an audit line is lost: too many audit lines wait for the database");
            return;
        };
        let now = self.coord.clock().now();
        while let Err(error) = self.write(appid, event, now).await {
            if !error.is_outage() {
                tracing::warn!(%appid, ?event, %error, "an audit line is lost: the database refuses the line");
                return;
            }
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }
}

fn noticed(appid: &AppId, event: BrokerEvent) -> NewAuditLine {
    let (action, outcome, detail) = match event {
        BrokerEvent::ForeignRefresh(seen) => (
            "access_token.foreign_refresh",
            "repaired",
            format!(
                "number {} today: {}",
                seen.count_today,
                ForeignRefresh::ADVICE
            ),
        ),
        BrokerEvent::DiedYoung => (
            "access_token.died_young",
            "repaired",
            "another system fetched a token with this AppSecret, or another replica did while Redis did not answer: a \
             line `access_token.foreign_refresh` follows if another system fetched the token"
                .to_owned(),
        ),
        BrokerEvent::BudgetLow { kind, budget } => (
            "access_token.budget_low",
            if budget.is_nearly_spent() {
                "nearly_spent"
            } else {
                "low"
            },
            format!(
                "{} of {} {} are used: find the cause of so many fetches",
                budget.used,
                budget.limit,
                kind.as_str()
            ),
        ),
    };
    NewAuditLine {
        outcome: outcome.to_owned(),
        ..Origin::GATEWAY.did(action, appid).saying(detail)
    }
}

#[cfg(test)]
mod tests {
    use broker::{Budget, BudgetKind};

    use super::*;

    #[test]
    fn a_budget_is_low_before_it_is_nearly_spent() {
        let appid = AppId::parse("wx0a1b2c3d4e5f6789").unwrap();
        let line = |used| {
            let event = BrokerEvent::BudgetLow {
                kind: BudgetKind::LegacyFetches,
                budget: Budget { used, limit: 2_000 },
            };
            noticed(&appid, event)
        };
        assert_eq!(line(1_600).outcome, "low");
        let last = line(1_900);
        assert_eq!(last.outcome, "nearly_spent");
        assert_eq!(
            last.detail.as_deref(),
            Some("1900 of 2000 legacy_fetches are used: find the cause of so many fetches")
        );
    }
}
