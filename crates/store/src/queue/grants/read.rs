//! Reads a user's grants, and the users that a message reaches.

use std::{collections::HashMap, fmt, str::FromStr};

use chrono::{DateTime, Utc};
use domain::{app::AppId, message::Channel};
use sea_orm::{ConnectionTrait, FromQueryResult};

use super::{
    Grant, Subscription,
    ledger::{LedgerRow, account_columns},
    pool::{POOLED_COLUMNS, PooledRow},
};
use crate::{Listing, Page, StoreError, TenantStore, queue::sql::Sql, timestamp::millis};

/// The states of a ledger row in a [`Reach`]; 0 stands for neither.
const REACHABLE: i64 = 1;
const REVOKED: i64 = 2;
/// The most users that one statement looks up.
const PIECE: usize = 4096;

/// The number of users in a list that a message can reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// The distinct users in the list.
    pub users: u64,
    /// The users with a grant.
    pub reachable: u64,
    /// The users that have withdrawn the subscription of the template.
    pub revoked: u64,
}

/// A position in the list of a user's grants: ids first, in the order of descending expiry, then templates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantCursor {
    /// After this id.
    Id {
        /// The id's expiry, in milliseconds since 1970.
        expires_at: i64,
        /// The id itself.
        value: String,
    },
    /// After this template.
    Template(String),
}

/// The error for a text that is not a position in a list of grants.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a cursor is `next_cursor` of the page before, unchanged")]
pub struct GrantCursorFormat;

impl fmt::Display for GrantCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id { expires_at, value } => write!(f, "i.{expires_at}.{value}"),
            Self::Template(template_id) => write!(f, "t.{template_id}"),
        }
    }
}

impl FromStr for GrantCursor {
    type Err = GrantCursorFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('.').ok_or(GrantCursorFormat)? {
            ("t", template_id) => Ok(Self::Template(template_id.to_owned())),
            ("i", id) => {
                let (expires_at, value) = id.split_once('.').ok_or(GrantCursorFormat)?;
                Ok(Self::Id {
                    expires_at: expires_at.parse().map_err(|_| GrantCursorFormat)?,
                    value: value.to_owned(),
                })
            }
            _ => Err(GrantCursorFormat),
        }
    }
}

fn cursor(grant: &Grant) -> GrantCursor {
    match grant {
        Grant::Id(id) => GrantCursor::Id {
            expires_at: millis(id.usable_until),
            value: id.value.clone(),
        },
        Grant::Subscription(subscription) => {
            GrantCursor::Template(subscription.template_id.clone())
        }
    }
}

impl TenantStore {
    /// A user's grants: usable ids in the order of descending expiry, then the ledger rows of templates.
    pub async fn grants(
        &self,
        appid: &AppId,
        openid: &str,
        page: &Page<GrantCursor>,
        now: DateTime<Utc>,
    ) -> Result<Listing<Grant, GrantCursor>, StoreError> {
        self.app(appid).await?;
        let wanted = page.limit + 1;
        let mut grants = self.ids_of(appid, openid, page, wanted, now).await?;
        let left = wanted - grants.len() as u64;
        if left > 0 {
            grants.extend(self.accounts_of(appid, openid, page, left).await?);
        }
        Ok(Listing::of(grants, page, cursor))
    }

    async fn ids_of(
        &self,
        appid: &AppId,
        openid: &str,
        page: &Page<GrantCursor>,
        limit: u64,
        now: DateTime<Utc>,
    ) -> Result<Vec<Grant>, StoreError> {
        let mut sql = Sql::new(&format!(
            "SELECT {POOLED_COLUMNS} FROM form_id s WHERE s.uses_left > 0 AND s.appid = "
        ));
        sql.bind(appid.as_str())
            .push(" AND s.openid = ")
            .bind(openid)
            .push(" AND s.tenant_id = ")
            .bind(self.tenant.uuid())
            .push(" AND s.expires_at > ")
            .bind(millis(now));
        match &page.after {
            None => {}
            Some(GrantCursor::Id { expires_at, value }) => {
                sql.push(" AND (s.expires_at, s.value) < (")
                    .bind(*expires_at)
                    .push(", ")
                    .bind(value.as_str())
                    .push(")");
            }
            Some(GrantCursor::Template(_)) => return Ok(Vec::new()),
        }
        sql.push(" ORDER BY s.appid DESC, s.openid DESC, s.expires_at DESC, s.value DESC LIMIT ")
            .bind(limit.cast_signed());
        let connection = self.store.read();
        let rows = PooledRow::find_by_statement(sql.on(connection))
            .all(connection)
            .await?;
        rows.into_iter()
            .map(|row| Ok(Grant::Id(row.try_into()?)))
            .collect()
    }

    async fn accounts_of(
        &self,
        appid: &AppId,
        openid: &str,
        page: &Page<GrantCursor>,
        limit: u64,
    ) -> Result<Vec<Grant>, StoreError> {
        let after = match &page.after {
            Some(GrantCursor::Template(template_id)) => template_id.as_str(),
            _ => "",
        };
        let mut sql = Sql::new(&format!(
            "SELECT {} FROM subscription s WHERE s.appid = ",
            account_columns()
        ));
        sql.bind(appid.as_str())
            .push(" AND s.openid = ")
            .bind(openid)
            .push(" AND s.tenant_id = ")
            .bind(self.tenant.uuid())
            .push(" AND s.template_id > ")
            .bind(after)
            .push(" ORDER BY s.appid, s.openid, s.template_id LIMIT ")
            .bind(limit.cast_signed());
        let connection = self.store.read();
        let rows = LedgerRow::find_by_statement(sql.on(connection))
            .all(connection)
            .await?;
        rows.into_iter()
            .map(|row| {
                let subscription = Subscription::of(&row.openid, &row.template_id, &row.balance()?);
                Ok(Grant::Subscription(subscription))
            })
            .collect()
    }

    /// The number of these users that a message reaches: on channel `template` by the pool, else by the ledger.
    /// `openids` must not contain duplicates.
    pub async fn reach(
        &self,
        appid: &AppId,
        channel: Channel,
        template_id: &str,
        openids: &[&str],
        now: DateTime<Utc>,
    ) -> Result<Reach, StoreError> {
        self.app(appid).await?;
        let mut reach = Reach {
            users: openids.len() as u64,
            ..Reach::default()
        };
        for piece in openids.chunks(PIECE) {
            if channel == Channel::Template {
                reach.reachable += self.reached_by_pool(appid, piece, now).await?;
            } else {
                let (reachable, revoked) =
                    self.reached_by_ledger(appid, template_id, piece).await?;
                reach.reachable += reachable;
                reach.revoked += revoked;
            }
        }
        Ok(reach)
    }

    async fn reached_by_pool(
        &self,
        appid: &AppId,
        openids: &[&str],
        now: DateTime<Utc>,
    ) -> Result<u64, StoreError> {
        // Written so that the query reads only the ids of each user.
        let mut sql = Sql::new("WITH v(t) AS (");
        sql.rows(openids.iter().map(|openid| [(*openid).into()]));
        sql.push(
            ") SELECT DISTINCT v.t AS openid FROM v WHERE (SELECT n.openid FROM form_id n WHERE n.openid = v.t \
             AND n.uses_left > 0 AND n.held_by IS NULL AND n.appid = ",
        )
        .bind(appid.as_str())
        .push(" AND n.tenant_id = ")
        .bind(self.tenant.uuid())
        .push(" AND n.expires_at + 0 > ")
        .bind(millis(now))
        .push(" LIMIT 1) IS NOT NULL");
        let connection = self.store.read();
        Ok(connection.query_all_raw(sql.on(connection)).await?.len() as u64)
    }

    async fn reached_by_ledger(
        &self,
        appid: &AppId,
        template_id: &str,
        openids: &[&str],
    ) -> Result<(u64, u64), StoreError> {
        // One lookup for each user. A join might scan the template's rows once for each user.
        let mut sql = Sql::new("WITH v(t) AS (");
        sql.rows(openids.iter().map(|openid| [(*openid).into()]));
        sql.push(&format!(
            ") SELECT v.t AS openid, (SELECT CAST(CASE WHEN s.remaining > 0 THEN {REACHABLE} \
             WHEN s.revoked_at >= COALESCE(s.confirmed_at, 0) AND s.revoked_at >= COALESCE(s.reported_at, 0) \
             THEN {REVOKED} ELSE 0 END AS BIGINT) FROM subscription s WHERE s.openid = v.t AND s.appid = "
        ))
        .bind(appid.as_str())
        .push(" AND s.template_id = ")
        .bind(template_id)
        .push(" AND s.tenant_id = ")
        .bind(self.tenant.uuid())
        .push(") AS state FROM v");
        let connection = self.store.read();
        let mut states: HashMap<String, Option<i64>> = HashMap::new();
        for row in connection.query_all_raw(sql.on(connection)).await? {
            states.insert(row.try_get("", "openid")?, row.try_get("", "state")?);
        }
        let count = |state: i64| states.values().filter(|one| **one == Some(state)).count() as u64;
        Ok((count(REACHABLE), count(REVOKED)))
    }
}
