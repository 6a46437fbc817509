//! Ends messages that will not be sent, many at a time: the rules of `domain::lifecycle`'s `MessageState::unsent` in SQL.

use chrono::{DateTime, Utc};
use domain::{app::AppId, id::TenantId};

use super::{
    BEHIND, ENDED, READY, WAITING,
    events::{Settled, end_with_events},
    sql::{Sql, still},
    sweep::{BATCH, Swept},
};
use crate::{PlatformStore, StoreError};

/// The condition that an attempt of the message had no answer, so that WeChat may have the message.
pub(super) const MAYBE_SENT: &str = "attempts LIKE '%\"outcome\":\"unknown\"%'";

/// The reason for which messages end unsent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unsent {
    /// The ttl has ended.
    Lapsed,
    /// The messages are canceled.
    CalledBack,
}

impl Unsent {
    /// The beginning of an UPDATE that ends messages. The caller must append the time of the change ([`Sql::touch`]). A
    /// message that WeChat may have becomes `uncertain`.
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
    /// Cancels the unsent messages of a tenant's removed app.
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

    /// Cancels one batch of ready messages of a removed app.
    pub(super) async fn cancel_ready(
        &self,
        appid: &str,
        now: DateTime<Utc>,
    ) -> Result<Vec<Settled>, StoreError> {
        let mut of_app = of_app(READY, appid);
        of_app.push(" AND NOT EXISTS (SELECT 1 FROM app WHERE app.appid = m.appid)");
        self.call_back(READY, of_app, now).await
    }

    /// Cancels one batch of `chosen`, which are in this phase. The tenant that removed the app knows that unsent
    /// messages are canceled. Only messages that WeChat may have cause an event.
    async fn call_back(
        &self,
        phase: i64,
        mut chosen: Sql,
        now: DateTime<Utc>,
    ) -> Result<Vec<Settled>, StoreError> {
        let tx = self.store.begin_batch().await?;
        chosen
            .push(" LIMIT ")
            .bind(BATCH)
            .push(&format!(") {}", Unsent::CalledBack.update()))
            .touch(now)
            .push(&format!(
                " WHERE {} AND id IN (SELECT id FROM chosen)",
                still(phase)
            ));
        let ended = end_with_events(&tx, chosen, now).await?;
        tx.commit().await?;
        Ok(ended)
    }
}

/// The beginning of `chosen`: the messages of the app in this phase.
fn of_app(phase: i64, appid: &str) -> Sql {
    let mut sql = Sql::new(&format!(
        "WITH chosen AS (SELECT m.id FROM message m WHERE m.phase = {phase} AND m.appid = "
    ));
    sql.bind(appid);
    sql
}
