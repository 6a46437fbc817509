//! Gives the broker the AppSecrets that the store keeps sealed.

use async_trait::async_trait;
use broker::{AppCredentials, Credentials, CredentialsError};
use domain::{
    app::AppId,
    seal::{MasterKey, SealOwner},
    secret::AppSecret,
};
use store::{Store, StoreError};

/// The AppSecrets in the database, opened with the master key.
#[derive(Clone, Debug)]
pub struct StoredCredentials {
    store: Store,
    master_key: MasterKey,
}

impl StoredCredentials {
    /// Reads from `store`, opens with `master_key`.
    pub fn new(store: Store, master_key: MasterKey) -> Self {
        Self { store, master_key }
    }
}

#[async_trait]
impl Credentials for StoredCredentials {
    async fn credentials(&self, appid: &AppId) -> Result<AppCredentials, CredentialsError> {
        let sealed = match self.store.platform().sealed_app(appid).await {
            Ok(sealed) => sealed,
            Err(StoreError::NotFound(_)) => return Err(CredentialsError::UnknownApp),
            Err(error) => {
                // The database's error is for operators only, and this text reaches tenants.
                tracing::error!(%appid, %error, "cannot read an AppSecret");
                return Err(CredentialsError::Unavailable(
                    "the database does not answer".to_owned(),
                ));
            }
        };
        let owner = SealOwner::app_secret(sealed.tenant, appid);
        let secret = self
            .master_key
            .open(&owner, &sealed.secret_sealed)
            .map_err(|error| {
                CredentialsError::Unavailable(format!(
                    "the AppSecret of {appid} cannot be decrypted: {error}"
                ))
            })?;
        Ok(AppCredentials {
            secret: AppSecret::new(secret.as_str()),
            mode: sealed.token_mode,
        })
    }
}
