//! Apps with sealed secrets.

use chrono::{DateTime, Utc};
use domain::{
    app::{AppId, AppKind, TokenMode},
    id::TenantId,
};
use sea_orm::{EntityTrait, QueryFilter};

use super::{column_text::parse_token_mode, is, parse_kind};
use crate::{PlatformStore, StoreError, entity::app::Entity, timestamp::time};

/// The settings and sealed secrets with which the gateway calls WeChat for an app. The seal is bound to `tenant` and
/// `appid`.
#[derive(Clone, Debug)]
pub struct SealedApp {
    /// WeChat's id for the app.
    pub appid: AppId,
    /// The tenant that owns the app: part of the seal's associated data.
    pub tenant: TenantId,
    /// The kind of account that the appid names.
    pub kind: AppKind,
    /// How the gateway fetches the app's access token.
    pub token_mode: TokenMode,
    /// The AppSecret.
    pub secret_sealed: Vec<u8>,
    /// The Token of the app's message push settings.
    pub callback_token_sealed: Option<Vec<u8>>,
    /// The `EncodingAESKey` of the app's message push settings.
    pub callback_aes_key_sealed: Option<Vec<u8>>,
    /// The message push settings before the last change.
    pub previous_callback: Option<PreviousCallback>,
}

/// The message push settings before the last change, sealed. WeChat uses the previous settings until the new ones are
/// entered in WeChat's console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviousCallback {
    /// The Token.
    pub token_sealed: Vec<u8>,
    /// The `EncodingAESKey`, if the app had one.
    pub aes_key_sealed: Option<Vec<u8>>,
    /// When the new settings were stored.
    pub changed_at: DateTime<Utc>,
}

impl PlatformStore {
    /// The settings and sealed secrets with which the gateway calls WeChat for an app.
    pub async fn sealed_app(&self, appid: &AppId) -> Result<SealedApp, StoreError> {
        let row = Entity::find()
            .filter(is(None, appid))
            .one(self.store.read())
            .await?;
        let row = row.ok_or(StoreError::NotFound("app"))?;
        let previous_callback = row
            .previous_callback_token_sealed
            .zip(row.callback_changed_at)
            .map(|(token_sealed, changed_at)| PreviousCallback {
                token_sealed,
                aes_key_sealed: row.previous_callback_aes_key_sealed,
                changed_at: time(changed_at),
            });
        Ok(SealedApp {
            appid: appid.clone(),
            tenant: row.tenant_id.into(),
            kind: parse_kind(&row.kind)?,
            token_mode: parse_token_mode(&row.token_mode)?,
            secret_sealed: row.secret_sealed,
            callback_token_sealed: row.callback_token_sealed,
            callback_aes_key_sealed: row.callback_aes_key_sealed,
            previous_callback,
        })
    }
}
