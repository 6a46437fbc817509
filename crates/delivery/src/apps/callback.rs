//! The message push settings of an app: checks, sealing, changes.

use domain::{
    app::AppId,
    id::TenantId,
    seal::{MasterKey, SealOwner},
    secret::{CallbackAesKey, CallbackToken},
    violation::Violation,
};
use store::Store;

use super::error::AppError;

/// The message push settings of an app in WeChat's console.
#[derive(Clone, Debug, Default)]
pub struct CallbackSettings {
    /// The Token.
    pub token: Option<CallbackToken>,
    /// The `EncodingAESKey`.
    pub aes_key: Option<CallbackAesKey>,
}

/// The settings as the database stores them.
pub(super) struct SealedCallback {
    pub(super) token: Option<Vec<u8>>,
    pub(super) aes_key: Option<Vec<u8>>,
}

impl CallbackSettings {
    /// The rules that the settings break.
    pub(super) fn violations(&self) -> impl Iterator<Item = Violation> {
        let token = self
            .token
            .as_ref()
            .is_some_and(|token| !is_alphanumeric(token.expose(), 3..=32));
        let aes_key = self
            .aes_key
            .as_ref()
            .is_some_and(|key| !is_alphanumeric(key.expose(), 43..=43));
        let wrong = [
            (
                token,
                "/callback_token",
                "must be the Token of WeChat's console: 3 to 32 letters and digits",
            ),
            (
                aes_key,
                "/callback_aes_key",
                "must be the EncodingAESKey of WeChat's console: 43 letters and digits",
            ),
        ];
        wrong
            .into_iter()
            .filter(|(is_wrong, _, _)| *is_wrong)
            .map(|(_, pointer, rule)| Violation::new(pointer, rule))
    }

    /// The settings, sealed for the tenant's app.
    pub(super) fn sealed(
        &self,
        master_key: &MasterKey,
        tenant: TenantId,
        appid: &AppId,
    ) -> SealedCallback {
        let seal = |owner: SealOwner, plain: &str| master_key.seal(&owner, rand::random(), plain);
        let (token, aes_key) = (self.token.as_ref(), self.aes_key.as_ref());
        SealedCallback {
            token: token
                .map(|token| seal(SealOwner::callback_token(tenant, appid), token.expose())),
            aes_key: aes_key
                .map(|key| seal(SealOwner::callback_aes_key(tenant, appid), key.expose())),
        }
    }

    /// The part of these settings that differs from the settings of the tenant's app. Setting the same value again is no
    /// change: a change would end the day in which the settings before the last change are still valid.
    pub(super) async fn changed(
        self,
        store: &Store,
        master_key: &MasterKey,
        tenant: TenantId,
        appid: &AppId,
    ) -> Result<Self, AppError> {
        if self.token.is_none() && self.aes_key.is_none() {
            return Ok(self);
        }
        let kept = store.platform().sealed_app(appid).await?;
        if kept.tenant != tenant {
            return Err(AppError::NotFound);
        }
        let is = |owner: SealOwner, sealed: Option<&Vec<u8>>, text: &str| {
            // A value that the master key cannot open any more is replaced.
            sealed
                .and_then(|sealed| master_key.open(&owner, sealed).ok())
                .is_some_and(|kept| kept.as_str() == text)
        };
        let (token, aes_key) = (&kept.callback_token_sealed, &kept.callback_aes_key_sealed);
        Ok(Self {
            token: self.token.filter(|text| {
                let owner = SealOwner::callback_token(tenant, appid);
                !is(owner, token.as_ref(), text.expose())
            }),
            aes_key: self.aes_key.filter(|text| {
                let owner = SealOwner::callback_aes_key(tenant, appid);
                !is(owner, aes_key.as_ref(), text.expose())
            }),
        })
    }
}

fn is_alphanumeric(text: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}
