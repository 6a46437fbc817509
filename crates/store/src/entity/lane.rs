use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "lane")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) appid: String,
    pub(crate) quota_day: i64,
    pub(crate) quota_used: i64,
    pub(crate) minute: i64,
    pub(crate) minute_used: i64,
    pub(crate) minute_limit: Option<i64>,
    pub(crate) paused_until: Option<i64>,
    pub(crate) pause_reason: Option<String>,
    pub(crate) pause_detail: Option<String>,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
