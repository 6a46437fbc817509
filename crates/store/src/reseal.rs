//! All sealed values of the database, which must be sealed again after a change of the master key.
//!
//! A new sealed column needs a variant of [`SealedColumn`]; a test compares the variants with the schema.

use domain::{
    app::AppId,
    id::TenantId,
    seal::{MasterKeyId, SealOwner},
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, EntityTrait, ExprTrait, QueryFilter, QuerySelect,
    sea_query::Expr,
};
use uuid::Uuid;

use crate::{
    PlatformStore, StoreError,
    entity::{app, sealed_key, signing_key, webhook},
    error::unknown,
};

/// A kind of sealed value: a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealedColumn {
    /// AppSecrets.
    AppSecret,
    /// Tokens of message push settings.
    CallbackToken,
    /// `EncodingAESKey`s of message push settings.
    CallbackAesKey,
    /// Tokens of the previous message push settings.
    PreviousCallbackToken,
    /// `EncodingAESKey`s of the previous message push settings.
    PreviousCallbackAesKey,
    /// Private keys that sign access tokens.
    SigningKey,
    /// Secrets that sign the events of webhooks.
    WebhookSecret,
    /// Webhook secrets before the last rotation.
    PreviousWebhookSecret,
    /// The gateway's own keys.
    SealedKey,
    /// Answers to requests under an idempotency key.
    StoredAnswer,
}

/// A sealed value, with its place and its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedValue {
    /// The column.
    pub place: SealedColumn,
    /// The primary key of the row.
    pub row: String,
    /// The owner that the value is sealed for.
    pub owner: SealOwner,
    /// The sealed value.
    pub sealed: Vec<u8>,
}

impl SealedColumn {
    /// All places.
    pub const ALL: [Self; 10] = [
        Self::AppSecret,
        Self::CallbackToken,
        Self::CallbackAesKey,
        Self::PreviousCallbackToken,
        Self::PreviousCallbackAesKey,
        Self::SigningKey,
        Self::WebhookSecret,
        Self::PreviousWebhookSecret,
        Self::SealedKey,
        Self::StoredAnswer,
    ];

    /// The name of the values, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AppSecret => "app secrets",
            Self::CallbackToken => "callback tokens",
            Self::CallbackAesKey => "callback AES keys",
            Self::PreviousCallbackToken => "previous callback tokens",
            Self::PreviousCallbackAesKey => "previous callback AES keys",
            Self::SigningKey => "signing keys",
            Self::WebhookSecret => "webhook secrets",
            Self::PreviousWebhookSecret => "previous webhook secrets",
            Self::SealedKey => "keys of the gateway",
            Self::StoredAnswer => "kept answers",
        }
    }

    /// The column of the table `app`, if this place is one.
    fn app_column(self) -> Option<app::Column> {
        match self {
            Self::AppSecret => Some(app::Column::SecretSealed),
            Self::CallbackToken => Some(app::Column::CallbackTokenSealed),
            Self::CallbackAesKey => Some(app::Column::CallbackAesKeySealed),
            Self::PreviousCallbackToken => Some(app::Column::PreviousCallbackTokenSealed),
            Self::PreviousCallbackAesKey => Some(app::Column::PreviousCallbackAesKeySealed),
            _ => None,
        }
    }

    /// The column of the table `webhook`, if this place is one.
    fn webhook_column(self) -> Option<webhook::Column> {
        match self {
            Self::WebhookSecret => Some(webhook::Column::SecretSealed),
            Self::PreviousWebhookSecret => Some(webhook::Column::PreviousSecretSealed),
            _ => None,
        }
    }

    fn app_owner(self, tenant: TenantId, appid: &AppId) -> SealOwner {
        match self {
            Self::CallbackToken | Self::PreviousCallbackToken => {
                SealOwner::callback_token(tenant, appid)
            }
            Self::CallbackAesKey | Self::PreviousCallbackAesKey => {
                SealOwner::callback_aes_key(tenant, appid)
            }
            _ => SealOwner::app_secret(tenant, appid),
        }
    }
}

impl PlatformStore {
    /// Up to `limit` values of a place that are sealed with another master key than `key`.
    pub async fn sealed_with_other_key(
        &self,
        place: SealedColumn,
        key: MasterKeyId,
        limit: u64,
    ) -> Result<Vec<SealedValue>, StoreError> {
        if place == SealedColumn::StoredAnswer {
            return self
                .answers_sealed_otherwise(key.mark().to_vec(), limit)
                .await;
        }
        let other =
            |column: &str| Expr::cust(format!("substr({column}, 1, 5)")).ne(key.mark().to_vec());
        let read = self.store.read();
        let value = |row: String, owner, sealed| SealedValue {
            place,
            row,
            owner,
            sealed,
        };
        if let Some(column) = place.app_column() {
            let name = sea_orm::IdenStatic::as_str(&column);
            let rows: Vec<(String, Uuid, Vec<u8>)> = app::Entity::find()
                .select_only()
                .columns([app::Column::Appid, app::Column::TenantId, column])
                .filter(column.is_not_null())
                .filter(other(name))
                .limit(limit)
                .into_tuple()
                .all(read)
                .await?;
            let values = rows.into_iter().map(|(row, tenant, sealed)| {
                let appid = AppId::parse(row.as_str()).map_err(|_| unknown("app.appid", &row))?;
                Ok(value(row, place.app_owner(tenant.into(), &appid), sealed))
            });
            return values.collect();
        }
        if let Some(column) = place.webhook_column() {
            let name = sea_orm::IdenStatic::as_str(&column);
            let rows: Vec<(Uuid, Uuid, Vec<u8>)> = webhook::Entity::find()
                .select_only()
                .columns([webhook::Column::Id, webhook::Column::TenantId, column])
                .filter(column.is_not_null())
                .filter(other(name))
                .limit(limit)
                .into_tuple()
                .all(read)
                .await?;
            let values = rows.into_iter().map(|(id, tenant, sealed)| {
                let owner = SealOwner::webhook_secret(tenant.into(), id.into());
                value(id.to_string(), owner, sealed)
            });
            return Ok(values.collect());
        }
        if place == SealedColumn::SigningKey {
            let rows = signing_key::Entity::find()
                .filter(other("private_sealed"))
                .limit(limit)
                .all(read)
                .await?;
            let values = rows.into_iter().map(|row| {
                let owner = SealOwner::signing_key(&row.kid);
                value(row.kid, owner, row.private_sealed)
            });
            return Ok(values.collect());
        }
        let rows = sealed_key::Entity::find()
            .filter(other("sealed"))
            .limit(limit)
            .all(read)
            .await?;
        let values = rows.into_iter().map(|row| {
            let owner = SealOwner::sealed_key(&row.name);
            value(row.name, owner, row.sealed)
        });
        Ok(values.collect())
    }

    /// Replaces a value by `sealed`. Returns false and changes nothing where the stored value has changed in the
    /// meantime.
    pub async fn replace_sealed(
        &self,
        value: &SealedValue,
        sealed: Vec<u8>,
    ) -> Result<bool, StoreError> {
        if value.place == SealedColumn::StoredAnswer {
            return self.replace_answer(value, sealed).await;
        }
        let (write, row) = (self.store.write(), value.row.as_str());
        let changed = if let Some(column) = value.place.app_column() {
            app::Entity::update_many()
                .col_expr(column, Expr::value(sealed))
                .filter(app::Column::Appid.eq(row))
                .filter(column.eq(value.sealed.clone()))
                .exec(write)
                .await?
        } else if let Some(column) = value.place.webhook_column() {
            let id = Uuid::parse_str(row).map_err(|_| unknown("webhook.id", row))?;
            webhook::Entity::update_many()
                .col_expr(column, Expr::value(sealed))
                .filter(webhook::Column::Id.eq(id))
                .filter(column.eq(value.sealed.clone()))
                .exec(write)
                .await?
        } else if value.place == SealedColumn::SigningKey {
            signing_key::Entity::update_many()
                .set(signing_key::ActiveModel {
                    private_sealed: Set(sealed),
                    ..Default::default()
                })
                .filter(signing_key::Column::Kid.eq(row))
                .filter(signing_key::Column::PrivateSealed.eq(value.sealed.clone()))
                .exec(write)
                .await?
        } else {
            sealed_key::Entity::update_many()
                .set(sealed_key::ActiveModel {
                    sealed: Set(sealed),
                    ..Default::default()
                })
                .filter(sealed_key::Column::Name.eq(row))
                .filter(sealed_key::Column::Sealed.eq(value.sealed.clone()))
                .exec(write)
                .await?
        };
        Ok(changed.rows_affected == 1)
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::{ConnectionTrait, Statement};

    use super::*;
    use crate::Store;

    #[tokio::test]
    async fn every_sealed_column_of_the_schema_is_a_place() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/wxgate.db", folder.path().display());
        let store = Store::connect(&url).await.unwrap();
        store.migrate_up().await.unwrap();
        let query = "SELECT tables.name || '.' || columns.name AS place FROM sqlite_master tables \
                     JOIN pragma_table_info(tables.name) columns WHERE columns.name LIKE '%sealed%' ORDER BY 1";
        let statement = Statement::from_string(store.read().get_database_backend(), query);
        let rows = store.read().query_all_raw(statement).await.unwrap();
        let columns: Vec<String> = rows
            .iter()
            .map(|row| row.try_get("", "place").unwrap())
            .collect();
        let known = [
            "app.callback_aes_key_sealed",
            "app.callback_token_sealed",
            "app.previous_callback_aes_key_sealed",
            "app.previous_callback_token_sealed",
            "app.secret_sealed",
            "idempotency.answer_sealed",
            "sealed_key.sealed",
            "signing_key.private_sealed",
            "webhook.previous_secret_sealed",
            "webhook.secret_sealed",
        ];
        assert_eq!(
            columns, known,
            "a column that a rotation of the master key does not reseal"
        );
        assert_eq!(known.len(), SealedColumn::ALL.len());
    }
}
