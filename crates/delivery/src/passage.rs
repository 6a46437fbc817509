//! The passage: calls of WeChat that the gateway has no resource for, made with the app's own token; and the sign-in of
//! its users, made with its AppSecret.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use broker::{Broker, BrokerError, Credentials, CredentialsError};
use coord::Clock;
use domain::{app::AppId, id::TenantId};
use store::{Origin, Store, StoreError};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use wechat::{ForwardError, ForwardedAnswer, ForwardedCall};

use crate::{
    StoredCredentials,
    apps::{AppError, refusal},
    engine::Parts,
};

/// How many calls are under way at most: each may hold two bodies of 10 MiB, for half a minute.
const AT_ONCE: usize = 32;
/// How many of them may be one tenant's.
const OF_ONE_TENANT: usize = 8;
/// How long a call waits for its place.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why a call was not passed on, or has no answer.
#[derive(Debug, thiserror::Error)]
pub enum PassageError {
    /// The app is not the tenant's, or has no token.
    #[error(transparent)]
    App(AppError),
    /// WeChat refuses fresh tokens too, and has done nothing.
    #[error("WeChat refuses the app's access token, and a fresh one too")]
    TokenRefused,
    /// WeChat refuses the app's AppSecret.
    #[error("WeChat refuses the AppSecret that the gateway has for the app")]
    SecretRefused,
    /// The AppSecret cannot be read now.
    #[error("the AppSecret of the app cannot be read just now")]
    NoSecret,
    /// As many calls are under way as there may be.
    #[error("too many calls are being passed on")]
    Full,
    /// It did not get through, or nobody knows.
    #[error(transparent)]
    Forward(ForwardError),
}

/// Passes calls on.
pub(crate) struct Passage {
    store: Store,
    broker: Broker,
    credentials: StoredCredentials,
    client: wechat::Client,
    clock: Clock,
    places: Places,
}

/// A call's place among those that are under way, to be taken before its body is read.
#[derive(Debug)]
pub struct Place(
    #[expect(dead_code, reason = "given back when dropped")] [OwnedSemaphorePermit; 2],
);

/// As many places as calls may be under way.
struct Places {
    all: Arc<Semaphore>,
    /// Of the tenants that have calls under way.
    tenants: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
}

impl Places {
    fn new() -> Self {
        Self {
            all: Arc::new(Semaphore::new(AT_ONCE)),
            tenants: Mutex::default(),
        }
    }

    /// The tenant's next place; none: it was not free in time. Who waits for one of its own takes none of the others'.
    async fn take(&self, tenant: TenantId) -> Option<Place> {
        let own = self.of(tenant);
        let both = async {
            let own = own.acquire_owned().await.ok()?;
            let all = self.all.clone().acquire_owned().await.ok()?;
            Some(Place([own, all]))
        };
        timeout(PATIENCE, both).await.ok()?
    }

    fn of(&self, tenant: TenantId) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        tenants.retain(|_, places| Arc::strong_count(places) > 1);
        let places = tenants.entry(tenant);
        places
            .or_insert_with(|| Arc::new(Semaphore::new(OF_ONE_TENANT)))
            .clone()
    }
}

impl Passage {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            store: parts.store.clone(),
            broker: parts.broker.clone(),
            credentials: StoredCredentials::new(parts.store.clone(), parts.master_key.clone()),
            client: parts.wechat.clone(),
            clock: parts.coord.clock().clone(),
            places: Places::new(),
        }
    }

    /// A place for a call of the tenant's.
    pub(crate) async fn place(&self, tenant: TenantId) -> Result<Place, PassageError> {
        self.places.take(tenant).await.ok_or(PassageError::Full)
    }

    /// Makes the call as the tenant's app, and puts it on record if it is a POST: most of WeChat's calls that change
    /// something are.
    pub(crate) async fn forward(
        &self,
        _place: Place,
        tenant: TenantId,
        appid: &AppId,
        call: &ForwardedCall,
        origin: &Origin,
    ) -> Result<ForwardedAnswer, PassageError> {
        let answered = self.pass(tenant, appid, call).await;
        // An app that is not the tenant's was not called, and has no business in its log.
        let is_foreign = matches!(&answered, Err(PassageError::App(AppError::NotFound)));
        if call.method == "POST" && !is_foreign {
            self.record(tenant, appid, call, origin, answered.as_ref())
                .await;
        }
        answered
    }

    async fn record(
        &self,
        tenant: TenantId,
        appid: &AppId,
        call: &ForwardedCall,
        origin: &Origin,
        answered: Result<&ForwardedAnswer, &PassageError>,
    ) {
        const ACTION: &str = "wechat.call";
        let line = match answered {
            Ok(_) => origin.did(ACTION, appid).saying(&*call.path),
            Err(error) => {
                let why = format!("{}: {error}", call.path);
                origin.was_refused(ACTION, appid, &why)
            }
        };
        let door = self.store.tenant(tenant);
        if let Err(error) = door.append_audit(line, self.clock.now()).await {
            tracing::error!(%appid, path = call.path, %error, "a call that was passed on is not in the audit log");
        }
    }

    /// Makes the call. With a token that WeChat calls dead nothing was done: then once more, with
    /// a fresh one.
    async fn pass(
        &self,
        tenant: TenantId,
        appid: &AppId,
        call: &ForwardedCall,
    ) -> Result<ForwardedAnswer, PassageError> {
        self.own(tenant, appid).await?;
        let token = self.broker.token(appid).await;
        let token = token.map_err(|error| self.no_token(&error))?;
        let answer = self.client.forward(&token.value, call).await;
        let answer = answer.map_err(PassageError::Forward)?;
        if !answer.is_stale {
            return Ok(answer);
        }
        let fresh = self.broker.stale(appid, token.generation).await;
        let fresh = fresh.map_err(|error| self.no_token(&error))?;
        let answer = self.client.forward(&fresh.value, call).await;
        let answer = answer.map_err(PassageError::Forward)?;
        if answer.is_stale {
            return Err(PassageError::TokenRefused);
        }
        Ok(answer)
    }

    /// Who stands behind the code of a `wx.login()` in the tenant's mini-program, in WeChat's words.
    pub(crate) async fn sign_in(
        &self,
        tenant: TenantId,
        appid: &AppId,
        js_code: &str,
    ) -> Result<ForwardedAnswer, PassageError> {
        self.own(tenant, appid).await?;
        let credentials = self.credentials.credentials(appid).await;
        let secret = credentials.map_err(no_secret)?.secret;
        let answer = self.client.code_to_session(appid, &secret, js_code).await;
        let answer = answer.map_err(PassageError::Forward)?;
        if answer.is_stale {
            return Err(PassageError::SecretRefused);
        }
        Ok(answer)
    }

    /// That the app is the tenant's.
    async fn own(&self, tenant: TenantId, appid: &AppId) -> Result<(), PassageError> {
        let app = self.store.tenant(tenant).app(appid).await;
        app.map_err(|error: StoreError| PassageError::App(error.into()))?;
        Ok(())
    }

    fn no_token(&self, error: &BrokerError) -> PassageError {
        PassageError::App(refusal(error, self.clock.now()))
    }
}

fn no_secret(error: CredentialsError) -> PassageError {
    match error {
        CredentialsError::UnknownApp => PassageError::App(AppError::NotFound),
        CredentialsError::Unavailable(why) => {
            tracing::error!(why, "no AppSecret to sign a user in with");
            PassageError::NoSecret
        }
    }
}
