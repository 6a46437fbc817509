//! Pass-through: calls to WeChat that the gateway has no resource for, made with the app's own token. Also the sign-in
//! of an app's users, made with the AppSecret.

use broker::{Broker, BrokerError, Credentials, CredentialsError};
use coord::Clock;
use domain::{app::AppId, id::TenantId, secret::AccessToken};
use store::{Origin, Store, StoreError};
use wechat::{ForwardedAnswer, ForwardedCall};

mod call_slots;
mod error;
mod memory;

pub use self::{error::PassThroughError, memory::BodyMemory};

use self::{call_slots::CallSlots, memory::MemoryBudget};
use crate::{
    StoredCredentials,
    apps::{AppError, refusal},
    parts::Parts,
    token_refusals::{Again, TokenRefusals},
};

/// Passes calls through to WeChat.
pub(crate) struct PassThrough {
    store: Store,
    broker: Broker,
    credentials: StoredCredentials,
    client: wechat::Client,
    clock: Clock,
    strays: TokenRefusals,
    places: CallSlots,
    rooms: MemoryBudget,
}

impl PassThrough {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            store: parts.store.clone(),
            broker: parts.broker.clone(),
            credentials: StoredCredentials::new(parts.store.clone(), parts.master_key.clone()),
            client: parts.wechat.clone(),
            clock: parts.coord.clock().clone(),
            strays: TokenRefusals::new(parts.broker.clone(), parts.coord.clock().clone()),
            places: CallSlots::new(),
            rooms: MemoryBudget::new(),
        }
    }

    /// Memory for one call of the tenant, with a body of `bytes` bytes.
    pub(crate) async fn room(
        &self,
        tenant: TenantId,
        bytes: usize,
    ) -> Result<BodyMemory, PassThroughError> {
        self.rooms.take(tenant, bytes).await
    }

    /// Makes the call as the tenant's app. A POST gets a line in the audit log, because most of WeChat's calls that
    /// change something are POSTs. The body of the answer holds the call's memory until the body is dropped.
    pub(crate) async fn forward(
        &self,
        room: BodyMemory,
        tenant: TenantId,
        appid: &AppId,
        call: &ForwardedCall,
        origin: &Origin,
    ) -> Result<ForwardedAnswer, PassThroughError> {
        let answered = self.pass(tenant, appid, call).await;
        // An app of another tenant was not called, and does not belong in this tenant's audit log.
        let is_foreign = matches!(&answered, Err(PassThroughError::App(AppError::NotFound)));
        if call.method == "POST" && !is_foreign {
            self.record(tenant, appid, call, origin, answered.as_ref())
                .await;
        }
        answered.map(|answer| ForwardedAnswer {
            body: room.holding(answer.body),
            ..answer
        })
    }

    async fn record(
        &self,
        tenant: TenantId,
        appid: &AppId,
        call: &ForwardedCall,
        origin: &Origin,
        answered: Result<&ForwardedAnswer, &PassThroughError>,
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
            tracing::error!(%appid, path = call.path, %error, "a forwarded call is not in the audit log");
        }
    }

    /// Makes the call. If WeChat refuses the token, WeChat has done nothing, so the call is made once more: with a
    /// fresh token, or with the same token if the token check passes.
    async fn pass(
        &self,
        tenant: TenantId,
        appid: &AppId,
        call: &ForwardedCall,
    ) -> Result<ForwardedAnswer, PassThroughError> {
        self.own(tenant, appid).await?;
        let token = self.broker.token(appid).await;
        let token = token.map_err(|error| self.no_token(&error))?;
        let answer = self.exchange(tenant, &token.value, call).await?;
        if !answer.is_stale {
            return Ok(answer);
        }
        let again = self.strays.after_refusal(appid, &token).await;
        let (again, refused) = match again.map_err(|error| self.no_token(&error))? {
            Again::Fresh(token) => (token, PassThroughError::TokenRefused),
            Again::Same(token) => (token, PassThroughError::CredentialRefused),
            Again::Later => return Err(PassThroughError::CredentialRefused),
        };
        let answer = self.exchange(tenant, &again.value, call).await?;
        if answer.is_stale {
            return Err(refused);
        }
        Ok(answer)
    }

    /// One exchange with WeChat. Holds a permit of [`CallSlots`] for the time of the exchange.
    async fn exchange(
        &self,
        tenant: TenantId,
        token: &AccessToken,
        call: &ForwardedCall,
    ) -> Result<ForwardedAnswer, PassThroughError> {
        let place = self
            .places
            .take(tenant)
            .await
            .ok_or(PassThroughError::Full)?;
        let answer = self.client.forward(token, call).await;
        drop(place);
        answer.map_err(PassThroughError::Forward)
    }

    /// The user behind the code of a `wx.login()` in the tenant's mini-program, as WeChat answers.
    pub(crate) async fn sign_in(
        &self,
        tenant: TenantId,
        appid: &AppId,
        js_code: &str,
    ) -> Result<ForwardedAnswer, PassThroughError> {
        self.own(tenant, appid).await?;
        let credentials = self.credentials.credentials(appid).await;
        let secret = credentials.map_err(no_secret)?.secret;
        let answer = self.client.code_to_session(appid, &secret, js_code).await;
        let answer = answer.map_err(PassThroughError::Forward)?;
        if answer.is_stale {
            return Err(PassThroughError::SecretRefused);
        }
        Ok(answer)
    }

    /// Checks that the app is the tenant's.
    async fn own(&self, tenant: TenantId, appid: &AppId) -> Result<(), PassThroughError> {
        let app = self.store.tenant(tenant).app(appid).await;
        app.map_err(|error: StoreError| PassThroughError::App(error.into()))?;
        Ok(())
    }

    fn no_token(&self, error: &BrokerError) -> PassThroughError {
        PassThroughError::App(refusal(error, self.clock.now()))
    }
}

fn no_secret(error: CredentialsError) -> PassThroughError {
    match error {
        CredentialsError::UnknownApp => PassThroughError::App(AppError::NotFound),
        CredentialsError::Unavailable(why) => {
            tracing::error!(why, "no AppSecret to sign a user in with");
            PassThroughError::NoSecret
        }
    }
}
