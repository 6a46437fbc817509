//! A test gateway: the tenancy of a gateway on a private SQLite database.

use std::time::Duration;

use chrono::{DateTime, Utc};
use coord::{Clock, Coord, ManualClock};
use domain::{id::TenantId, seal::MasterKey, secret::ClientSecret, tenant::TenantLimits};
use store::Store;
use tempfile::TempDir;
use wxgate_tenancy::{
    CreatedKey, IssuedToken, KeyOwner, NewKey, Page, Tenancy, TenancyError, TenancyOptions,
};

pub(crate) const URL: &str = "https://gateway.example";

pub(crate) struct Gate {
    pub(crate) tenancy: Tenancy,
    pub(crate) time: ManualClock,
    pub(crate) store: Store,
    clock: Clock,
    coord: Coord,
    folder: TempDir,
}

pub(crate) fn master_key(byte: u8) -> MasterKey {
    MasterKey::from_bytes([byte; 32])
}

pub(crate) fn start() -> DateTime<Utc> {
    "2026-03-01T10:00:00Z".parse().unwrap()
}

pub(crate) fn first(limit: u64) -> Page {
    Page { limit, after: None }
}

pub(crate) fn ask(scopes: &str) -> NewKey {
    NewKey {
        name: "a key".into(),
        scopes: scopes.parse().unwrap(),
        expires_at: None,
    }
}

impl Gate {
    pub(crate) async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (clock, time) = Clock::manual(start());
        let store = connect(&folder).await;
        store.migrate_up().await.unwrap();
        let coord = Coord::in_process(clock.clone());
        let options = TenancyOptions::at(URL);
        let tenancy = Tenancy::start(store.clone(), coord.clone(), master_key(1), options)
            .await
            .unwrap();
        Self {
            tenancy,
            time,
            store,
            clock,
            coord,
            folder,
        }
    }

    /// Another replica on the same database, with separate connections.
    pub(crate) async fn replica(&self) -> Tenancy {
        self.start(master_key(1), TenancyOptions::at(URL))
            .await
            .unwrap()
    }

    pub(crate) async fn start(
        &self,
        master_key: MasterKey,
        options: TenancyOptions,
    ) -> Result<Tenancy, TenancyError> {
        let store = connect(&self.folder).await;
        Tenancy::start(
            store,
            Coord::in_process(self.clock.clone()),
            master_key,
            options,
        )
        .await
    }

    /// Another replica with the same `Coord` as the first replica.
    pub(crate) async fn close_replica(&self) -> Tenancy {
        let store = connect(&self.folder).await;
        let (coord, options) = (self.coord.clone(), TenancyOptions::at(URL));
        let replica = Tenancy::start(store, coord, master_key(1), options).await;
        replica.unwrap()
    }

    /// A replica without Redis: no process listens on port 1.
    pub(crate) async fn without_redis(&self) -> Tenancy {
        let coord = Coord::redis("redis://127.0.0.1:1", self.clock.clone()).unwrap();
        let store = self.store.clone();
        Tenancy::start(store, coord, master_key(1), TenancyOptions::at(URL))
            .await
            .unwrap()
    }

    pub(crate) async fn tenant(&self) -> TenantId {
        self.tenancy
            .create_tenant("Tea House", TenantLimits::default())
            .await
            .unwrap()
            .id
    }

    /// Creates a key of a new tenant.
    pub(crate) async fn key(&self, scopes: &str) -> CreatedKey {
        let owner = KeyOwner::Tenant(self.tenant().await);
        self.tenancy
            .create_key(owner, ask(scopes), None)
            .await
            .unwrap()
    }

    pub(crate) async fn token(&self, secret: &ClientSecret) -> String {
        let issued: IssuedToken = self.tenancy.issue_token(None, secret, None).await.unwrap();
        issued.access_token.expose().to_owned()
    }

    pub(crate) fn pass(&self, seconds: u64) {
        self.time.advance(Duration::from_secs(seconds));
    }
}

async fn connect(folder: &TempDir) -> Store {
    Store::connect(&format!("sqlite://{}/wxgate.db", folder.path().display()))
        .await
        .unwrap()
}
