//! Onboarding of apps: registers apps and proves each AppSecret before the AppSecret is stored.

use broker::{Broker, Proof};
use chrono::{DateTime, Utc};
use coord::Coord;
use domain::{
    app::{AppId, AppKind, DEFAULT_DAILY_QUOTA, TokenMode, ValueRules},
    grant::GrantPolicy,
    id::TenantId,
    seal::{MasterKey, SealOwner},
    secret::AppSecret,
    violation::Violation,
};
use store::{App, AppCursor, AppPatch, Keep, Listing, NewApp, Origin, Page, Store};

mod callback;
mod error;
mod newcomer;

pub use callback::CallbackSettings;
pub use error::{AppError, QuotaSpan};
pub(crate) use error::{quota_refusal, refusal};

use self::callback::SealedCallback;
use crate::topic;

/// The data of a new app.
#[derive(Clone, Debug)]
pub struct Registration {
    /// WeChat's id of the app.
    pub appid: AppId,
    /// The AppSecret of the app.
    pub secret: AppSecret,
    /// The owner's name for the app. Empty: the appid.
    pub name: String,
    /// Mini-program or official account.
    pub kind: AppKind,
    /// How the access token is fetched.
    pub token_mode: TokenMode,
    /// Messages a day that WeChat accepts from the app. `None`: the default of an account.
    pub daily_quota: Option<u64>,
    /// What the subscription ledger decides about subscribe messages of the app.
    pub grant_policy: GrantPolicy,
    /// How values that break the rules of their types are treated.
    pub value_rules: ValueRules,
    /// Whether to fetch a token before anything is stored.
    pub verify: bool,
    /// The app's message push settings.
    pub callback: CallbackSettings,
}

/// The changes to an app. `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct AppUpdate {
    /// The owner's name for the app.
    pub name: Option<String>,
    /// How the access token is fetched.
    pub token_mode: Option<TokenMode>,
    /// Messages a day that WeChat accepts from the app.
    pub daily_quota: Option<u64>,
    /// What the subscription ledger decides about subscribe messages of the app.
    pub grant_policy: Option<GrantPolicy>,
    /// How values that break the rules of their types are treated.
    pub value_rules: Option<ValueRules>,
    /// The app's message push settings.
    pub callback: CallbackSettings,
    /// [`App::updated_at`] as the caller knows it. If the app has another value by now, nothing changes.
    pub known_at: Option<DateTime<Utc>>,
}

/// Registers, changes and removes apps. Cheap to clone.
#[derive(Clone)]
pub struct Apps {
    pub(crate) store: Store,
    pub(crate) broker: Broker,
    master_key: MasterKey,
    pub(crate) coord: Coord,
    pub(crate) origin: Origin,
}

impl Apps {
    /// Needs these parts only, and no engine.
    pub fn new(store: Store, coord: Coord, broker: Broker, master_key: MasterKey) -> Self {
        Self {
            store,
            broker,
            master_key,
            coord,
            origin: Origin::GATEWAY,
        }
    }

    /// The same, on behalf of `origin`: the audit log names `origin` for each change.
    #[must_use]
    pub fn by(&self, origin: Origin) -> Self {
        Self {
            origin,
            ..self.clone()
        }
    }

    /// Registers an app. If `verify` is set, the AppSecret is proven first.
    pub async fn register(&self, tenant: TenantId, new: Registration) -> Result<App, AppError> {
        self.register_once(tenant, new, Keep::nothing()).await
    }

    /// The same. `keep` words the answer that is stored for repeats of the request.
    pub async fn register_once(
        &self,
        tenant: TenantId,
        new: Registration,
        keep: Keep<App>,
    ) -> Result<App, AppError> {
        check(Some(&new.name), new.daily_quota, &new.callback)?;
        let proof = if new.verify {
            Some(self.prove_new(tenant, &new).await?)
        } else {
            None
        };
        let now = self.coord.clock().now();
        let callback = &new.callback;
        let SealedCallback { token, aes_key } =
            callback.sealed(&self.master_key, tenant, &new.appid);
        let row = NewApp {
            secret_sealed: self.seal(
                &SealOwner::app_secret(tenant, &new.appid),
                new.secret.expose(),
            ),
            name: if new.name.is_empty() {
                new.appid.to_string()
            } else {
                new.name
            },
            appid: new.appid,
            kind: new.kind,
            token_mode: new.token_mode,
            daily_quota: new.daily_quota.unwrap_or(DEFAULT_DAILY_QUOTA),
            grant_policy: new.grant_policy,
            value_rules: new.value_rules,
            callback_token_sealed: token,
            callback_aes_key_sealed: aes_key,
            verified_at: new.verify.then_some(now),
        };
        let line = self.origin.did("app.register", &row.appid);
        let kept = keep.answer(&row.made(tenant, now));
        let door = self
            .store
            .tenant(tenant)
            .with_audit_line(line)
            .with_answer(kept);
        let app = door.create_app(row, now).await?;
        self.tell_changed(&app.appid);
        match proof {
            Some(proof) => {
                self.broker.adopt(&app.appid, proof).await;
                self.coord.wakeups().wake(topic::TEMPLATES, "");
            }
            // A token that the previous owner has left was not fetched with this AppSecret.
            None => self.broker.forget(&app.appid),
        }
        Ok(app)
    }

    /// An app of the tenant. `None` as tenant: an app of any tenant, for the platform.
    pub async fn get(&self, tenant: Option<TenantId>, appid: &AppId) -> Result<App, AppError> {
        let app = match tenant {
            Some(tenant) => self.store.tenant(tenant).app(appid).await,
            None => self.store.platform().app(appid).await,
        };
        Ok(app?)
    }

    /// The tenant's apps, newest first. `None` as tenant: the apps of all tenants, for the platform.
    pub async fn list(
        &self,
        tenant: Option<TenantId>,
        page: &Page<AppCursor>,
    ) -> Result<Listing<App, AppCursor>, AppError> {
        let apps = match tenant {
            Some(tenant) => self.store.tenant(tenant).apps(page).await,
            None => self.store.platform().apps(page).await,
        };
        Ok(apps?)
    }

    /// Changes an app. The message push settings before the change stay valid for another day.
    pub async fn update(
        &self,
        tenant: TenantId,
        appid: &AppId,
        update: AppUpdate,
    ) -> Result<App, AppError> {
        check(update.name.as_deref(), update.daily_quota, &update.callback)?;
        let line = self
            .origin
            .did("app.update", appid)
            .saying(changes(&update));
        let (store, master_key) = (&self.store, &self.master_key);
        let callback = update.callback;
        let callback = callback.changed(store, master_key, tenant, appid).await?;
        let SealedCallback { token, aes_key } = callback.sealed(master_key, tenant, appid);
        let patch = AppPatch {
            name: update.name,
            token_mode: update.token_mode,
            daily_quota: update.daily_quota,
            grant_policy: update.grant_policy,
            value_rules: update.value_rules,
            callback_token_sealed: token.map(Some),
            callback_aes_key_sealed: aes_key.map(Some),
            known_at: update.known_at,
        };
        let app = self
            .store
            .tenant(tenant)
            .with_audit_line(line)
            .update_app(appid, patch, self.coord.clock().now())
            .await?;
        self.tell_changed(appid);
        if update.token_mode.is_some() {
            self.broker.forget(appid);
        }
        if update.daily_quota.is_some() {
            self.store.tenant(tenant).reopen_quota(appid).await?;
            self.coord.wakeups().wake(topic::QUEUE, "");
        }
        Ok(app)
    }

    /// Removes an app. Unsent messages become `canceled`. Messages that WeChat may have received become `uncertain`. The
    /// history stays.
    pub async fn remove(&self, tenant: TenantId, appid: &AppId) -> Result<(), AppError> {
        let line = self.origin.did("app.remove", appid);
        self.store
            .tenant(tenant)
            .with_audit_line(line)
            .delete_app(appid, self.coord.clock().now())
            .await?;
        self.tell_changed(appid);
        self.broker.forget(appid);
        Ok(())
    }

    /// Proves the stored AppSecret, and lets a paused app send again. An AppSecret that WeChat refuses counts as not
    /// proven.
    pub async fn verify(&self, tenant: TenantId, appid: &AppId) -> Result<App, AppError> {
        self.get(Some(tenant), appid).await?;
        let sealed = self.store.platform().sealed_app(appid).await?;
        let owner = SealOwner::app_secret(tenant, appid);
        let secret = self
            .master_key
            .open(&owner, &sealed.secret_sealed)
            .map_err(|error| AppError::Broken(error.to_string()))?;
        let secret = AppSecret::new(secret.as_str());
        let proof = self.prove(appid, &secret, sealed.token_mode).await;
        let door = self.store.tenant(tenant);
        if let Err(AppError::Wechat {
            by_its_owner: true, ..
        }) = &proof
        {
            // The app may keep sending with its present token. WeChat will give no other token.
            let now = self.coord.clock().now();
            door.mark_app_verified(appid, None, now).await?;
            self.tell_changed(appid);
        }
        let proof = self.noted(tenant, "app.verify", appid, proof).await?;
        let line = self.origin.did("app.verify", appid);
        let recorded = door.clone().with_audit_line(line);
        let now = self.coord.clock().now();
        recorded.mark_app_verified(appid, Some(now), now).await?;
        self.broker.adopt(appid, proof).await;
        door.resume_lane(appid).await?;
        self.coord.wakeups().wake(topic::QUEUE, "");
        self.coord.wakeups().wake(topic::TEMPLATES, "");
        self.get(Some(tenant), appid).await
    }

    /// Replaces the AppSecret. The new AppSecret is proven first.
    pub async fn set_secret(
        &self,
        tenant: TenantId,
        appid: &AppId,
        secret: AppSecret,
    ) -> Result<App, AppError> {
        let app = self.get(Some(tenant), appid).await?;
        let proof = self.prove(appid, &secret, app.token_mode).await;
        let proof = self.noted(tenant, "app.set_secret", appid, proof).await?;
        let sealed = self.seal(&SealOwner::app_secret(tenant, appid), secret.expose());
        let door = self.store.tenant(tenant);
        let now = self.coord.clock().now();
        let line = self.origin.did("app.set_secret", appid);
        let recorded = door.clone().with_audit_line(line);
        recorded
            .replace_app_secret(appid, sealed, Some(now), now)
            .await?;
        // After the AppSecret is stored, so that no fetch with the old AppSecret comes later.
        self.broker.adopt(appid, proof).await;
        door.resume_lane(appid).await?;
        self.coord.wakeups().wake(topic::QUEUE, "");
        self.coord.wakeups().wake(topic::TEMPLATES, "");
        self.get(Some(tenant), appid).await
    }

    /// Announces to every replica that cached data of the app is outdated.
    fn tell_changed(&self, appid: &AppId) {
        self.coord.wakeups().wake(topic::APPS, appid.as_str());
    }

    async fn prove(
        &self,
        appid: &AppId,
        secret: &AppSecret,
        mode: TokenMode,
    ) -> Result<Proof, AppError> {
        self.broker
            .prove(appid, secret, mode)
            .await
            .map_err(|error| refusal(&error, self.coord.clock().now()))
    }

    /// Writes an audit line if an AppSecret could not be proven. Nothing has changed in that case, so the caller is
    /// answered even if the line cannot be written.
    async fn noted<T>(
        &self,
        tenant: TenantId,
        action: &str,
        appid: &AppId,
        proof: Result<T, AppError>,
    ) -> Result<T, AppError> {
        if let Err(why) = &proof {
            let line = self.origin.was_refused(action, appid, why);
            let now = self.coord.clock().now();
            if let Err(error) = self.store.tenant(tenant).append_audit(line, now).await {
                tracing::error!(%appid, action, %error, "a refusal is not in the audit log");
            }
        }
        proof
    }

    fn seal(&self, owner: &SealOwner, plain: &str) -> Vec<u8> {
        self.master_key.seal(owner, rand::random(), plain)
    }
}

/// A text of what an update changes. For secrets, only that they change.
fn changes(update: &AppUpdate) -> String {
    let AppUpdate {
        name,
        token_mode,
        daily_quota,
        grant_policy,
        value_rules,
        callback,
        known_at: _,
    } = update;
    let words = [
        name.as_ref().map(|name| format!("name `{name}`")),
        token_mode.map(|mode| match mode {
            TokenMode::Stable => "stable tokens".to_owned(),
            TokenMode::Legacy => "legacy tokens".to_owned(),
        }),
        daily_quota.map(|quota| format!("{quota} messages a day")),
        grant_policy.map(|policy| format!("grant policy {}", policy.as_str())),
        value_rules.map(|rules| format!("value rules {}", rules.as_str())),
        callback.token.as_ref().map(|_| "callback token".to_owned()),
        callback
            .aes_key
            .as_ref()
            .map(|_| "callback AES key".to_owned()),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn check(
    name: Option<&str>,
    daily_quota: Option<u64>,
    callback: &CallbackSettings,
) -> Result<(), AppError> {
    let mut found = Vec::new();
    if name.is_some_and(|name| {
        name.chars().count() > 100 || name.contains(domain::text::is_display_control)
    }) {
        found.push(Violation::new(
            "/name",
            "must have at most 100 characters, without control characters and without characters that change the \
            direction of writing",
        ));
    }
    if daily_quota.is_some_and(|quota| quota == 0 || quota > 1_000_000_000) {
        found.push(Violation::new(
            "/daily_quota",
            "must be 1 to 1000000000 messages a day",
        ));
    }
    found.extend(callback.violations());
    if found.is_empty() {
        Ok(())
    } else {
        Err(AppError::Invalid(found))
    }
}
