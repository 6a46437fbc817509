//! The end of messages that will not be sent any more, many at a time: the words of `domain::lifecycle`'s
//! `Facts::unsent` in SQL.

use chrono::{DateTime, Utc};
use domain::{app::AppId, id::TenantId};

use super::{
    BEHIND, ENDED, READY, WAITING,
    sql::{Sql, still},
    sweep::{BATCH, Swept},
    tell::{Settled, end_and_tell},
};
use crate::{PlatformStore, StoreError};

/// That a try of the message had no answer: WeChat may have it.
pub(super) const MAYBE_SENT: &str = "attempts LIKE '%\"outcome\":\"unknown\"%'";

/// Why messages end unsent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unsent {
    /// Their ttl is over.
    Lapsed,
    /// They are called back.
    CalledBack,
}

impl Unsent {
    /// The beginning of an update that ends messages; when they change is still to be said ([`Sql::touch`]). The outcome
    /// of one that WeChat may have stays unknown.
    pub(super) fn update(self) -> String {
        let (status, code) = match self {
            Self::Lapsed => ("expired", "'expired'"),
            Self::CalledBack => ("canceled", "NULL"),
        };
        format!(
            "UPDATE message SET phase = {ENDED}, status = CASE WHEN {MAYBE_SENT} THEN 'uncertain' ELSE '{status}' END, \
             failure_code = CASE WHEN {MAYBE_SENT} THEN 'unanswered' ELSE {code} END, "
        )
    }
}

impl PlatformStore {
    /// Calls back what a tenant's removed app has not sent.
    pub(crate) async fn cancel_unsent(
        &self,
        tenant: TenantId,
        appid: &AppId,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        for phase in [READY, BEHIND, WAITING] {
            loop {
                let mut of_app = of_app(phase, appid.as_str());
                of_app.push(" AND m.tenant_id = ").bind(tenant.uuid());
                let ended = self.call_back(phase, of_app, now).await?;
                if !Swept::of(ended.len() as u64).more {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Calls back ready messages of an app that is gone, a batch at a time.
    pub(super) async fn cancel_ready(
        &self,
        appid: &str,
        now: DateTime<Utc>,
    ) -> Result<Vec<Settled>, StoreError> {
        let mut of_app = of_app(READY, appid);
        of_app.push(" AND NOT EXISTS (SELECT 1 FROM app WHERE app.appid = m.appid)");
        self.call_back(READY, of_app, now).await
    }

    /// Calls back a batch of `chosen`, which are in this phase. Whoever calls messages back knows of those that were not
    /// sent; an endpoint is told of those that may have been.
    async fn call_back(
        &self,
        phase: i64,
        mut chosen: Sql,
        now: DateTime<Utc>,
    ) -> Result<Vec<Settled>, StoreError> {
        let tx = self.store.begin().await?;
        chosen
            .push(" LIMIT ")
            .bind(BATCH)
            .push(&format!(") {}", Unsent::CalledBack.update()))
            .touch(now)
            .push(&format!(
                " WHERE {} AND id IN (SELECT id FROM chosen)",
                still(phase)
            ));
        let ended = end_and_tell(&tx, chosen, now).await?;
        tx.commit().await?;
        Ok(ended)
    }
}

/// The beginning of a choice: the messages of the app in this phase.
fn of_app(phase: i64, appid: &str) -> Sql {
    let mut sql = Sql::new(&format!(
        "WITH chosen AS (SELECT m.id FROM message m WHERE m.phase = {phase} AND m.appid = "
    ));
    sql.bind(appid);
    sql
}
