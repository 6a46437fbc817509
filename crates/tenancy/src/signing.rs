//! The Ed25519 keys that sign access tokens. They live in the database, their private halves sealed under the
//! master key, so that all replicas sign and verify with the same ones.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, Duration, Utc};
use domain::{
    seal::{MasterKey, SealOwner},
    secret::SigningKeyPem,
};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey,
    jwk::{AlgorithmParameters, Jwk, ThumbprintHash},
};
use serde_json::{Value, json};
use store::{SigningKey, Store};

use crate::TenancyError;

/// How often a token with an unknown key may make us look for new keys.
fn look_every() -> Duration {
    Duration::seconds(2)
}

/// The keys of all replicas, as this one knows them.
pub(crate) struct KeyRing {
    store: Store,
    master_key: MasterKey,
    keys: RwLock<Arc<Keys>>,
    /// When the keys were last looked for. Held while looking, so that a crowd looks once.
    looked_at: tokio::sync::Mutex<DateTime<Utc>>,
}

/// What was in the database at one look.
pub(crate) struct Keys {
    /// The name of the key to sign with.
    pub(crate) kid: String,
    /// The key to sign with.
    pub(crate) signing: EncodingKey,
    verifying: HashMap<String, DecodingKey>,
    jwks: Value,
}

impl KeyRing {
    /// Loads the keys; makes one where there is none. Two replicas that start at the same moment may make one
    /// each: then both sign with the newer, and verify with either.
    pub(crate) async fn open(
        store: &Store,
        master_key: &MasterKey,
        now: DateTime<Utc>,
    ) -> Result<Self, TenancyError> {
        let stored = store.platform().signing_keys(now).await?;
        if !stored.iter().any(|key| key.retired_at.is_none()) {
            store
                .platform()
                .create_signing_key(&generate(master_key, now)?)
                .await?;
        }
        let keys = Keys::load(store, master_key, now).await?;
        Ok(Self {
            store: store.clone(),
            master_key: master_key.clone(),
            keys: RwLock::new(Arc::new(keys)),
            looked_at: tokio::sync::Mutex::new(DateTime::UNIX_EPOCH),
        })
    }

    /// The keys as last seen.
    pub(crate) fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The key named `kid`. Where it is unknown, another replica may have just made it: looks, now and then.
    pub(crate) async fn verifying(&self, kid: &str, now: DateTime<Utc>) -> Option<DecodingKey> {
        if let Some(key) = self.keys().verifying.get(kid) {
            return Some(key.clone());
        }
        let mut looked_at = self.looked_at.lock().await;
        if (now - *looked_at).abs() >= look_every() {
            *looked_at = now;
            match Keys::load(&self.store, &self.master_key, now).await {
                Ok(keys) => {
                    *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
                }
                Err(error) => tracing::warn!(%error, "cannot look for new signing keys"),
            }
        }
        self.keys().verifying.get(kid).cloned()
    }
}

impl Keys {
    async fn load(
        store: &Store,
        master_key: &MasterKey,
        now: DateTime<Utc>,
    ) -> Result<Self, TenancyError> {
        let stored = store.platform().signing_keys(now).await?;
        let mut signing = None;
        // Every key that may sign must open: one that does not is another master key at work on this database.
        for key in stored.iter().filter(|key| key.retired_at.is_none()) {
            let opened = open(master_key, key)?;
            signing.get_or_insert((key.kid.clone(), opened));
        }
        let (kid, signing) = signing.ok_or(TenancyError::NotFound("signing key"))?;
        let mut verifying = HashMap::new();
        for key in &stored {
            verifying.insert(
                key.kid.clone(),
                DecodingKey::from_ed_components(&key.public_key)?,
            );
        }
        let jwks = json!({ "keys": stored.iter().map(public).collect::<Vec<_>>() });
        Ok(Self {
            kid,
            signing,
            verifying,
            jwks,
        })
    }

    /// The public halves as a JWK set (RFC 7517, RFC 8037).
    pub(crate) fn jwks(&self) -> &Value {
        &self.jwks
    }
}

fn public(key: &SigningKey) -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": key.kid, "x": key.public_key })
}

fn open(master_key: &MasterKey, key: &SigningKey) -> Result<EncodingKey, TenancyError> {
    let pem = master_key.open(&SealOwner::signing_key(&key.kid), &key.private_sealed)?;
    Ok(EncodingKey::from_ed_pem(pem.as_bytes())?)
}

/// A fresh key. Its name is the thumbprint of its public half (RFC 7638).
fn generate(master_key: &MasterKey, now: DateTime<Utc>) -> Result<SigningKey, TenancyError> {
    let refused = |_| TenancyError::Crypto("no key could be generated".into());
    let private = Ed25519KeyPair::generate()
        .and_then(|pair| pair.to_pkcs8v1())
        .map_err(refused)?;
    // A PKCS#8 Ed25519 key has 48 bytes: one line of PEM.
    let line = BASE64_STANDARD.encode(private.as_ref());
    let pem = SigningKeyPem::new(format!(
        "-----BEGIN PRIVATE KEY-----\n{line}\n-----END PRIVATE KEY-----\n"
    ));
    let jwk = Jwk::from_encoding_key(
        &EncodingKey::from_ed_pem(pem.expose().as_bytes())?,
        Algorithm::EdDSA,
    )?;
    let kid = jwk.thumbprint(ThumbprintHash::SHA256)?;
    let AlgorithmParameters::OctetKeyPair(public) = jwk.algorithm else {
        return Err(TenancyError::Crypto(
            "a generated key is not Ed25519".into(),
        ));
    };
    Ok(SigningKey {
        private_sealed: master_key.seal(
            &SealOwner::signing_key(&kid),
            rand::random(),
            pem.expose(),
        ),
        public_key: public.x,
        created_at: now,
        retired_at: None,
        kid,
    })
}
