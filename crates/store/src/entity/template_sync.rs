use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "template_sync")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) appid: String,
    pub(crate) tenant_id: Uuid,
    pub(crate) kind: String,
    pub(crate) revision: i64,
    pub(crate) synced_at: Option<i64>,
    pub(crate) tried_at: Option<i64>,
    pub(crate) failure: Option<String>,
    pub(crate) due_at: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
