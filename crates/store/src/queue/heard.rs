//! Events of WeChat that would count twice if they were taken in twice, remembered by a digest.

use std::collections::HashSet;

use chrono::{DateTime, Duration, Utc};
use domain::app::AppId;
use sea_orm::ConnectionTrait;

use super::sql::Sql;
use crate::{PlatformStore, StoreError, Swept, millis};

/// How many digests one sweep forgets.
const BATCH: i64 = 500;
/// How long a digest is kept: longer than WeChat repeats an event, and than a signature is good for.
const MEMORY: Duration = Duration::hours(1);

/// An event, as far as it must be told from others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeardEvent {
    /// The app that it happened to.
    pub appid: AppId,
    /// A hash of whom it concerns, when it happened and what it says.
    pub digest: [u8; 32],
}

impl PlatformStore {
    /// Remembers events; returns those that were not known yet.
    pub async fn remember_events(
        &self,
        events: &[HeardEvent],
        now: DateTime<Utc>,
    ) -> Result<HashSet<HeardEvent>, StoreError> {
        if events.is_empty() {
            return Ok(HashSet::new());
        }
        // In one order, so that two replicas that hear of the same do not wait for each other.
        let mut ordered: Vec<&HeardEvent> = events.iter().collect();
        ordered.sort_unstable_by_key(|event| (event.appid.as_str(), event.digest));
        let mut sql = Sql::new("INSERT INTO heard_event (appid, digest, received_at) ");
        sql.rows(ordered.into_iter().map(|event| {
            [
                event.appid.as_str().into(),
                event.digest.to_vec().into(),
                millis(now).into(),
            ]
        }));
        sql.push(" ON CONFLICT (appid, digest) DO NOTHING RETURNING appid, digest");
        let connection = &self.store.write;
        let rows = connection.query_all_raw(sql.on(connection)).await?;
        let mut fresh = HashSet::new();
        for row in rows {
            let (appid, digest): (String, Vec<u8>) =
                (row.try_get("", "appid")?, row.try_get("", "digest")?);
            fresh.extend(
                events
                    .iter()
                    .find(|event| event.appid.as_str() == appid && event.digest[..] == digest[..])
                    .cloned(),
            );
        }
        Ok(fresh)
    }

    /// Forgets events that WeChat does not repeat any more.
    pub async fn forget_events(&self, now: DateTime<Utc>) -> Result<Swept, StoreError> {
        let mut sql = Sql::new(
            "DELETE FROM heard_event WHERE (appid, digest) IN (SELECT appid, digest FROM heard_event WHERE received_at < ",
        );
        sql.bind(millis(now - MEMORY))
            .push(" LIMIT ")
            .bind(BATCH)
            .push(")");
        let connection = &self.store.write;
        let forgotten = connection.execute_raw(sql.on(connection)).await?;
        Ok(Swept {
            moved: forgotten.rows_affected(),
            more: forgotten.rows_affected() >= BATCH.unsigned_abs(),
        })
    }
}
