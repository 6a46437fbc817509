//! Who may call, and how often: tenants, API keys, access tokens and admission.
//!
//! A client secret is shown once, when its key is made, and proves that key in [`Tenancy::issue_token`]. The
//! access token that comes back (a JWT, RFC 9068) is what every other request carries;
//! [`Tenancy::authenticate`] turns it into a [`Caller`], [`Caller::require`] asks for a scope, and
//! [`Tenancy::admit`] keeps a tenant to its rate. Who looks at the console proves the same secret in
//! [`Tenancy::sign_in`], for a session that [`Tenancy::authenticate_session`] knows and no other door.
//!
//! **A revoked key or a suspended tenant is refused within 5 seconds on every replica:** a verified token may be
//! remembered, the standing of its key only for 3 seconds. When the database is away, the last known standing
//! counts for up to a minute; after that callers are told to come back.
//!
//! Whoever asks is named by [`Tenancy::by`]: every change is on record in the audit log, in the same transaction.
//!
//! To add a scope: one line in `domain::scope`. To add a claim: `token::Claims`, both where it is signed and
//! where it is believed. To add a rule for keys or tenants: the module of that noun, and a test in `tests/`.
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
mod answers;
mod bearer;
mod caller;
mod client_secret;
mod drop_in;
mod error;
mod keys;
mod oauth;
mod pepper;
mod proof;
mod reseal;
mod signing;
mod standing;
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
pub use answers::{Held, Turn};
pub use caller::{Caller, MissingScope};
pub use coord::Decision;
pub use error::{AuthError, OauthError, TenancyError, TenancyErrorKind};
pub use keys::{CreatedKey, KeyOwner, NewKey};
pub use oauth::IssuedToken;
pub use proof::{NoRoom, Proof};
pub use reseal::Resealed;
pub use store::{Descendants, Keep, Key, Listing, Page, SigningKey, Tenant, TenantPatch};

use crate::{
    addresses::Addresses,
    answers::Running,
    drop_in::DropInTokens,
    signing::KeyRing,
    standing::Standings,
    token::{TokenKind, Tokens},
};

/// Who may call, and how often. Cheap to clone; clones are the same thing, asked by the same one.
#[derive(Clone)]
pub struct Tenancy(Arc<Inner>, Origin);

struct Inner {
    store: Store,
    coord: Coord,
    addresses: Addresses,
    /// Counts requests of this replica alone, while the shared limits are away.
    alone: Coord,
    master_key: MasterKey,
    pepper: Pepper,
    options: TenancyOptions,
    ring: KeyRing,
    tokens: Tokens,
    sessions: Tokens,
    drop_in: DropInTokens,
    standings: Standings,
    ids: Sequence,
    running: Running,
}

/// What access tokens say about themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenancyOptions {
    /// The `iss` of tokens: the gateway's public URL, without a slash at its end.
    pub issuer: String,
    /// The `aud` of tokens.
    pub audience: String,
    /// How long a token is good.
    pub token_ttl: Duration,
}

impl TenancyOptions {
    /// For a gateway that the world reaches at `public_url`: it issues tokens for itself, good for 15 minutes.
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
    /// Loads the keys that sign tokens, or makes the first one.
    ///
    /// Says so when `master_key` is not the one that this database was created with.
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
            standings: Standings::new(store.clone(), coord.clock().clone()),
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

    /// The same, asked by `origin`: what it changes is on record with it, and its address must not fail too often.
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
