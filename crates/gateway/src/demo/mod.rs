//! The demo of `wxgate dev`: a tenant, its keys and app, two messages over the public API, and commands to paste.

mod client;
mod guide;
mod templates;

use std::path::{Path, PathBuf};

use delivery::{AppError, CallbackSettings, Registration};
use domain::{
    app::{AppId, AppKind, TokenMode},
    id::TenantId,
    scope::ScopeSet,
    secret::{AppSecret, ClientSecret},
    tenant::{TenantLimits, TenantStatus},
};
use serde::{Deserialize, Serialize};
use store::TenantPatch;
use tenancy::{KeyOwner, NewKey};

pub(crate) use client::DemoClient;
pub(crate) use guide::{Guide, answer};
pub(crate) use templates::furnish;

use crate::{failure::Failure, gateway::Gateway, master_key::create_private};

/// The appid of the demo's mini-program.
const APPID: &str = "wxde00000000000001";
/// The file with the demo's keys, beside the database.
const FILE: &str = "dev.json";

/// The objects of the demo.
#[derive(Debug)]
pub(crate) struct Demo {
    /// The tenant of the demo.
    pub(crate) tenant: TenantId,
    /// The app of the demo.
    pub(crate) appid: AppId,
    /// The keys of the demo.
    pub(crate) keys: DemoKeys,
    /// The recipient of the demo's messages, new at each start: a send that a killed start left in flight delays
    /// messages to the same recipient until its lease ends.
    pub(crate) openid: String,
    /// The file with the keys.
    pub(crate) file: PathBuf,
}

/// The keys of the demo. The gateway does not store the secrets of keys, so the demo stores these itself.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct DemoKeys {
    /// The operator's key, with all scopes.
    pub(crate) operator: DemoCredentials,
    /// The tenant's key, with all scopes of a tenant.
    pub(crate) tenant: DemoCredentials,
}

/// The client id and client secret of a key.
#[derive(Deserialize, Serialize)]
pub(crate) struct DemoCredentials {
    /// The client id.
    pub(crate) client_id: String,
    /// The client secret.
    pub(crate) client_secret: String,
}

impl std::fmt::Debug for DemoCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.client_id)
    }
}

impl Demo {
    /// Finds the demo that an earlier start left in `folder`, and creates the missing objects.
    pub(crate) async fn prepare(gateway: &Gateway, folder: &Path) -> Result<Self, Failure> {
        let appid =
            AppId::parse(APPID).map_err(|error| Failure::new("internal", error.to_string()))?;
        let tenant = match gateway.delivery().apps().get(None, &appid).await {
            Ok(app) => reopen(gateway, app.tenant, &appid).await?,
            Err(AppError::NotFound) => onboard(gateway, &appid).await?,
            Err(error) => return Err(error.into()),
        };
        let file = folder.join(FILE);
        let keys = match remembered(&file) {
            Some(keys) if still_good(gateway, &keys, tenant).await => keys,
            _ => {
                let keys = make_keys(gateway, tenant).await?;
                remember(&file, &keys)?;
                keys
            }
        };
        Ok(Self {
            tenant,
            appid,
            keys,
            openid: format!("oDEMO-{:022x}", rand::random::<u64>()),
            file,
        })
    }
}

async fn onboard(gateway: &Gateway, appid: &AppId) -> Result<TenantId, Failure> {
    let tenant = gateway
        .tenancy()
        .create_tenant("demo", TenantLimits::default())
        .await?
        .id;
    let registration = Registration {
        appid: appid.clone(),
        secret: AppSecret::new("demo-secret-any-will-do"),
        name: "Demo mini-program".to_owned(),
        kind: AppKind::MiniProgram,
        token_mode: TokenMode::Stable,
        daily_quota: None,
        grant_policy: domain::grant::GrantPolicy::default(),
        value_rules: domain::app::ValueRules::default(),
        verify: true,
        callback: CallbackSettings::default(),
    };
    gateway
        .delivery()
        .apps()
        .register(tenant, registration)
        .await?;
    Ok(tenant)
}

/// Reverts changes that a user may have made to the demo: activates the tenant and verifies the app.
async fn reopen(gateway: &Gateway, tenant: TenantId, appid: &AppId) -> Result<TenantId, Failure> {
    if gateway.tenancy().tenant(tenant).await?.status != TenantStatus::Active {
        let active = TenantPatch {
            status: Some(TenantStatus::Active),
            ..TenantPatch::default()
        };
        gateway.tenancy().update_tenant(tenant, active).await?;
    }
    gateway.delivery().apps().verify(tenant, appid).await?;
    Ok(tenant)
}

fn remembered(file: &Path) -> Option<DemoKeys> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

fn remember(file: &Path, keys: &DemoKeys) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(keys)
        .map_err(|error| Failure::new("internal", error.to_string()))?;
    let written = match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => create_private(file, &format!("{text}\n")),
    };
    written.map_err(|error| Failure::new("settings", format!("cannot write {} ({error}): make the folder writable, or choose another folder with WXGATE_DATABASE_URL", file.display())))
}

/// Whether both keys are still valid in this database, and the tenant's key belongs to this tenant.
async fn still_good(gateway: &Gateway, keys: &DemoKeys, tenant: TenantId) -> bool {
    let tenancy = gateway.tenancy();
    for (key, owner) in [(&keys.operator, None), (&keys.tenant, Some(tenant))] {
        let secret = ClientSecret::new(key.client_secret.as_str());
        let Ok(token) = tenancy
            .issue_token(Some(&key.client_id), &secret, None)
            .await
        else {
            return false;
        };
        let caller = tenancy.authenticate(token.access_token.expose()).await;
        if !caller.is_ok_and(|caller| caller.tenant == owner) {
            return false;
        }
    }
    true
}

async fn make_keys(gateway: &Gateway, tenant: TenantId) -> Result<DemoKeys, Failure> {
    let mut made = Vec::new();
    for (owner, scopes) in [
        (KeyOwner::Operator, ScopeSet::all()),
        (KeyOwner::Tenant(tenant), ScopeSet::tenant()),
    ] {
        let new = NewKey {
            name: "wxgate dev".to_owned(),
            scopes,
            expires_at: None,
        };
        let created = gateway.tenancy().create_key(owner, new, None).await?;
        made.push(DemoCredentials {
            client_id: created.key.id.to_string(),
            client_secret: created.secret.expose().to_owned(),
        });
    }
    let missing = || Failure::new("internal", "the demo's keys were not made");
    let (tenant, operator) = (
        made.pop().ok_or_else(missing)?,
        made.pop().ok_or_else(missing)?,
    );
    Ok(DemoKeys { operator, tenant })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::os::unix::fs::PermissionsExt;

    async fn start(folder: &Path, wechat: &simulator::Simulator) -> Gateway {
        let url = format!("sqlite://{}/wxgate.db", folder.display());
        let master_key = domain::seal::MasterKey::from_bytes([7; 32]);
        let config = Config {
            wechat_base_url: wechat.base_url(),
            ..Config::new(&url, None, master_key).unwrap()
        };
        Gateway::start(config, coord::Clock::system())
            .await
            .unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_second_start_finds_everything_and_repairs_what_was_played_with() {
        let folder = tempfile::tempdir().unwrap();
        let wechat = simulator::Simulator::start(simulator::Options::default())
            .await
            .unwrap();
        let gateway = start(folder.path(), &wechat).await;
        let first = Demo::prepare(&gateway, folder.path()).await.unwrap();
        let suspended = TenantPatch {
            status: Some(TenantStatus::Suspended),
            ..TenantPatch::default()
        };
        gateway
            .tenancy()
            .update_tenant(first.tenant, suspended)
            .await
            .unwrap();
        assert!(gateway.stop().await);
        wechat.stop().await;
        assert_eq!(
            std::fs::metadata(&first.file).unwrap().permissions().mode() & 0o777,
            0o600
        );

        let wechat = simulator::Simulator::start(simulator::Options::default())
            .await
            .unwrap();
        let gateway = start(folder.path(), &wechat).await;
        let second = Demo::prepare(&gateway, folder.path()).await.unwrap();
        assert_eq!(
            (second.tenant, &second.keys.tenant.client_id),
            (first.tenant, &first.keys.tenant.client_id)
        );
        std::fs::write(&second.file, "{}").unwrap();
        let third = Demo::prepare(&gateway, folder.path()).await.unwrap();
        assert_eq!(third.tenant, first.tenant);
        assert_ne!(third.keys.tenant.client_id, first.keys.tenant.client_id);

        let client = DemoClient::sign_in(&gateway.local_url(), &third.keys.tenant)
            .await
            .unwrap();
        for message in client.send_demo(&third).await.unwrap() {
            assert_eq!(message["status"], "sent", "{message}");
        }
        assert!(gateway.stop().await);
    }
}
