//! The keys of an app's callbacks, opened from the database.

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    app::AppId,
    id::TenantId,
    seal::{MasterKey, SealOwner},
    secret::{CallbackAesKey, CallbackToken},
};
use store::{Store, StoreError};
use wechat::callback::Keys;

use super::{CallbackError, CallbackRefusal};
use crate::engine::Parts;

/// How long the settings before a change are good: the tenant tells the gateway first and WeChat's console then, and
/// what WeChat had signed before may still come.
pub(crate) const GRACE: TimeDelta = TimeDelta::hours(24);

/// Where keys come from. They are read for each callback, so that a change counts at once on every replica.
pub(super) struct KeyChain {
    store: Store,
    master_key: MasterKey,
}

/// What an app's callbacks may be signed with.
pub(super) struct Chain {
    pub(super) newest: Keys,
    pub(super) previous: Option<Keys>,
}

impl KeyChain {
    pub(super) fn new(parts: &Parts) -> Self {
        Self {
            store: parts.store.clone(),
            master_key: parts.master_key.clone(),
        }
    }

    pub(super) async fn of(
        &self,
        appid: &AppId,
        now: DateTime<Utc>,
    ) -> Result<Chain, CallbackError> {
        let sealed = match self.store.platform().sealed_app(appid).await {
            Ok(sealed) => sealed,
            Err(StoreError::NotFound(_)) => return Err(CallbackRefusal::UnknownApp.into()),
            Err(error) => return Err(error.into()),
        };
        let Some(token) = &sealed.callback_token_sealed else {
            return Err(CallbackRefusal::NoToken.into());
        };
        let open = |token: &[u8], aes_key: Option<&Vec<u8>>| {
            self.open(sealed.tenant, appid, token, aes_key)
        };
        let newest = open(token, sealed.callback_aes_key_sealed.as_ref())?;
        let previous = sealed
            .previous_callback
            .as_ref()
            .filter(|previous| now < previous.changed_at + GRACE)
            .map(|previous| open(&previous.token_sealed, previous.aes_key_sealed.as_ref()))
            .transpose()?;
        Ok(Chain { newest, previous })
    }

    fn open(
        &self,
        tenant: TenantId,
        appid: &AppId,
        token: &[u8],
        aes_key: Option<&Vec<u8>>,
    ) -> Result<Keys, CallbackError> {
        let open = |owner: &SealOwner, sealed: &[u8]| {
            let opened = self.master_key.open(owner, sealed);
            opened.map_err(|error| {
                CallbackError::Broken(format!(
                    "the message push settings of {appid} cannot be opened: {error}"
                ))
            })
        };
        let token = open(&SealOwner::callback_token(tenant, appid), token)?;
        let aes_key = aes_key
            .map(|sealed| open(&SealOwner::callback_aes_key(tenant, appid), sealed))
            .transpose()?
            .map(|key| CallbackAesKey::new(key.as_str()));
        Keys::new(CallbackToken::new(token.as_str()), aes_key.as_ref())
            .map_err(|error| CallbackError::Broken(format!("{appid}: {error}")))
    }
}
