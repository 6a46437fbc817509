use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "message")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) id: Uuid,
    pub(crate) tenant_id: Uuid,
    pub(crate) appid: String,
    pub(crate) touser: String,
    pub(crate) template_id: String,
    pub(crate) priority: i64,
    pub(crate) status: String,
    pub(crate) phase: i64,
    pub(crate) content: String,
    pub(crate) metadata: Option<String>,
    pub(crate) reference: Option<String>,
    pub(crate) on_uncertain: String,
    pub(crate) permit: i64,
    pub(crate) send_at: Option<i64>,
    pub(crate) ttl_seconds: i64,
    pub(crate) due_at: i64,
    pub(crate) expires_at: i64,
    pub(crate) attempt_count: i64,
    pub(crate) attempts: String,
    pub(crate) lease: Option<i64>,
    pub(crate) lease_until: Option<i64>,
    pub(crate) followed: i64,
    pub(crate) retried_at: Option<i64>,
    pub(crate) msgid: Option<String>,
    pub(crate) failure_code: Option<String>,
    pub(crate) failure_detail: Option<String>,
    pub(crate) payload_dropped_at: Option<i64>,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
