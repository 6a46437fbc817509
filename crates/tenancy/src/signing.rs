//! The Ed25519 keys that sign access tokens. They live in the database, their private halves sealed under the
//! master key, so that all replicas sign and verify with the same ones.
//!
//! A key has a successor when it is 90 days old, or when an operator wants one. The successor is published at once and
//! signs only after [`LEAD`], when every replica and everybody who caches the JWK set knows it; the key before verifies
//! for [`GRACE`] longer than that. So no token is refused over it.
//!
//! A key that was stolen is *replaced*: the new one signs at once and the others verify nothing any more. Every replica
//! looks for that while it verifies, at most every [`LOOK_EVERY`], so their tokens are refused within 5 seconds.

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

/// How old a look may be when a token is verified, and how often one with an unknown key may make us look.
const LOOK_EVERY: TimeDelta = TimeDelta::seconds(2);
/// How often the age of the newest key is looked at.
const REGULARLY: TimeDelta = TimeDelta::minutes(1);
/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// The age at which a key gets its successor.
const AGE: TimeDelta = TimeDelta::days(90);
/// How long a key is published before it signs: the JWK set may be cached for five minutes.
const LEAD: TimeDelta = TimeDelta::minutes(10);
/// How long a key verifies after its successor has begun to sign: much longer than its last token is good.
const GRACE: TimeDelta = TimeDelta::hours(3);

/// The keys of all replicas, as this one knows them.
pub(crate) struct KeyRing {
    store: Store,
    master_key: MasterKey,
    keys: RwLock<Arc<Keys>>,
    /// When the database was last asked, whether it answered or not: milliseconds since 1970.
    asked_at: AtomicI64,
    /// Held while looking, so that a crowd looks once.
    looks: tokio::sync::Mutex<Looks>,
}

/// When something was last done that is not done each time.
struct Looks {
    /// A look at the age of the newest key.
    regular: DateTime<Utc>,
    /// A look for the sake of a token with an unknown key.
    special: DateTime<Utc>,
}

/// What was in the database at one look.
pub(crate) struct Keys {
    /// The keys to sign with, the one that begins last first.
    signing: Vec<Signing>,
    verifying: HashMap<String, DecodingKey>,
    /// The key that has no successor.
    newest: Newest,
    jwks: Value,
}

struct Newest {
    kid: String,
    made_at: DateTime<Utc>,
}

/// A key to sign with.
pub(crate) struct Signing {
    /// Its name.
    pub(crate) kid: String,
    /// The key.
    pub(crate) key: EncodingKey,
    from: DateTime<Utc>,
}

impl KeyRing {
    /// Loads the keys; makes one where there is none.
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
        let keys = Keys::load(store, master_key, now).await?;
        Ok(Self {
            store: store.clone(),
            master_key: master_key.clone(),
            keys: RwLock::new(Arc::new(keys)),
            asked_at: AtomicI64::new(now.timestamp_millis()),
            looks: tokio::sync::Mutex::new(Looks {
                regular: now,
                special: DateTime::UNIX_EPOCH,
            }),
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
        let mut looks = self.looks.lock().await;
        if (now - looks.special).abs() >= LOOK_EVERY {
            looks.special = now;
            self.look_now(now).await;
        }
        self.keys().verifying.get(kid).cloned()
    }

    /// Looks for new keys, and for those that are not to be believed any more, if the last look is too old. One request
    /// does that; the others go on with what is known, unless that is much too old. While the database is away, the last
    /// look counts: the standing of API keys ends that after a minute.
    pub(crate) async fn keep_up(&self, now: DateTime<Utc>) {
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
            self.look_now(now).await;
        }
    }

    fn age(&self, now: DateTime<Utc>) -> TimeDelta {
        let asked_at = self.asked_at.load(Ordering::Relaxed);
        TimeDelta::milliseconds((now.timestamp_millis() - asked_at).abs())
    }

    /// Keeps up, and makes a new key if the newest is old. One request a minute looks at its age.
    pub(crate) async fn look(&self, now: DateTime<Utc>) {
        self.keep_up(now).await;
        let Ok(mut looks) = self.looks.try_lock() else {
            return;
        };
        if (now - looks.regular).abs() < REGULARLY {
            return;
        }
        looks.regular = now;
        let keys = self.keys();
        if keys.newest.made_at + AGE <= now
            && let Err(error) = self.succeed(&keys.newest.kid, &Origin::GATEWAY, now).await
        {
            tracing::error!(%error, "the key that signs access tokens is old, and has no successor");
        }
    }

    async fn look_now(&self, now: DateTime<Utc>) {
        self.asked_at
            .store(now.timestamp_millis(), Ordering::Relaxed);
        let look = Keys::load(&self.store, &self.master_key, now);
        match tokio::time::timeout(PATIENCE, look).await {
            Ok(Ok(keys)) => {
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
            }
            Ok(Err(error)) => tracing::warn!(%error, "cannot look for new signing keys"),
            Err(_) => tracing::warn!("cannot look for new signing keys: the database is slow"),
        }
    }

    /// Gives the newest key a successor, and returns the one that is the newest then: where another replica was faster,
    /// it is that one's.
    pub(crate) async fn rotate(
        &self,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<SigningKey, TenancyError> {
        let before = self.store.platform().newest_signing_key().await?;
        self.succeed(&before.kid, origin, now).await?;
        Ok(self.store.platform().newest_signing_key().await?)
    }

    /// Gives the key named `before` a successor, if it has none.
    async fn succeed(
        &self,
        before: &str,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<(), TenancyError> {
        let next = generate(&self.master_key, now, now + LEAD)?;
        let line = origin.did("signing_key.rotate", &next.kid);
        let platform = self.store.platform().on_record(line);
        let retire_at = next.signs_from + GRACE;
        platform
            .succeed_signing_key(before, &next, retire_at)
            .await?;
        self.look_now(now).await;
        Ok(())
    }

    /// Puts a new key in the place of all others, which verify nothing any more.
    pub(crate) async fn replace(
        &self,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<SigningKey, TenancyError> {
        let next = generate(&self.master_key, now, now)?;
        let line = origin.did("signing_key.replace", &next.kid);
        let line = line.saying("every access token that was issued before is refused");
        let platform = self.store.platform().on_record(line);
        platform.replace_signing_keys(&next).await?;
        self.look_now(now).await;
        Ok(next)
    }
}

impl Keys {
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
        // Every key that may sign must open: one that does not is another master key at work on this database.
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
        // A clock that is behind that of whoever made the first key finds none that has begun.
        let begun = self.signing.iter().find(|key| key.from <= now);
        begun
            .or(self.signing.last())
            .ok_or(TenancyError::NotFound("signing key"))
    }

    /// Whether tokens of the key named `kid` are good.
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

/// A fresh key. Its name is the thumbprint of its public half (RFC 7638).
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
