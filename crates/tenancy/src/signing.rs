//! The Ed25519 keys that sign access tokens. The database stores the keys, the private halves sealed under the master
//! key, so that all replicas sign and verify with the same keys.
//!
//! A key gets a successor when the key is 90 days old, or when an operator asks for one. The successor is published at
//! once and signs only after [`LEAD`], when every replica and every cache of the JWK set has the successor; the
//! previous key verifies for [`GRACE`] longer than that. So the change causes no refused token.
//!
//! A stolen key is *replaced*: the new key signs at once, and all other keys stop verifying. Every replica checks for a
//! replacement while verifying tokens, at most every [`LOOK_EVERY`], so tokens of replaced keys are refused within 5
//! seconds.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    seal::{MasterKey, SealOwner},
    secret::SigningKeyPem,
};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey,
    jwk::{AlgorithmParameters, Jwk, ThumbprintHash},
};
use serde_json::{Value, json};
use store::{Origin, SigningKey, Store};

use crate::TenancyError;

/// The greatest age of the loaded keys when a token is verified, and the shortest time between two loads for tokens
/// with an unknown key.
const LOOK_EVERY: TimeDelta = TimeDelta::seconds(2);
/// The interval of the check whether the newest key is old.
const REGULARLY: TimeDelta = TimeDelta::minutes(1);
/// The time limit of a load from the database.
const PATIENCE: Duration = Duration::from_secs(2);
/// The age at which a key gets a successor.
const AGE: TimeDelta = TimeDelta::days(90);
/// The time from the publication of a key until the key signs: clients may cache the JWK set for five minutes.
const LEAD: TimeDelta = TimeDelta::minutes(10);
/// The time for which a key still verifies after the successor has begun to sign: much longer than the lifetime of the
/// last token.
const GRACE: TimeDelta = TimeDelta::hours(3);

/// The signing keys of all replicas, as this replica last loaded the keys.
pub(crate) struct KeyRing {
    store: Store,
    master_key: MasterKey,
    keys: RwLock<Arc<SigningKeys>>,
    /// When the last load from the database began, whether successful or not: milliseconds since 1970.
    asked_at: AtomicI64,
    /// Held during a load, so that concurrent requests cause one load.
    looks: tokio::sync::Mutex<LastChecks>,
}

/// The times of the last rate-limited checks.
struct LastChecks {
    /// The last check of the newest key's age.
    regular: DateTime<Utc>,
    /// The last load because of a token with an unknown key.
    special: DateTime<Utc>,
}

/// The keys that one load found in the database.
pub(crate) struct SigningKeys {
    /// The keys to sign with, sorted by start of signing, latest first.
    signing: Vec<Signing>,
    verifying: HashMap<String, DecodingKey>,
    /// The key without a successor.
    newest: Newest,
    jwks: Value,
}

struct Newest {
    kid: String,
    made_at: DateTime<Utc>,
}

/// A key to sign with.
pub(crate) struct Signing {
    /// The key's name, for the `kid` of tokens.
    pub(crate) kid: String,
    /// The private key.
    pub(crate) key: EncodingKey,
    from: DateTime<Utc>,
}

impl KeyRing {
    /// Loads the keys; creates a key where the database has none in force.
    pub(crate) async fn open(
        store: &Store,
        master_key: &MasterKey,
        now: DateTime<Utc>,
    ) -> Result<Self, TenancyError> {
        let stored = store.platform().signing_keys(now).await?;
        if !stored.iter().any(|key| key.retired_at.is_none()) {
            store
                .platform()
                .create_signing_key(&generate(master_key, now, now)?)
                .await?;
        }
        let keys = SigningKeys::load(store, master_key, now).await?;
        Ok(Self {
            store: store.clone(),
            master_key: master_key.clone(),
            keys: RwLock::new(Arc::new(keys)),
            asked_at: AtomicI64::new(now.timestamp_millis()),
            looks: tokio::sync::Mutex::new(LastChecks {
                regular: now,
                special: DateTime::UNIX_EPOCH,
            }),
        })
    }

    /// The keys of the last successful load.
    pub(crate) fn keys(&self) -> Arc<SigningKeys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The key named `kid`. For an unknown name, loads the keys again, at most every [`LOOK_EVERY`]: another replica
    /// may have just created the key.
    pub(crate) async fn verifying(&self, kid: &str, now: DateTime<Utc>) -> Option<DecodingKey> {
        if let Some(key) = self.keys().verifying.get(kid) {
            return Some(key.clone());
        }
        let mut looks = self.looks.lock().await;
        if (now - looks.special).abs() >= LOOK_EVERY {
            looks.special = now;
            self.reload(now).await;
        }
        self.keys().verifying.get(kid).cloned()
    }

    /// Loads new and replaced keys if the last load is older than [`LOOK_EVERY`]. One request loads; the others
    /// continue with the known keys, but wait where these are older than twice that. While the database is down, the
    /// last loaded keys count: the cached standing of API keys ends that after a minute.
    pub(crate) async fn reload_if_stale(&self, now: DateTime<Utc>) {
        let age = self.age(now);
        if age < LOOK_EVERY {
            return;
        }
        let turn = if age < LOOK_EVERY * 2 {
            self.looks.try_lock().ok()
        } else {
            Some(self.looks.lock().await)
        };
        if turn.is_some() && self.age(now) >= LOOK_EVERY {
            self.reload(now).await;
        }
    }

    fn age(&self, now: DateTime<Utc>) -> TimeDelta {
        let asked_at = self.asked_at.load(Ordering::Relaxed);
        TimeDelta::milliseconds((now.timestamp_millis() - asked_at).abs())
    }

    /// Calls [`KeyRing::reload_if_stale`], and once a minute creates a successor if the newest key is old.
    pub(crate) async fn look(&self, now: DateTime<Utc>) {
        self.reload_if_stale(now).await;
        let Ok(mut looks) = self.looks.try_lock() else {
            return;
        };
        if (now - looks.regular).abs() < REGULARLY {
            return;
        }
        looks.regular = now;
        let keys = self.keys();
        if keys.newest.made_at + AGE <= now
            && let Err(error) = self
                .create_successor(&keys.newest.kid, &Origin::GATEWAY, now)
                .await
        {
            tracing::error!(%error, "the key that signs access tokens is old, and has no successor");
        }
    }

    async fn reload(&self, now: DateTime<Utc>) {
        self.asked_at
            .store(now.timestamp_millis(), Ordering::Relaxed);
        let look = SigningKeys::load(&self.store, &self.master_key, now);
        match tokio::time::timeout(PATIENCE, look).await {
            Ok(Ok(keys)) => {
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
            }
            Ok(Err(error)) => tracing::warn!(%error, "cannot look for new signing keys"),
            Err(_) => tracing::warn!("cannot look for new signing keys: the database is slow"),
        }
    }

    /// Gives the newest key a successor, and returns the key that is then the newest: another replica's key where that
    /// replica was faster.
    pub(crate) async fn rotate(
        &self,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<SigningKey, TenancyError> {
        let before = self.store.platform().newest_signing_key().await?;
        self.create_successor(&before.kid, origin, now).await?;
        Ok(self.store.platform().newest_signing_key().await?)
    }

    /// Gives the key named `before` a successor, unless the key has one.
    async fn create_successor(
        &self,
        before: &str,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<(), TenancyError> {
        let next = generate(&self.master_key, now, now + LEAD)?;
        let line = origin.did("signing_key.rotate", &next.kid);
        let platform = self.store.platform().with_audit_line(line);
        let retire_at = next.signs_from + GRACE;
        platform
            .succeed_signing_key(before, &next, retire_at)
            .await?;
        self.reload(now).await;
        Ok(())
    }

    /// Replaces all keys by a new one; the replaced keys stop verifying.
    pub(crate) async fn replace(
        &self,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<SigningKey, TenancyError> {
        let next = generate(&self.master_key, now, now)?;
        let line = origin.did("signing_key.replace", &next.kid);
        let line = line.saying("every access token that was issued before is refused");
        let platform = self.store.platform().with_audit_line(line);
        platform.replace_signing_keys(&next).await?;
        self.reload(now).await;
        Ok(next)
    }
}

impl SigningKeys {
    async fn load(
        store: &Store,
        master_key: &MasterKey,
        now: DateTime<Utc>,
    ) -> Result<Self, TenancyError> {
        let stored = store.platform().signing_keys(now).await?;
        let newest = stored.iter().find(|key| key.retired_at.is_none());
        let newest = newest.ok_or(TenancyError::NotFound("signing key"))?;
        let newest = Newest {
            kid: newest.kid.clone(),
            made_at: newest.created_at,
        };
        // Every stored key must open: a key that does not was sealed under another master key.
        let opened = stored.iter().map(|key| open(master_key, key));
        let mut signing = opened.collect::<Result<Vec<_>, _>>()?;
        signing.sort_by_key(|key| std::cmp::Reverse(key.from));
        let mut verifying = HashMap::new();
        for key in &stored {
            verifying.insert(
                key.kid.clone(),
                DecodingKey::from_ed_components(&key.public_key)?,
            );
        }
        let jwks = json!({ "keys": stored.iter().map(public).collect::<Vec<_>>() });
        Ok(Self {
            signing,
            verifying,
            newest,
            jwks,
        })
    }

    /// The key to sign with at `now`.
    pub(crate) fn signing(&self, now: DateTime<Utc>) -> Result<&Signing, TenancyError> {
        // Where this replica's clock is behind the clock of the replica that created the first key, no key has begun.
        let begun = self.signing.iter().find(|key| key.from <= now);
        begun
            .or(self.signing.last())
            .ok_or(TenancyError::NotFound("signing key"))
    }

    /// Whether the key named `kid` still verifies tokens.
    pub(crate) fn verifies(&self, kid: &str) -> bool {
        self.verifying.contains_key(kid)
    }

    /// The public halves as a JWK set (RFC 7517, RFC 8037).
    pub(crate) fn jwks(&self) -> &Value {
        &self.jwks
    }
}

fn public(key: &SigningKey) -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": key.kid, "x": key.public_key })
}

fn open(master_key: &MasterKey, key: &SigningKey) -> Result<Signing, TenancyError> {
    let pem = master_key.open(&SealOwner::signing_key(&key.kid), &key.private_sealed)?;
    Ok(Signing {
        kid: key.kid.clone(),
        key: EncodingKey::from_ed_pem(pem.as_bytes())?,
        from: key.signs_from,
    })
}

/// Generates a key. The key's name is the thumbprint of the public half (RFC 7638).
fn generate(
    master_key: &MasterKey,
    now: DateTime<Utc>,
    signs_from: DateTime<Utc>,
) -> Result<SigningKey, TenancyError> {
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
        signs_from,
        retired_at: None,
        kid,
    })
}
