use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "app")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) appid: String,
    pub(crate) tenant_id: Uuid,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) token_mode: String,
    pub(crate) daily_quota: i64,
    pub(crate) grant_policy: String,
    pub(crate) counts_grants: i64,
    pub(crate) secret_sealed: Vec<u8>,
    pub(crate) callback_token_sealed: Option<Vec<u8>>,
    pub(crate) callback_aes_key_sealed: Option<Vec<u8>>,
    pub(crate) previous_callback_token_sealed: Option<Vec<u8>>,
    pub(crate) previous_callback_aes_key_sealed: Option<Vec<u8>>,
    pub(crate) callback_changed_at: Option<i64>,
    pub(crate) verified_at: Option<i64>,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    pub(crate) value_rules: String,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
