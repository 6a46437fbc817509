//! The message push settings of an app: checks, sealing, changes.

use domain::{
    app::AppId,
    id::TenantId,
    seal::SealOwner,
    secret::{CallbackAesKey, CallbackToken},
    violation::Violation,
};

use super::{AppError, Apps};

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
}

impl Apps {
    pub(super) fn seal_callback(
        &self,
        tenant: TenantId,
        appid: &AppId,
        callback: &CallbackSettings,
    ) -> SealedCallback {
        let token = callback
            .token
            .as_ref()
            .map(|token| self.seal(&SealOwner::callback_token(tenant, appid), token.expose()));
        let aes_key = callback
            .aes_key
            .as_ref()
            .map(|key| self.seal(&SealOwner::callback_aes_key(tenant, appid), key.expose()));
        SealedCallback { token, aes_key }
    }

    /// The part of `wanted` that differs from the settings of the tenant's app. Setting the same value again is no
    /// change: a change would end the day in which the settings before the last change are still valid.
    pub(super) async fn news_of(
        &self,
        tenant: TenantId,
        appid: &AppId,
        wanted: CallbackSettings,
    ) -> Result<CallbackSettings, AppError> {
        if wanted.token.is_none() && wanted.aes_key.is_none() {
            return Ok(wanted);
        }
        let kept = self.store.platform().sealed_app(appid).await?;
        if kept.tenant != tenant {
            return Err(AppError::NotFound);
        }
        let is = |owner: SealOwner, sealed: Option<&Vec<u8>>, text: &str| {
            // A value that the master key cannot open any more is replaced.
            sealed
                .and_then(|sealed| self.master_key.open(&owner, sealed).ok())
                .is_some_and(|kept| kept.as_str() == text)
        };
        let (token, aes_key) = (&kept.callback_token_sealed, &kept.callback_aes_key_sealed);
        Ok(CallbackSettings {
            token: wanted.token.filter(|text| {
                let owner = SealOwner::callback_token(tenant, appid);
                !is(owner, token.as_ref(), text.expose())
            }),
            aes_key: wanted.aes_key.filter(|text| {
                let owner = SealOwner::callback_aes_key(tenant, appid);
                !is(owner, aes_key.as_ref(), text.expose())
            }),
        })
    }
}

fn is_alphanumeric(text: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}
