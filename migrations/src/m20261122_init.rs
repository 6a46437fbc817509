//! Tenants, keys, apps, the queue of messages and the audit log.

use sea_orm_migration::{prelude::*, sea_orm::DatabaseBackend};

use crate::columns::{blob, int, maybe_blob, maybe_int, maybe_text, maybe_uuid, text, uuid};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum Tenant {
    Table,
    Id,
    Name,
    Status,
    RequestsPerSecond,
    MessagesPerDay,
    CreatedAt,
    UpdatedAt,
}

#[derive(DeriveIden)]
enum ApiKey {
    Table,
    Id,
    TenantId,
    Name,
    SecretHash,
    Scopes,
    CreatedAt,
    ExpiresAt,
    LastUsedAt,
    RevokedAt,
}

#[derive(DeriveIden)]
enum SigningKey {
    Table,
    Kid,
    PrivateSealed,
    PublicKey,
    CreatedAt,
    SignsFrom,
    RetiredAt,
}

#[derive(DeriveIden)]
enum App {
    Table,
    Appid,
    TenantId,
    Name,
    Kind,
    TokenMode,
    DailyQuota,
    GrantPolicy,
    CountsGrants,
    SecretSealed,
    CallbackTokenSealed,
    CallbackAesKeySealed,
    PreviousCallbackTokenSealed,
    PreviousCallbackAesKeySealed,
    CallbackChangedAt,
    VerifiedAt,
    CreatedAt,
    UpdatedAt,
}

/// The sending state of an app. Every claim locks this row, so the row is separate from the wide `app` row.
#[derive(DeriveIden)]
enum Lane {
    Table,
    Appid,
    QuotaDay,
    QuotaUsed,
    Minute,
    MinuteUsed,
    MinuteLimit,
    PausedUntil,
    PauseReason,
    PauseDetail,
}

#[derive(DeriveIden)]
enum Message {
    Table,
    Id,
    TenantId,
    Appid,
    Touser,
    TemplateId,
    Priority,
    Status,
    Phase,
    Content,
    Metadata,
    Reference,
    OnUncertain,
    Permit,
    SendAt,
    TtlSeconds,
    DueAt,
    ExpiresAt,
    AttemptCount,
    Attempts,
    Lease,
    LeaseUntil,
    Followed,
    RetriedAt,
    Msgid,
    FailureCode,
    FailureDetail,
    PayloadDroppedAt,
    CreatedAt,
    UpdatedAt,
}

#[derive(DeriveIden)]
enum Idempotency {
    Table,
    TenantId,
    Key,
    Fingerprint,
    Answer,
    CreatedAt,
    ExpiresAt,
}

#[derive(DeriveIden)]
enum Audit {
    Table,
    Id,
    TenantId,
    Actor,
    Action,
    Target,
    Outcome,
    Detail,
    RequestId,
    Address,
    At,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [
            tenant(),
            api_key(),
            signing_key(),
            app(),
            lane(),
            message(),
            idempotency(),
            audit(),
        ] {
            manager.create_table(table).await?;
        }
        for index in indexes() {
            manager.create_index(index).await?;
        }
        if manager.get_database_backend() == DatabaseBackend::Postgres {
            // Queue rows change three times within seconds: leave free space in each page, and vacuum early.
            let tuning = "ALTER TABLE message SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, \
                          autovacuum_analyze_scale_factor = 0.02)";
            manager.get_connection().execute_unprepared(tuning).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let tables = [
            Audit::Table.into_iden(),
            Idempotency::Table.into_iden(),
            Message::Table.into_iden(),
            Lane::Table.into_iden(),
            App::Table.into_iden(),
            SigningKey::Table.into_iden(),
            ApiKey::Table.into_iden(),
            Tenant::Table.into_iden(),
        ];
        for table in tables {
            manager
                .drop_table(Table::drop().table(table).to_owned())
                .await?;
        }
        Ok(())
    }
}

fn tenant() -> TableCreateStatement {
    Table::create()
        .table(Tenant::Table)
        .col(uuid(Tenant::Id).primary_key())
        .col(text(Tenant::Name))
        .col(text(Tenant::Status))
        .col(int(Tenant::RequestsPerSecond))
        .col(maybe_int(Tenant::MessagesPerDay))
        .col(int(Tenant::CreatedAt))
        .col(int(Tenant::UpdatedAt))
        .to_owned()
}

fn api_key() -> TableCreateStatement {
    Table::create()
        .table(ApiKey::Table)
        .col(uuid(ApiKey::Id).primary_key())
        .col(maybe_uuid(ApiKey::TenantId))
        .col(text(ApiKey::Name))
        .col(blob(ApiKey::SecretHash))
        .col(text(ApiKey::Scopes))
        .col(int(ApiKey::CreatedAt))
        .col(maybe_int(ApiKey::ExpiresAt))
        .col(maybe_int(ApiKey::LastUsedAt))
        .col(maybe_int(ApiKey::RevokedAt))
        .foreign_key(
            ForeignKey::create()
                .from(ApiKey::Table, ApiKey::TenantId)
                .to(Tenant::Table, Tenant::Id),
        )
        .to_owned()
}

fn signing_key() -> TableCreateStatement {
    Table::create()
        .table(SigningKey::Table)
        .col(text(SigningKey::Kid).primary_key())
        .col(blob(SigningKey::PrivateSealed))
        .col(text(SigningKey::PublicKey))
        .col(int(SigningKey::CreatedAt))
        .col(int(SigningKey::SignsFrom))
        .col(maybe_int(SigningKey::RetiredAt))
        .to_owned()
}

fn app() -> TableCreateStatement {
    Table::create()
        .table(App::Table)
        .col(text(App::Appid).primary_key())
        .col(uuid(App::TenantId))
        .col(text(App::Name))
        .col(text(App::Kind))
        .col(text(App::TokenMode))
        .col(int(App::DailyQuota))
        .col(text(App::GrantPolicy))
        .col(int(App::CountsGrants))
        .col(blob(App::SecretSealed))
        .col(maybe_blob(App::CallbackTokenSealed))
        .col(maybe_blob(App::CallbackAesKeySealed))
        .col(maybe_blob(App::PreviousCallbackTokenSealed))
        .col(maybe_blob(App::PreviousCallbackAesKeySealed))
        .col(maybe_int(App::CallbackChangedAt))
        .col(maybe_int(App::VerifiedAt))
        .col(int(App::CreatedAt))
        .col(int(App::UpdatedAt))
        .foreign_key(
            ForeignKey::create()
                .from(App::Table, App::TenantId)
                .to(Tenant::Table, Tenant::Id),
        )
        .to_owned()
}

fn lane() -> TableCreateStatement {
    Table::create()
        .table(Lane::Table)
        .col(text(Lane::Appid).primary_key())
        .col(int(Lane::QuotaDay))
        .col(int(Lane::QuotaUsed))
        .col(int(Lane::Minute))
        .col(int(Lane::MinuteUsed))
        .col(maybe_int(Lane::MinuteLimit))
        .col(maybe_int(Lane::PausedUntil))
        .col(maybe_text(Lane::PauseReason))
        .col(maybe_text(Lane::PauseDetail))
        .to_owned()
}

fn message() -> TableCreateStatement {
    Table::create()
        .table(Message::Table)
        .col(uuid(Message::Id).primary_key())
        .col(uuid(Message::TenantId))
        .col(text(Message::Appid))
        .col(text(Message::Touser))
        .col(text(Message::TemplateId))
        .col(int(Message::Priority))
        .col(text(Message::Status))
        .col(int(Message::Phase))
        .col(text(Message::Content))
        .col(maybe_text(Message::Metadata))
        .col(maybe_text(Message::Reference))
        .col(text(Message::OnUncertain))
        .col(int(Message::Permit))
        .col(maybe_int(Message::SendAt))
        .col(int(Message::TtlSeconds))
        .col(int(Message::DueAt))
        .col(int(Message::ExpiresAt))
        .col(int(Message::AttemptCount))
        .col(text(Message::Attempts))
        .col(maybe_int(Message::Lease))
        .col(maybe_int(Message::LeaseUntil))
        .col(int(Message::Followed))
        .col(maybe_int(Message::RetriedAt))
        .col(maybe_text(Message::Msgid))
        .col(maybe_text(Message::FailureCode))
        .col(maybe_text(Message::FailureDetail))
        .col(maybe_int(Message::PayloadDroppedAt))
        .col(int(Message::CreatedAt))
        .col(int(Message::UpdatedAt))
        .to_owned()
}

fn idempotency() -> TableCreateStatement {
    Table::create()
        .table(Idempotency::Table)
        .col(uuid(Idempotency::TenantId))
        .col(text(Idempotency::Key))
        .col(blob(Idempotency::Fingerprint))
        .col(text(Idempotency::Answer))
        .col(int(Idempotency::CreatedAt))
        .col(int(Idempotency::ExpiresAt))
        .primary_key(
            Index::create()
                .col(Idempotency::TenantId)
                .col(Idempotency::Key),
        )
        .to_owned()
}

/// The table names its tenant without a foreign key, because a line outlives the things that the line names.
fn audit() -> TableCreateStatement {
    Table::create()
        .table(Audit::Table)
        .col(uuid(Audit::Id).primary_key())
        .col(maybe_uuid(Audit::TenantId))
        .col(text(Audit::Actor))
        .col(text(Audit::Action))
        .col(text(Audit::Target))
        .col(text(Audit::Outcome))
        .col(maybe_text(Audit::Detail))
        .col(maybe_text(Audit::RequestId))
        .col(maybe_text(Audit::Address))
        .col(int(Audit::At))
        .to_owned()
}

fn index<T: IntoIden>(name: &str, table: T) -> IndexCreateStatement {
    Index::create()
        .name(name)
        .table(table.into_iden())
        .to_owned()
}

/// The partial indexes are the queue. Each index holds one phase of the queue (see `store::queue`), so a search for work
/// costs the same with ten rows of history and with ten million.
fn indexes() -> Vec<IndexCreateStatement> {
    let phase = |number: i64| Expr::col(Message::Phase).eq(Expr::cust(number.to_string()));
    vec![
        index("api_key_tenant", ApiKey::Table)
            .col(ApiKey::TenantId)
            .to_owned(),
        index("app_tenant", App::Table)
            .col(App::TenantId)
            .to_owned(),
        index("audit_tenant", Audit::Table)
            .col(Audit::TenantId)
            .col(Audit::Id)
            .to_owned(),
        index("idempotency_end", Idempotency::Table)
            .col(Idempotency::ExpiresAt)
            .to_owned(),
        index("message_app", Message::Table)
            .col(Message::Appid)
            .col(Message::Id)
            .to_owned(),
        index("message_person", Message::Table)
            .col(Message::Appid)
            .col(Message::Touser)
            .col(Message::Id)
            .to_owned(),
        index("message_reference", Message::Table)
            .col(Message::Appid)
            .col(Message::Reference)
            .and_where(Expr::col(Message::Reference).is_not_null())
            .to_owned(),
        index("message_ready", Message::Table)
            .col(Message::Appid)
            .col(Message::Priority)
            .col(Message::DueAt)
            .col(Message::Id)
            .and_where(phase(0))
            .to_owned(),
        index("message_waiting", Message::Table)
            .col(Message::DueAt)
            .and_where(phase(1))
            .to_owned(),
        index("message_behind", Message::Table)
            .col(Message::Appid)
            .col(Message::Touser)
            .col(Message::Priority)
            .col(Message::DueAt)
            .and_where(phase(2))
            .to_owned(),
        index("message_flying", Message::Table)
            .col(Message::Appid)
            .col(Message::Touser)
            .and_where(phase(3))
            .to_owned(),
        index("message_unsent", Message::Table)
            .col(Message::ExpiresAt)
            .and_where(Expr::col(Message::Phase).lt(Expr::cust("3")))
            .to_owned(),
    ]
}
