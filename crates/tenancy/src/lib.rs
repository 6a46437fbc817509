//! Authentication and rate limits: tenants, API keys, access tokens and admission.
//!
//! The gateway shows a client secret once, when the key is created. [`Tenancy::issue_token`] exchanges the secret for
//! an access token (a JWT, RFC 9068), which every other request carries. [`Tenancy::authenticate`] turns the token into
//! a [`Caller`], [`Caller::require`] checks a scope, and [`Tenancy::admit`] enforces the tenant's rate limit.
//! [`Tenancy::sign_in`] exchanges the same secret for a console session, which [`Tenancy::authenticate_session`]
//! accepts and no other function does.
//!
//! **Every replica refuses a revoked key or a suspended tenant within 5 seconds:** a replica may cache a verified
//! token, but caches the standing of the key for 3 seconds only. While the database is down, the last known standing
//! counts for up to a minute; after that callers are asked to try again later.
//!
//! [`Tenancy::by`] names the origin of a request: the audit log records every change, in the transaction of the change.
//!
//! To add a scope: one line in `domain::scope`. To add a claim: `token::Claims`, where tokens are signed and where
//! tokens are verified. To add a rule for keys or tenants: the module of that noun, and a test in `tests/`.
//!
//! ```no_run
//! # async fn example(tenancy: wxgate_tenancy::Tenancy, bearer: &str) -> Result<(), Box<dyn std::error::Error>> {
//! use domain::scope::Scope;
//!
//! let caller = tenancy.authenticate(bearer).await?;
//! caller.require(Scope::MessagesSend)?;
//! assert!(tenancy.admit(&caller).await.allowed);
//! # Ok(())
//! # }
//! ```

mod addresses;
mod bearer;
mod caller;
mod client_secret;
mod drop_in;
mod error;
mod idempotency;
mod key_status;
mod keys;
mod oauth;
mod pepper;
mod proof;
mod reseal;
mod signing;
mod tenants;
mod token;

use std::{sync::Arc, time::Duration};

use coord::Coord;
use domain::{
    id::{KeyId, Sequence, TenantId},
    seal::MasterKey,
    secret::Pepper,
};
use store::{Origin, Store};

pub use addresses::{ClientAddress, Network};
pub use caller::{Caller, MissingScope};
pub use coord::Decision;
pub use error::{AuthError, OauthError, TenancyError};
pub use idempotency::{IdempotencyGuard, IdempotencyState};
pub use keys::{CreatedKey, KeyOwner, NewKey};
pub use oauth::IssuedToken;
pub use proof::{ProvenMarker, UnprovenLimitReached};
pub use reseal::Resealed;
pub use store::{Descendants, Keep, Key, Listing, Page, SigningKey, Tenant, TenantPatch};

use crate::{
    addresses::Addresses,
    drop_in::DropInTokens,
    idempotency::Running,
    key_status::KeyStatusCache,
    signing::KeyRing,
    token::{TokenKind, Tokens},
};

/// The entry point of this crate. Clones are cheap and share all state and the origin.
#[derive(Clone)]
pub struct Tenancy(Arc<Inner>, Origin);

struct Inner {
    store: Store,
    coord: Coord,
    addresses: Addresses,
    /// Counts requests for this replica alone, while the shared limits are unavailable.
    alone: Coord,
    master_key: MasterKey,
    pepper: Pepper,
    options: TenancyOptions,
    ring: KeyRing,
    tokens: Tokens,
    sessions: Tokens,
    drop_in: DropInTokens,
    standings: KeyStatusCache,
    ids: Sequence,
    running: Running,
}

/// The claims and lifetime of access tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenancyOptions {
    /// The `iss` of tokens: the gateway's public URL, without a slash at the end.
    pub issuer: String,
    /// The `aud` of tokens.
    pub audience: String,
    /// The lifetime of a token.
    pub token_ttl: Duration,
}

impl TenancyOptions {
    /// The options of a gateway with the public URL `public_url`: issuer and audience are that URL, the lifetime is 15
    /// minutes.
    pub fn at(public_url: &str) -> Self {
        let url = public_url.trim_end_matches('/').to_owned();
        Self {
            issuer: url.clone(),
            audience: url,
            token_ttl: Duration::from_mins(15),
        }
    }
}

impl Tenancy {
    /// Loads the keys that sign tokens, or creates the first one.
    ///
    /// Fails with [`TenancyError::MasterKey`] when `master_key` is not the key that this database was created with.
    pub async fn start(
        store: Store,
        coord: Coord,
        master_key: MasterKey,
        options: TenancyOptions,
    ) -> Result<Self, TenancyError> {
        let now = coord.clock().now();
        let pepper = pepper::open(&store, &master_key, now).await?;
        let ring = KeyRing::open(&store, &master_key, now).await?;
        let inner = Inner {
            addresses: Addresses::new(),
            alone: Coord::in_process(coord.clock().clone()),
            tokens: Tokens::new(TokenKind::Access, &options),
            sessions: Tokens::new(TokenKind::Session, &options),
            drop_in: DropInTokens::new(&options),
            standings: KeyStatusCache::new(store.clone(), coord.clock().clone()),
            ids: Sequence::default(),
            running: Running::default(),
            store,
            coord,
            master_key,
            pepper,
            options,
            ring,
        };
        Ok(Self(Arc::new(inner), Origin::GATEWAY))
    }

    /// The same tenancy for requests from `origin`: the audit log names `origin` for each change, and failures count
    /// against the address of `origin`.
    #[must_use]
    pub fn by(&self, origin: Origin) -> Self {
        Self(Arc::clone(&self.0), origin)
    }
}

impl Inner {
    fn new_tenant_id(&self) -> TenantId {
        self.ids.id(self.coord.clock().now(), rand::random())
    }

    fn new_key_id(&self) -> KeyId {
        self.ids.id(self.coord.clock().now(), rand::random())
    }
}

impl std::fmt::Debug for Tenancy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tenancy")
            .field("options", &self.0.options)
            .finish_non_exhaustive()
    }
}
