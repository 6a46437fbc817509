//! What the audit log is told of access tokens.

use async_trait::async_trait;
use broker::{Event, ForeignRefresh, Observer};
use chrono::{DateTime, Utc};
use coord::Coord;
use domain::{
    app::AppId,
    id::{self, KeyId},
};
use store::{NewAuditLine, Store, StoreError};

/// Who did what nobody asked for.
const BROKER: &str = "gateway";

/// A token was handed out to the holder of a key.
pub(crate) fn handed_out(
    appid: &AppId,
    key: KeyId,
    request_id: &str,
    now: DateTime<Utc>,
) -> NewAuditLine {
    NewAuditLine {
        id: id::new(now, 0, rand::random()),
        actor: key.to_string(),
        action: "access_token.hand_out".to_owned(),
        target: appid.to_string(),
        outcome: "ok".to_owned(),
        detail: None,
        request_id: Some(request_id.to_owned()),
    }
}

/// Writes what the broker notices into the audit log of the app's tenant.
#[derive(Clone, Debug)]
pub struct TokenAudit {
    store: Store,
    coord: Coord,
}

impl TokenAudit {
    /// Writes to `store`, by the clock of `coord`.
    pub fn new(store: Store, coord: Coord) -> Self {
        Self { store, coord }
    }

    async fn write(&self, appid: &AppId, event: Event) -> Result<(), StoreError> {
        let tenant = self.store.platform().app(appid).await?.tenant;
        let now = self.coord.clock().now();
        let line = noticed(appid, event, now);
        self.store.tenant(tenant).append_audit(line, now).await
    }
}

#[async_trait]
impl Observer for TokenAudit {
    async fn observe(&self, appid: &AppId, event: Event) {
        if let Err(error) = self.write(appid, event).await {
            tracing::warn!(%appid, ?event, %error, "not in the audit log");
        }
    }
}

fn noticed(appid: &AppId, event: Event, now: DateTime<Utc>) -> NewAuditLine {
    let (action, outcome, detail) = match event {
        Event::ForeignRefresh(seen) => (
            "access_token.foreign_refresh",
            "repaired",
            format!(
                "number {} today: {}",
                seen.count_today,
                ForeignRefresh::ADVICE
            ),
        ),
        Event::BudgetLow { kind, budget } => (
            "access_token.budget_low",
            if budget.is_nearly_spent() {
                "nearly_spent"
            } else {
                "low"
            },
            format!(
                "{} of {} {} are used: find out what fetches so often",
                budget.used,
                budget.limit,
                kind.as_str()
            ),
        ),
    };
    NewAuditLine {
        id: id::new(now, 0, rand::random()),
        actor: BROKER.to_owned(),
        action: action.to_owned(),
        target: appid.to_string(),
        outcome: outcome.to_owned(),
        detail: Some(detail),
        request_id: None,
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
            let event = Event::BudgetLow {
                kind: BudgetKind::LegacyFetches,
                budget: Budget { used, limit: 2_000 },
            };
            noticed(&appid, event, DateTime::UNIX_EPOCH)
        };
        assert_eq!(line(1_600).outcome, "low");
        let last = line(1_900);
        assert_eq!(last.outcome, "nearly_spent");
        assert_eq!(
            last.detail.as_deref(),
            Some("1900 of 2000 legacy_fetches are used: find out what fetches so often")
        );
    }
}
