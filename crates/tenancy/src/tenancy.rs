//! The entry point of the crate and the state that all modules share.

use std::sync::Arc;

use coord::Coord;
use domain::{
    id::{KeyId, Sequence, TenantId},
    seal::MasterKey,
    secret::Pepper,
};
use store::{Origin, Store};

use crate::{
    TenancyError, TenancyOptions,
    addresses::Addresses,
    drop_in_tokens::DropInTokens,
    key_status::KeyStatusCache,
    pepper,
    running::Running,
    signing::KeyRing,
    token::{TokenKind, Tokens},
};

/// The entry point of this crate. Clones are cheap and share all state and the origin.
#[derive(Clone)]
pub struct Tenancy(pub(crate) Arc<Inner>, pub(crate) Origin);

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) coord: Coord,
    pub(crate) addresses: Addresses,
    /// Counts requests for this replica alone, while the shared limits are unavailable.
    pub(crate) alone: Coord,
    pub(crate) master_key: MasterKey,
    pub(crate) pepper: Pepper,
    pub(crate) options: TenancyOptions,
    pub(crate) ring: KeyRing,
    pub(crate) tokens: Tokens,
    pub(crate) sessions: Tokens,
    pub(crate) drop_in: DropInTokens,
    pub(crate) standings: KeyStatusCache,
    pub(crate) ids: Sequence,
    pub(crate) running: Running,
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
    pub(crate) fn new_tenant_id(&self) -> TenantId {
        self.ids.id(self.coord.clock().now(), rand::random())
    }

    pub(crate) fn new_key_id(&self) -> KeyId {
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
