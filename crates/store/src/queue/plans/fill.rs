//! Fills the tables of grants for the tests of plans.

use domain::{app::AppId, id::TenantId};
use sea_orm::{ConnectionTrait, Statement};

use super::{ENDED, at};
use crate::{Store, timestamp::millis};

/// Inserts ids and ledger rows of many users. Half of the ids are spent.
pub(super) async fn fill_grants(store: &Store, tenant: TenantId, appid: &AppId) {
    let connection = store.write();
    for insert in [
        "INSERT INTO form_id (appid, value, tenant_id, openid, kind, uses_left, collected_at, expires_at) \
         SELECT $2, 'f' || i, $1, 'u' || (i / 4), 'form_id', i % 2, $3, $3 + i FROM n",
        "INSERT INTO subscription (appid, openid, template_id, tenant_id, remaining, long_term, untold) \
         SELECT $2, 'u' || (i / 4), 't' || (i % 4), $1, i % 3, 0, '{}' FROM n WHERE i < $3",
    ] {
        let (before, after) = insert.split_once(" SELECT").unwrap();
        let insert = Statement::from_sql_and_values(
            connection.get_database_backend(),
            format!(
                "{before} WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ENDED}) SELECT{after}"
            ),
            [
                tenant.uuid().into(),
                appid.as_str().into(),
                millis(at(3600)).into(),
            ],
        );
        connection.execute_raw(insert).await.unwrap();
    }
}
