//! Apps: the mini-programs and official accounts of tenants, each with a lane in the queue.

use chrono::{DateTime, Utc};
use domain::{
    app::{AppId, AppKind, TokenMode, ValueRules},
    grant::GrantPolicy,
    id::TenantId,
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, EntityTrait, JoinType, QueryFilter, QueryOrder,
    QuerySelect, Select, SelectTwo, SqlErr, UpdateMany, sea_query::Expr,
};

mod column_text;
mod cursor;
mod pause;
mod sealed;

pub(crate) use column_text::{kind_text, parse_kind, value_rules};
use column_text::{parse_token_mode, token_mode_text};
pub use cursor::{AppCursor, AppCursorFormat};
use pause::pause;
pub use sealed::{PreviousCallback, SealedApp};

use crate::{
    Listing, Page, PlatformStore, Store, StoreError, TenantStore,
    entity::{
        app::{ActiveModel, Column, Entity, Model},
        lane,
    },
    error::unknown,
    queue::{close_lane, open_lane},
    templates,
    tenants::{count, later, maybe},
    timestamp::{millis, time},
};

/// A mini-program or official account, without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// WeChat's id for the app.
    pub appid: AppId,
    /// The tenant that owns the app.
    pub tenant: TenantId,
    /// The tenant's name for the app.
    pub name: String,
    /// The kind of account that the appid names.
    pub kind: AppKind,
    /// How the gateway fetches the app's access token.
    pub token_mode: TokenMode,
    /// The daily quota: the messages that WeChat accepts from the app in one Beijing day.
    pub daily_quota: u64,
    /// What the subscription ledger decides about the app's subscribe messages.
    pub grant_policy: GrantPolicy,
    /// What happens to messages with values that break the rules of their types.
    pub value_rules: ValueRules,
    /// Whether the Token of the app's message push settings is known. Without the Token the gateway accepts no callback.
    pub has_callback_token: bool,
    /// Whether the `EncodingAESKey` of the app's message push settings is known.
    pub has_callback_aes_key: bool,
    /// When WeChat last accepted the AppSecret.
    pub verified_at: Option<DateTime<Utc>>,
    /// When the app was registered.
    pub created_at: DateTime<Utc>,
    /// When the app last changed. Each change has a different time.
    pub updated_at: DateTime<Utc>,
    /// Why the app does not send. A pause whose end is in the past is over.
    pub pause: Option<Pause>,
    /// The pace in messages a minute since WeChat refused more, or `None` where the app sends without such a limit.
    pub pace: Option<u64>,
}

/// Why an app does not send for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// The reason as a word for programs.
    pub reason: String,
    /// The reason as a sentence for people.
    pub detail: Option<String>,
    /// The end of the pause.
    pub until: DateTime<Utc>,
}

/// The data of a new app. The secrets are sealed.
#[derive(Clone, Debug)]
pub struct NewApp {
    /// WeChat's id for the app.
    pub appid: AppId,
    /// The tenant's name for the app.
    pub name: String,
    /// The kind of account that the appid names.
    pub kind: AppKind,
    /// How the gateway fetches the app's access token.
    pub token_mode: TokenMode,
    /// The daily quota: the messages that WeChat accepts from the app in one Beijing day.
    pub daily_quota: u64,
    /// What the subscription ledger decides about the app's subscribe messages.
    pub grant_policy: GrantPolicy,
    /// What happens to messages with values that break the rules of their types.
    pub value_rules: ValueRules,
    /// The AppSecret, sealed.
    pub secret_sealed: Vec<u8>,
    /// The Token of the app's message push settings, sealed.
    pub callback_token_sealed: Option<Vec<u8>>,
    /// The `EncodingAESKey` of the app's message push settings, sealed.
    pub callback_aes_key_sealed: Option<Vec<u8>>,
    /// When WeChat accepted the AppSecret, or `None` where the AppSecret has not been tried.
    pub verified_at: Option<DateTime<Utc>>,
}

impl NewApp {
    /// The app that [`TenantStore::create_app`] creates from this data.
    pub fn made(&self, tenant: TenantId, now: DateTime<Utc>) -> App {
        let now = time(millis(now));
        App {
            appid: self.appid.clone(),
            tenant,
            name: self.name.clone(),
            kind: self.kind,
            token_mode: self.token_mode,
            daily_quota: self.daily_quota,
            has_callback_token: self.callback_token_sealed.is_some(),
            has_callback_aes_key: self.callback_aes_key_sealed.is_some(),
            grant_policy: self.grant_policy,
            value_rules: self.value_rules,
            verified_at: self.verified_at.map(|at| time(millis(at))),
            created_at: now,
            updated_at: now,
            pause: None,
            pace: None,
        }
    }
}

/// A change of an app. `None` leaves a field as is. A change of the message push settings keeps the previous settings as
/// [`PreviousCallback`].
#[derive(Clone, Debug, Default)]
pub struct AppPatch {
    /// The tenant's name for the app.
    pub name: Option<String>,
    /// How the gateway fetches the app's access token.
    pub token_mode: Option<TokenMode>,
    /// The daily quota: the messages that WeChat accepts from the app in one Beijing day.
    pub daily_quota: Option<u64>,
    /// What the subscription ledger decides about the app's subscribe messages.
    pub grant_policy: Option<GrantPolicy>,
    /// What happens to messages with values that break the rules of their types.
    pub value_rules: Option<ValueRules>,
    /// The Token of the app's message push settings, sealed; `Some(None)` deletes the Token.
    pub callback_token_sealed: Option<Option<Vec<u8>>>,
    /// The `EncodingAESKey` of the app's message push settings, sealed; `Some(None)` deletes the key.
    pub callback_aes_key_sealed: Option<Option<Vec<u8>>>,
    /// [`App::updated_at`] as the caller has read it. Where the stored value differs, nothing changes and the call fails
    /// with [`StoreError::Changed`].
    pub known_at: Option<DateTime<Utc>>,
}

impl TenantStore {
    /// Registers an app and opens its lane with the messages that the appid has already sent today. Fails with
    /// [`StoreError::Taken`] where any tenant has registered the appid.
    pub async fn create_app(&self, new: NewApp, now: DateTime<Utc>) -> Result<App, StoreError> {
        let created = new.made(self.tenant, now);
        let row = new_row(self.tenant, new.clone(), now);
        // Deletes what a crash during a removal has left behind.
        let platform = self.store.platform();
        platform.forget_leftovers(&new.appid).await?;
        let transaction = self.begin(now).await?;
        let inserted = Entity::insert(ActiveModel::from(row))
            .exec_without_returning(&transaction)
            .await;
        inserted.map_err(|error| match error.sql_err() {
            Some(SqlErr::UniqueConstraintViolation(_)) => StoreError::Taken("this appid"),
            Some(SqlErr::ForeignKeyConstraintViolation(_)) => StoreError::NotFound("tenant"),
            _ => error.into(),
        })?;
        open_lane(&transaction, &new.appid, now).await?;
        templates::begin(&transaction, self.tenant, &new, now).await?;
        transaction.commit().await?;
        Ok(created)
    }

    /// One app of the tenant.
    pub async fn app(&self, appid: &AppId) -> Result<App, StoreError> {
        one(&self.store, Some(self.tenant), appid).await
    }

    /// The tenant's apps, newest first.
    pub async fn apps(
        &self,
        page: &Page<AppCursor>,
    ) -> Result<Listing<App, AppCursor>, StoreError> {
        list(&self.store, Some(self.tenant), page).await
    }

    /// Changes an app and returns the changed app.
    pub async fn update_app(
        &self,
        appid: &AppId,
        patch: AppPatch,
        now: DateTime<Utc>,
    ) -> Result<App, StoreError> {
        let callback_changes =
            patch.callback_token_sealed.is_some() || patch.callback_aes_key_sealed.is_some();
        let change = ActiveModel {
            name: maybe(patch.name),
            token_mode: maybe(
                patch
                    .token_mode
                    .map(|mode| token_mode_text(mode).to_owned()),
            ),
            daily_quota: maybe(patch.daily_quota.map(count)),
            grant_policy: maybe(patch.grant_policy.map(|policy| policy.as_str().to_owned())),
            value_rules: maybe(patch.value_rules.map(|rules| rules.as_str().to_owned())),
            callback_token_sealed: maybe(patch.callback_token_sealed),
            callback_aes_key_sealed: maybe(patch.callback_aes_key_sealed),
            ..ActiveModel::default()
        };
        let mut update = Entity::update_many()
            .set(change)
            .col_expr(Column::UpdatedAt, later(Column::UpdatedAt, now));
        if callback_changes {
            // The right-hand sides are the values before this update.
            update = update
                .col_expr(
                    Column::PreviousCallbackTokenSealed,
                    Expr::col(Column::CallbackTokenSealed),
                )
                .col_expr(
                    Column::PreviousCallbackAesKeySealed,
                    Expr::col(Column::CallbackAesKeySealed),
                )
                .col_expr(Column::CallbackChangedAt, Expr::value(millis(now)));
        }
        self.run(appid, update, patch.known_at, now).await?;
        self.app(appid).await
    }

    /// Replaces the AppSecret. `verified_at` is when WeChat accepted the new AppSecret.
    pub async fn replace_app_secret(
        &self,
        appid: &AppId,
        secret_sealed: Vec<u8>,
        verified_at: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let change = ActiveModel {
            secret_sealed: Set(secret_sealed),
            verified_at: Set(verified_at.map(millis)),
            ..ActiveModel::default()
        };
        let update = Entity::update_many()
            .set(change)
            .col_expr(Column::UpdatedAt, later(Column::UpdatedAt, now));
        self.run(appid, update, None, now).await?;
        templates::make_due(self.store.write(), appid, now).await
    }

    /// Notes when WeChat accepted the AppSecret that is kept; `None`: WeChat refuses the AppSecret.
    pub async fn mark_app_verified(
        &self,
        appid: &AppId,
        verified_at: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let change = ActiveModel {
            verified_at: Set(verified_at.map(millis)),
            ..ActiveModel::default()
        };
        let update = Entity::update_many().set(change);
        self.run(appid, update, None, now).await?;
        match verified_at {
            Some(_) => templates::make_due(self.store.write(), appid, now).await,
            None => Ok(()),
        }
    }

    /// Removes an app, then cancels the unsent messages in batches, so that other transactions do not wait for a large
    /// backlog. Messages that WeChat may have become uncertain. Where a crash leaves messages over, the claims that find
    /// these messages cancel them. All messages of the app stay readable.
    pub async fn delete_app(&self, appid: &AppId, now: DateTime<Utc>) -> Result<(), StoreError> {
        let transaction = self.begin(now).await?;
        let removed = Entity::delete_many()
            .filter(is(Some(self.tenant), appid))
            .exec(&transaction)
            .await?;
        if removed.rows_affected == 0 {
            return Err(StoreError::NotFound("app"));
        }
        // Lock the lane next: a claim in progress holds the lane, so the code below sees the claimed messages as
        // sending.
        close_lane(&transaction, appid).await?;
        templates::forget(&transaction, appid.as_str()).await?;
        transaction.commit().await?;
        let platform = self.store.platform();
        platform.cancel_unsent(self.tenant, appid, now).await?;
        platform.forget_grants(self.tenant, appid).await?;
        platform.forget_leftovers(appid).await
    }

    async fn run(
        &self,
        appid: &AppId,
        update: UpdateMany<Entity>,
        known_at: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let transaction = self.begin(now).await?;
        let own = is(Some(self.tenant), appid);
        let known = known_at.map(|at| Column::UpdatedAt.eq(millis(at)));
        let changed = update
            .filter(own.clone().add_option(known))
            .exec(&transaction)
            .await?;
        if changed.rows_affected == 0 {
            let there = Entity::find().filter(own).one(&transaction).await?;
            return Err(match there {
                Some(_) => StoreError::Changed("app"),
                None => StoreError::NotFound("app"),
            });
        }
        templates::bump_revision(&transaction, appid).await?;
        transaction.commit().await
    }
}

impl PlatformStore {
    /// The app with this id, of any tenant.
    pub async fn app(&self, appid: &AppId) -> Result<App, StoreError> {
        one(&self.store, None, appid).await
    }

    /// The apps of all tenants, newest first.
    pub async fn apps(
        &self,
        page: &Page<AppCursor>,
    ) -> Result<Listing<App, AppCursor>, StoreError> {
        list(&self.store, None, page).await
    }
}

async fn one(store: &Store, tenant: Option<TenantId>, appid: &AppId) -> Result<App, StoreError> {
    let found = with_lane(Entity::find().filter(is(tenant, appid)))
        .one(store.read())
        .await?;
    let (row, lane) = found.ok_or(StoreError::NotFound("app"))?;
    app(row, lane)
}

async fn list(
    store: &Store,
    tenant: Option<TenantId>,
    page: &Page<AppCursor>,
) -> Result<Listing<App, AppCursor>, StoreError> {
    let mut wanted =
        Condition::all().add_option(tenant.map(|tenant| Column::TenantId.eq(tenant.uuid())));
    if let Some(after) = &page.after {
        let twin = Condition::all()
            .add(Column::CreatedAt.eq(after.created_at))
            .add(Column::Appid.gt(&after.appid));
        wanted = wanted.add(
            Condition::any()
                .add(Column::CreatedAt.lt(after.created_at))
                .add(twin),
        );
    }
    let rows = with_lane(Entity::find().filter(wanted))
        .order_by_desc(Column::CreatedAt)
        .order_by_asc(Column::Appid)
        .limit(page.limit + 1)
        .all(store.read())
        .await?;
    let place = |(row, _): &(Model, _)| AppCursor {
        created_at: row.created_at,
        appid: row.appid.clone(),
    };
    Listing::of(rows, page, place).try_map(|(row, lane)| app(row, lane))
}

fn with_lane(query: Select<Entity>) -> SelectTwo<Entity, lane::Entity> {
    let lane = Entity::belongs_to(lane::Entity)
        .from(Column::Appid)
        .to(lane::Column::Appid)
        .into();
    query
        .join(JoinType::LeftJoin, lane)
        .select_also(lane::Entity)
}

fn is(tenant: Option<TenantId>, appid: &AppId) -> Condition {
    Condition::all()
        .add(Column::Appid.eq(appid.as_str()))
        .add_option(tenant.map(|tenant| Column::TenantId.eq(tenant.uuid())))
}

fn new_row(tenant: TenantId, new: NewApp, now: DateTime<Utc>) -> Model {
    Model {
        appid: new.appid.as_str().to_owned(),
        tenant_id: tenant.uuid(),
        name: new.name,
        kind: kind_text(new.kind).to_owned(),
        token_mode: token_mode_text(new.token_mode).to_owned(),
        daily_quota: count(new.daily_quota),
        grant_policy: new.grant_policy.as_str().to_owned(),
        value_rules: new.value_rules.as_str().to_owned(),
        counts_grants: 0,
        secret_sealed: new.secret_sealed,
        callback_token_sealed: new.callback_token_sealed,
        callback_aes_key_sealed: new.callback_aes_key_sealed,
        previous_callback_token_sealed: None,
        previous_callback_aes_key_sealed: None,
        callback_changed_at: None,
        verified_at: new.verified_at.map(millis),
        created_at: millis(now),
        updated_at: millis(now),
    }
}

fn app(row: Model, lane: Option<lane::Model>) -> Result<App, StoreError> {
    Ok(App {
        tenant: row.tenant_id.into(),
        kind: parse_kind(&row.kind)?,
        token_mode: parse_token_mode(&row.token_mode)?,
        daily_quota: u64::try_from(row.daily_quota).unwrap_or(0),
        grant_policy: GrantPolicy::parse(&row.grant_policy)
            .ok_or_else(|| unknown("app.grant_policy", &row.grant_policy))?,
        value_rules: value_rules(&row.value_rules)?,
        has_callback_token: row.callback_token_sealed.is_some(),
        has_callback_aes_key: row.callback_aes_key_sealed.is_some(),
        verified_at: row.verified_at.map(time),
        created_at: time(row.created_at),
        updated_at: time(row.updated_at),
        pace: lane
            .as_ref()
            .and_then(|lane| u64::try_from(lane.minute_limit?).ok()),
        pause: lane.and_then(pause),
        name: row.name,
        appid: AppId::parse(row.appid.as_str()).map_err(|_| unknown("app.appid", &row.appid))?,
    })
}
