//! The pepper that client secrets are hashed with: generated once for a database and sealed there, so that secrets stay
//! valid when the master key changes.

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use domain::{
    seal::{MasterKey, SealOwner},
    secret::Pepper,
};
use store::Store;

use crate::TenancyError;

const NAME: &str = "client-secret-pepper";

/// The pepper of this database; generates the pepper at the first start.
pub(crate) async fn open(
    store: &Store,
    master_key: &MasterKey,
    now: DateTime<Utc>,
) -> Result<Pepper, TenancyError> {
    let (platform, owner) = (store.platform(), SealOwner::sealed_key(NAME));
    let sealed = if let Some(sealed) = platform.sealed_key(NAME).await? {
        sealed
    } else {
        let fresh = Pepper::new(BASE64_STANDARD.encode(rand::random::<[u8; 32]>()));
        let sealed = master_key.seal(&owner, rand::random(), fresh.expose());
        platform.keep_sealed_key(NAME, sealed, now).await?
    };
    Ok(Pepper::new(master_key.open(&owner, &sealed)?.as_str()))
}
