//! Deduplication of WeChat's events: a digest identifies an event that must count once.

use std::collections::{BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Duration, Utc};
use domain::{app::AppId, id::TenantId};
use sea_orm::{ConnectionTrait, DbBackend};
use uuid::Uuid;

use super::{
    grants::{LedgerChange, enter_ledger},
    sql::Sql,
};
use crate::{PlatformStore, StoreError, Swept, timestamp::millis};

/// The most digests that one sweep deletes.
const BATCH: i64 = 500;
/// The most events or entries that one statement handles.
const PIECE: usize = 512;
/// How long a digest is kept: longer than WeChat repeats an event, and longer than a signature is valid.
const MEMORY: Duration = Duration::hours(1);

/// The identity of an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventKey {
    /// The app of the event.
    pub appid: AppId,
    /// A hash of the event's user, time and content.
    pub digest: [u8; 32],
}

/// An event, with the entries of the event for the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackEvent {
    /// The tenant that owns the app: the event is signed with this tenant's Token. If the app has another owner by now,
    /// nothing is entered.
    pub tenant: TenantId,
    /// The event.
    pub event: EventKey,
    /// The entries for the ledger.
    pub entries: Vec<LedgerChange>,
}

impl PlatformStore {
    /// Stores the digests of events, and enters the entries of new events into the ledger, once. Returns the events
    /// that were not known before.
    pub async fn remember_events(
        &self,
        events: &[CallbackEvent],
        now: DateTime<Utc>,
    ) -> Result<HashSet<EventKey>, StoreError> {
        if events.is_empty() {
            return Ok(HashSet::new());
        }
        // In a fixed order, so that two replicas with the same events do not block each other.
        let mut ordered: Vec<&EventKey> = events.iter().map(|news| &news.event).collect();
        ordered.sort_unstable_by_key(|event| (event.appid.as_str(), event.digest));
        let tx = self.store.begin_batch().await?;
        let mut rows = Vec::new();
        for piece in ordered.chunks(PIECE) {
            let mut sql = Sql::new("INSERT INTO heard_event (appid, digest, received_at) ");
            sql.rows(piece.iter().map(|event| {
                [
                    event.appid.as_str().into(),
                    event.digest.to_vec().into(),
                    millis(now).into(),
                ]
            }));
            sql.push(" ON CONFLICT (appid, digest) DO NOTHING RETURNING appid, digest");
            rows.extend(tx.query_all_raw(sql.on(&tx)).await?);
        }
        let mut fresh = HashSet::new();
        for row in rows {
            let (appid, digest): (String, Vec<u8>) =
                (row.try_get("", "appid")?, row.try_get("", "digest")?);
            fresh.extend(
                events
                    .iter()
                    .map(|news| &news.event)
                    .find(|event| event.appid.as_str() == appid && event.digest[..] == digest[..])
                    .cloned(),
            );
        }
        let owners = owners(&tx, &fresh).await?;
        // Ledger rows are locked in one order over all pieces. The stable sort keeps the order of entries for one row.
        let mut entries = entries(events, &fresh, &owners);
        entries.sort_by_cached_key(LedgerChange::key);
        for piece in entries.chunks(PIECE) {
            enter_ledger(&tx, piece).await?;
        }
        tx.commit().await?;
        Ok(fresh)
    }

    /// Deletes the digests of events that WeChat does not repeat any more.
    pub async fn forget_events(&self, now: DateTime<Utc>) -> Result<Swept, StoreError> {
        let mut sql = Sql::new(
            "DELETE FROM heard_event WHERE (appid, digest) IN (SELECT appid, digest FROM heard_event WHERE received_at < ",
        );
        sql.bind(millis(now - MEMORY))
            .push(" LIMIT ")
            .bind(BATCH)
            .push(")");
        let connection = self.store.write();
        let forgotten = connection.execute_raw(sql.on(connection)).await?;
        Ok(Swept {
            moved: forgotten.rows_affected(),
            more: forgotten.rows_affected() >= BATCH.unsigned_abs(),
        })
    }
}

/// The owners of the apps of these events. On PostgreSQL a shared lock prevents the removal of the apps until the end
/// of the transaction.
async fn owners(
    tx: &impl ConnectionTrait,
    fresh: &HashSet<EventKey>,
) -> Result<HashMap<String, Uuid>, StoreError> {
    let appids: BTreeSet<&str> = fresh.iter().map(|event| event.appid.as_str()).collect();
    if appids.is_empty() {
        return Ok(HashMap::new());
    }
    let mut sql = Sql::new("SELECT appid, tenant_id FROM app WHERE appid");
    sql.one_of(&appids.into_iter().collect::<Vec<_>>())
        .push(" ORDER BY appid");
    if tx.get_database_backend() == DbBackend::Postgres {
        sql.push(" FOR KEY SHARE");
    }
    let rows = tx.query_all_raw(sql.on(tx)).await?;
    rows.iter()
        .map(|row| Ok((row.try_get("", "appid")?, row.try_get("", "tenant_id")?)))
        .collect()
}

/// The ledger entries of fresh events, each event once.
fn entries(
    events: &[CallbackEvent],
    fresh: &HashSet<EventKey>,
    owners: &HashMap<String, Uuid>,
) -> Vec<LedgerChange> {
    let mut entered = HashSet::new();
    events
        .iter()
        .filter(|news| owners.get(news.event.appid.as_str()) == Some(&news.tenant.uuid()))
        .filter(|news| fresh.contains(&news.event) && entered.insert(&news.event))
        .flat_map(|news| news.entries.iter().cloned())
        .collect()
}
