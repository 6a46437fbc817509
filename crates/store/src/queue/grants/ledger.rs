//! The subscription ledger: one row for each user and template, changed by [`Balance::enter`].

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    app::AppId,
    grant::{Balance, LedgerEntry},
};
use sea_orm::{ConnectionTrait, FromQueryResult};
use uuid::Uuid;

use crate::{
    StoreError,
    messages::{json, to_json},
    queue::sql::{Sql, SqlValue},
    timestamp::{millis, time},
};

/// The key of a ledger row: appid, user, template.
pub(super) type LedgerKey = (String, String, String);

/// An entry for the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerChange {
    /// The app.
    pub appid: AppId,
    /// The user that accepted or withdrew.
    pub openid: String,
    /// The template.
    pub template_id: String,
    /// The change.
    pub entry: LedgerEntry,
}

impl LedgerChange {
    pub(in crate::queue) fn key(&self) -> LedgerKey {
        let appid = self.appid.as_str().to_owned();
        (appid, self.openid.clone(), self.template_id.clone())
    }
}

#[derive(FromQueryResult)]
pub(super) struct LedgerRow {
    pub(super) appid: String,
    pub(super) openid: String,
    pub(super) template_id: String,
    tenant_id: Uuid,
    remaining: i64,
    long_term: i64,
    untold: String,
    reported_at: Option<i64>,
    confirmed_at: Option<i64>,
    revoked_at: Option<i64>,
}

/// The columns of [`LedgerRow`], of a row `s`.
pub(super) fn account_columns() -> String {
    format!(
        "s.appid, s.openid, s.template_id, s.tenant_id, s.remaining, CAST(CASE WHEN {IS_LONG_TERM} THEN 1 ELSE 0 END AS BIGINT) \
         AS long_term, s.untold, s.reported_at, s.confirmed_at, s.revoked_at"
    )
}

/// The condition that a row `s` is of a long-term template: as the tenant reported, or as WeChat lists the template.
/// The statement checks this at each change, so the time at which WeChat's list was read does not matter.
pub(super) const IS_LONG_TERM: &str = "(s.long_term = 1 OR (SELECT template.kind FROM template WHERE template.appid = s.appid \
                                       AND template.id = s.template_id) = 'long_term')";

/// The condition that joins the ledger row of a row of `v`.
pub(super) const KEY: &str = "s.appid = v.a AND s.openid = v.t AND s.template_id = v.p";

/// The beginning and, in [`CHANGED`], the end of a statement that sets `remaining` of the rows found for `v`. The
/// INSERT inserts nothing, because the rows exist. In this form the statement finds each row again by the primary key,
/// and by no other index.
pub(super) const CHANGE: &str = "INSERT INTO subscription (appid, openid, template_id, tenant_id, long_term, untold, remaining) \
                                 SELECT s.appid, s.openid, s.template_id, s.tenant_id, s.long_term, s.untold, ";
pub(super) const CHANGED: &str =
    " ON CONFLICT (appid, openid, template_id) DO UPDATE SET remaining = excluded.remaining";

impl LedgerRow {
    pub(super) fn balance(&self) -> Result<Balance, StoreError> {
        Ok(Balance {
            remaining: u32::try_from(self.remaining).unwrap_or_default(),
            long_term: self.long_term != 0,
            untold: json(&self.untold, "subscription.untold")?,
            reported_at: self.reported_at.map(time),
            confirmed_at: self.confirmed_at.map(time),
            revoked_at: self.revoked_at.map(time),
        })
    }
}

/// Applies all of `news`, in order, and returns the resulting balances. Skips news for removed apps. Marks these apps
/// as apps with a ledger.
pub(in crate::queue) async fn enter(
    tx: &impl ConnectionTrait,
    news: &[LedgerChange],
) -> Result<BTreeMap<LedgerKey, Balance>, StoreError> {
    if news.is_empty() {
        return Ok(BTreeMap::new());
    }
    let keys: BTreeSet<LedgerKey> = news.iter().map(LedgerChange::key).collect();
    open(tx, &keys).await?;
    let (mut accounts, mut owners) = (BTreeMap::new(), BTreeMap::new());
    for account in find(tx, keys).await? {
        let balance = account.balance()?;
        let key = (account.appid, account.openid, account.template_id);
        owners.insert(key.clone(), account.tenant_id);
        accounts.insert(key, balance);
    }
    for news in news {
        if let Some(balance) = accounts.get_mut(&news.key()) {
            balance.enter(news.entry);
        }
    }
    write(tx, &accounts, &owners).await?;
    let appids: BTreeSet<&str> = news.iter().map(|news| news.appid.as_str()).collect();
    let appids: Vec<&str> = appids.into_iter().collect();
    let mut sql = Sql::new("UPDATE app SET counts_grants = 1 WHERE counts_grants = 0 AND appid");
    sql.one_of(&appids);
    tx.execute_raw(sql.on(tx)).await?;
    Ok(accounts)
}

/// Inserts the rows that do not exist yet.
async fn open(tx: &impl ConnectionTrait, keys: &BTreeSet<LedgerKey>) -> Result<(), StoreError> {
    let mut sql = Sql::new("WITH v(a, t, p) AS (");
    sql.rows(keys.iter().cloned().map(cells));
    sql.push(
        "), w(a, t, p, owner) AS (SELECT v.a, v.t, v.p, (SELECT app.tenant_id FROM app WHERE app.appid = v.a) FROM v) \
         INSERT INTO subscription (appid, openid, template_id, tenant_id, remaining, long_term, untold) \
         SELECT w.a, w.t, w.p, w.owner, 0, 0, '{}' FROM w WHERE w.owner IS NOT NULL \
         ON CONFLICT (appid, openid, template_id) DO NOTHING",
    );
    tx.execute_raw(sql.on(tx)).await?;
    Ok(())
}

fn cells((appid, openid, template_id): LedgerKey) -> [SqlValue; 3] {
    [appid.into(), openid.into(), template_id.into()]
}

/// The rows of these keys; on PostgreSQL locked in a fixed order, so that no deadlock occurs.
async fn find(
    tx: &impl ConnectionTrait,
    keys: BTreeSet<LedgerKey>,
) -> Result<Vec<LedgerRow>, StoreError> {
    let mut sql = Sql::new("WITH v(a, t, p) AS (");
    sql.rows(keys.into_iter().map(cells))
        .push(&format!(") SELECT {} FROM ", account_columns()))
        .found_and_locked("subscription", KEY);
    Ok(LedgerRow::find_by_statement(sql.on(tx)).all(tx).await?)
}

/// Writes rows that exist and are locked.
async fn write(
    tx: &impl ConnectionTrait,
    accounts: &BTreeMap<LedgerKey, Balance>,
    owners: &BTreeMap<LedgerKey, Uuid>,
) -> Result<(), StoreError> {
    let rows = accounts
        .iter()
        .zip(owners.values())
        .map(
            |(((appid, openid, template_id), balance), owner)| -> Result<[SqlValue; 10], StoreError> {
                Ok([
                    appid.as_str().into(),
                    openid.as_str().into(),
                    template_id.as_str().into(),
                    (*owner).into(),
                    i64::from(balance.remaining).into(),
                    i64::from(balance.long_term).into(),
                    to_json(&balance.untold, "subscription.untold")?.into(),
                    balance.reported_at.map(millis).into(),
                    balance.confirmed_at.map(millis).into(),
                    balance.revoked_at.map(millis).into(),
                ])
            },
        )
        .collect::<Result<Vec<_>, _>>()?;
    if rows.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new(
        "INSERT INTO subscription (appid, openid, template_id, tenant_id, remaining, long_term, untold, reported_at, \
         confirmed_at, revoked_at) ",
    );
    sql.rows(rows.into_iter()).push(
        " ON CONFLICT (appid, openid, template_id) DO UPDATE SET remaining = excluded.remaining, \
         long_term = excluded.long_term, untold = excluded.untold, reported_at = excluded.reported_at, \
         confirmed_at = excluded.confirmed_at, revoked_at = excluded.revoked_at",
    );
    tx.execute_raw(sql.on(tx)).await?;
    Ok(())
}
