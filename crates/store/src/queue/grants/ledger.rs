//! The ledger: accounts of users and templates, changed by [`Balance::enter`].

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    app::AppId,
    grant::{Balance, Entry},
};
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};

use crate::{
    StoreError,
    messages::{json, to_json},
    millis,
    queue::sql::{Cell, Sql},
    time,
};

/// The key of an account: appid, user, template.
pub(super) type Key = (String, String, String);

/// An entry for the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerNews {
    /// The app.
    pub appid: AppId,
    /// Who accepted or does not.
    pub openid: String,
    /// Which template.
    pub template_id: String,
    /// What.
    pub entry: Entry,
}

impl LedgerNews {
    fn key(&self) -> Key {
        let appid = self.appid.as_str().to_owned();
        (appid, self.openid.clone(), self.template_id.clone())
    }
}

#[derive(FromQueryResult)]
pub(super) struct Account {
    pub(super) appid: String,
    pub(super) openid: String,
    pub(super) template_id: String,
    remaining: i64,
    long_term: i64,
    untold: String,
    reported_at: Option<i64>,
    confirmed_at: Option<i64>,
    revoked_at: Option<i64>,
}

/// The columns of [`Account`].
pub(super) const ACCOUNT_COLUMNS: &str = "appid, openid, template_id, remaining, long_term, untold, reported_at, confirmed_at, \
                                          revoked_at";

impl Account {
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

/// Enters all of `news`, in order, and returns the accounts as they are then. What is for an app that is gone is left out.
/// Remembers that these apps have a ledger.
pub(in crate::queue) async fn enter(
    tx: &impl ConnectionTrait,
    news: &[LedgerNews],
) -> Result<BTreeMap<Key, Balance>, StoreError> {
    if news.is_empty() {
        return Ok(BTreeMap::new());
    }
    let keys: BTreeSet<Key> = news.iter().map(LedgerNews::key).collect();
    open(tx, &keys).await?;
    let mut accounts = BTreeMap::new();
    for account in find(tx, keys, true).await? {
        let balance = account.balance()?;
        accounts.insert(
            (account.appid, account.openid, account.template_id),
            balance,
        );
    }
    for news in news {
        if let Some(balance) = accounts.get_mut(&news.key()) {
            balance.enter(news.entry);
        }
    }
    write(tx, &accounts).await?;
    let appids: BTreeSet<&str> = news.iter().map(|news| news.appid.as_str()).collect();
    let appids: Vec<&str> = appids.into_iter().collect();
    let mut sql = Sql::new("UPDATE app SET counts_grants = 1 WHERE counts_grants = 0 AND appid");
    sql.one_of(&appids);
    tx.execute_raw(sql.on(tx)).await?;
    Ok(accounts)
}

/// Opens the accounts that are not there yet.
async fn open(tx: &impl ConnectionTrait, keys: &BTreeSet<Key>) -> Result<(), StoreError> {
    let mut sql = Sql::new("WITH v(a, t, p) AS (");
    sql.rows(keys.iter().cloned().map(cells));
    sql.push(
        ") INSERT INTO subscription (appid, openid, template_id, tenant_id, remaining, long_term, untold) \
         SELECT v.a, v.t, v.p, app.tenant_id, 0, 0, '{}' FROM v JOIN app ON app.appid = v.a WHERE v.a = v.a \
         ON CONFLICT (appid, openid, template_id) DO NOTHING",
    );
    tx.execute_raw(sql.on(tx)).await?;
    Ok(())
}

fn cells((appid, openid, template_id): Key) -> [Cell; 3] {
    [appid.into(), openid.into(), template_id.into()]
}

/// The accounts of these keys; on PostgreSQL locked in one order, so that nobody waits in a circle.
async fn find(
    tx: &impl ConnectionTrait,
    keys: BTreeSet<Key>,
    locked: bool,
) -> Result<Vec<Account>, StoreError> {
    let mut sql = Sql::new(&format!(
        "SELECT {ACCOUNT_COLUMNS} FROM subscription WHERE (appid, openid, template_id) IN ("
    ));
    sql.rows(keys.into_iter().map(cells))
        .push(") ORDER BY appid, openid, template_id");
    if locked && tx.get_database_backend() == DbBackend::Postgres {
        sql.push(" FOR UPDATE");
    }
    Ok(Account::find_by_statement(sql.on(tx)).all(tx).await?)
}

/// Locks these accounts, where a database locks rows.
pub(super) async fn lock(tx: &impl ConnectionTrait, keys: BTreeSet<Key>) -> Result<(), StoreError> {
    if keys.len() > 1 && tx.get_database_backend() == DbBackend::Postgres {
        find(tx, keys, true).await?;
    }
    Ok(())
}

async fn write(
    tx: &impl ConnectionTrait,
    accounts: &BTreeMap<Key, Balance>,
) -> Result<(), StoreError> {
    let rows = accounts
        .iter()
        .map(
            |((appid, openid, template_id), balance)| -> Result<[Cell; 9], StoreError> {
                Ok([
                    appid.as_str().into(),
                    openid.as_str().into(),
                    template_id.as_str().into(),
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
    let mut sql = Sql::new("WITH v(a, t, p, n, l, u, r, c, x) AS (");
    sql.rows(rows.into_iter());
    sql.push(
        ") UPDATE subscription SET remaining = v.n, long_term = v.l, untold = v.u, reported_at = v.r, confirmed_at = v.c, \
         revoked_at = v.x FROM v WHERE appid = v.a AND openid = v.t AND template_id = v.p",
    );
    tx.execute_raw(sql.on(tx)).await?;
    Ok(())
}
