//! Sealing: AES-256-GCM under the master key, with the owner as associated data.
//!
//! A sealed secret that is copied to another row, tenant or purpose does not open there. Layout: version (1 byte), key
//! id (4), nonce (12), ciphertext and tag.

use std::fmt;

use aes_gcm::{
    Aes256Gcm, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    app::AppId,
    id::{TenantId, WebhookId},
};

const VERSION: u8 = 1;
const HEADER: usize = 1 + KEY_ID + NONCE;
const KEY_ID: usize = 4;
const NONCE: usize = 12;

/// The fresh random bytes that [`MasterKey::seal`] needs.
pub type SealNonce = [u8; NONCE];

/// Identifies a master key without revealing the key: the first bytes of a hash of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MasterKeyId([u8; KEY_ID]);

impl MasterKeyId {
    /// The first bytes of every value that is sealed under this key.
    pub fn mark(self) -> [u8; 1 + KEY_ID] {
        let mut mark = [VERSION; 1 + KEY_ID];
        mark[1..].copy_from_slice(&self.0);
        mark
    }
}

impl fmt::Display for MasterKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// The key that seals every secret at rest. During a key rotation the master key also contains a second key, which only
/// opens.
#[derive(Clone)]
pub struct MasterKey {
    key: Zeroizing<[u8; 32]>,
    other: Option<Zeroizing<[u8; 32]>>,
}

/// Why a text is not a master key.
#[derive(Debug, thiserror::Error)]
#[error("a master key is 32 random bytes in base64, for example from `openssl rand -base64 32`")]
pub struct MasterKeyFormat;

/// Why a sealed secret does not open.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OpenError {
    /// Sealed under another master key.
    #[error(
        "sealed under master key {sealed_under}, but the configured master key is {configured}: set WXGATE_MASTER_KEY to the key of this database, or, during a change of the master key, set WXGATE_MASTER_KEY_PREVIOUS to the previous key"
    )]
    WrongKey {
        /// The key that sealed the secret.
        sealed_under: MasterKeyId,
        /// The configured key.
        configured: MasterKeyId,
    },
    /// Not a sealed secret, changed, or sealed for another owner.
    #[error("the sealed secret is damaged or belongs to another owner: set the secret again")]
    Damaged,
}

impl MasterKey {
    /// Makes a key from raw bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self {
            key: Zeroizing::new(bytes),
            other: None,
        }
    }

    /// Returns the same key, which also opens values that `other` sealed.
    #[must_use]
    pub fn with_secondary(self, other: &Self) -> Self {
        Self {
            other: Some(other.key.clone()),
            ..self
        }
    }

    /// Reads the base64 form of 32 bytes. White space around the text is ignored.
    pub fn from_base64(text: &str) -> Result<Self, MasterKeyFormat> {
        let bytes = Zeroizing::new(
            BASE64_STANDARD
                .decode(text.trim())
                .map_err(|_| MasterKeyFormat)?,
        );
        let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| MasterKeyFormat)?;
        Ok(Self::from_bytes(bytes))
    }

    /// The base64 form, for the key file of the embedded mode.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64_STANDARD.encode(self.key.as_slice()))
    }

    /// The id of this key.
    pub fn id(&self) -> MasterKeyId {
        id(&self.key)
    }

    /// The id of the second key, which only opens, if there is one.
    pub fn secondary_id(&self) -> Option<MasterKeyId> {
        self.other.as_deref().map(id)
    }

    /// Seals `plain` for `owner`. `nonce` must be fresh random bytes for each call.
    ///
    /// # Panics
    ///
    /// When `plain` is longer than 64 GiB.
    pub fn seal(&self, owner: &SealOwner, nonce: SealNonce, plain: &str) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(HEADER + plain.len() + 16);
        sealed.push(VERSION);
        sealed.extend_from_slice(&self.id().0);
        sealed.extend_from_slice(&nonce);
        let payload = Payload {
            msg: plain.as_bytes(),
            aad: owner.0.as_bytes(),
        };
        #[expect(
            clippy::expect_used,
            reason = "AES-GCM fails only for plaintexts over 64 GiB"
        )]
        let ciphertext = cipher(&self.key)
            .encrypt(&Nonce::from(nonce), payload)
            .expect("a secret is short");
        sealed.extend_from_slice(&ciphertext);
        sealed
    }

    /// Opens a value that [`MasterKey::seal`] made for the same owner.
    pub fn open(&self, owner: &SealOwner, sealed: &[u8]) -> Result<Zeroizing<String>, OpenError> {
        if sealed.len() < HEADER || sealed[0] != VERSION {
            return Err(OpenError::Damaged);
        }
        let (header, ciphertext) = sealed.split_at(HEADER);
        let (key_id, nonce) = header[1..].split_at(KEY_ID);
        let keys = [Some(&self.key), self.other.as_ref()];
        let right = keys.into_iter().flatten().find(|key| key_id == id(key).0);
        let Some(key) = right else {
            let sealed_under = MasterKeyId(key_id.try_into().map_err(|_| OpenError::Damaged)?);
            return Err(OpenError::WrongKey {
                sealed_under,
                configured: self.id(),
            });
        };
        let nonce = SealNonce::try_from(nonce).map_err(|_| OpenError::Damaged)?;
        let payload = Payload {
            msg: ciphertext,
            aad: owner.0.as_bytes(),
        };
        let plain = cipher(key)
            .decrypt(&Nonce::from(nonce), payload)
            .map_err(|_| OpenError::Damaged)?;
        String::from_utf8(plain)
            .map(Zeroizing::new)
            .map_err(|_| OpenError::Damaged)
    }
}

fn id(key: &[u8; 32]) -> MasterKeyId {
    let digest = Sha256::new()
        .chain_update(b"wxgate master key\0")
        .chain_update(key.as_slice())
        .finalize();
    let mut id = [0; KEY_ID];
    id.copy_from_slice(&digest[..KEY_ID]);
    MasterKeyId(id)
}

fn cipher(key: &[u8; 32]) -> Aes256Gcm {
    Aes256Gcm::new(&(*key).into())
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id())
    }
}

/// The owner of a sealed secret: the associated data of the seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealOwner(String);

impl SealOwner {
    /// An app's AppSecret.
    pub fn app_secret(tenant: TenantId, appid: &AppId) -> Self {
        Self(format!("app-secret\0{tenant}\0{appid}"))
    }

    /// The Token of an app's message push settings.
    pub fn callback_token(tenant: TenantId, appid: &AppId) -> Self {
        Self(format!("callback-token\0{tenant}\0{appid}"))
    }

    /// The `EncodingAESKey` of an app's message push settings.
    pub fn callback_aes_key(tenant: TenantId, appid: &AppId) -> Self {
        Self(format!("callback-aes-key\0{tenant}\0{appid}"))
    }

    /// An app's access token in the shared cell.
    pub fn access_token(appid: &AppId) -> Self {
        Self(format!("access-token\0{appid}"))
    }

    /// A secret that signs the events of a webhook endpoint.
    pub fn webhook_secret(tenant: TenantId, webhook: WebhookId) -> Self {
        Self(format!("webhook-secret\0{tenant}\0{webhook}"))
    }

    /// The stored answer of a request under an idempotency key of a tenant or, without a tenant, of the operators.
    pub fn kept_answer(tenant: Option<TenantId>, key: &str) -> Self {
        let owner = tenant.map_or_else(String::new, |tenant| tenant.to_string());
        Self(format!("kept-answer\0{owner}\0{key}"))
    }

    /// A key of the gateway's own.
    pub fn sealed_key(name: &str) -> Self {
        Self(format!("sealed-key\0{name}"))
    }

    /// A private key that signs access tokens of this gateway.
    pub fn signing_key(kid: &str) -> Self {
        Self(format!("signing-key\0{kid}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id;
    use chrono::DateTime;

    fn owner(tenant: u64) -> SealOwner {
        let tenant = id::new(DateTime::UNIX_EPOCH, 0, tenant);
        SealOwner::app_secret(tenant, &AppId::parse("wx0a1b2c3d4e5f6789").unwrap())
    }

    #[test]
    fn opens_for_its_owner_alone() {
        let key = MasterKey::from_bytes([7; 32]);
        let sealed = key.seal(&owner(1), [9; 12], "s3cret");
        assert_eq!(key.open(&owner(1), &sealed).unwrap().as_str(), "s3cret");
        assert_eq!(key.open(&owner(2), &sealed), Err(OpenError::Damaged));
    }

    #[test]
    fn names_the_wrong_key() {
        let (right, wrong) = (
            MasterKey::from_bytes([7; 32]),
            MasterKey::from_bytes([8; 32]),
        );
        let sealed = right.seal(&owner(1), [9; 12], "s3cret");
        let refused = wrong.open(&owner(1), &sealed);
        assert_eq!(
            refused,
            Err(OpenError::WrongKey {
                sealed_under: right.id(),
                configured: wrong.id()
            })
        );
    }

    #[test]
    fn the_other_key_opens_and_never_seals() {
        let (old, new) = (
            MasterKey::from_bytes([7; 32]),
            MasterKey::from_bytes([8; 32]),
        );
        let sealed = old.seal(&owner(1), [9; 12], "s3cret");
        assert!(sealed.starts_with(&old.id().mark()));
        let both = new.with_secondary(&old);
        assert_eq!(both.open(&owner(1), &sealed).unwrap().as_str(), "s3cret");
        let again = both.seal(&owner(1), [9; 12], "s3cret");
        assert!(again.starts_with(&both.id().mark()) && old.open(&owner(1), &again).is_err());
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let key = MasterKey::from_bytes([7; 32]);
        let sealed = key.seal(&owner(1), [9; 12], "s3cret");
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(key.open(&owner(1), &damaged).is_err(), "byte {at}");
        }
    }

    #[test]
    fn base64_round_trip_and_refusals() {
        let key = MasterKey::from_bytes([3; 32]);
        let text = key.to_base64();
        assert_eq!(
            MasterKey::from_base64(&format!(" {}\n", text.as_str()))
                .unwrap()
                .id(),
            key.id()
        );
        assert!(MasterKey::from_base64("dG9vIHNob3J0").is_err());
        assert!(!format!("{key:?}").contains(text.as_str()));
    }
}
