//! Proof of the AppSecret of an app that is to be registered, whether or not another tenant has the app.
//!
//! Only a caller with the right AppSecret learns that another tenant has registered the app: WeChat's refusal of a
//! wrong AppSecret comes first, and is the same for every appid. The check does not affect the present owner. A tenant
//! may try one appid only some times a minute, because WeChat counts every try against the account.

use std::time::Duration;

use broker::Proof;
use coord::RateLimit;
use domain::id::TenantId;
use store::StoreError;

use super::{AppError, Apps, Registration, refusal};

/// How often a tenant may try to register one appid, at once and then in a minute.
const TRIALS: u32 = 10;

impl Apps {
    /// Proves that the tenant has the AppSecret of a new app, and that no tenant has registered the app.
    pub(super) async fn prove_new(
        &self,
        tenant: TenantId,
        new: &Registration,
    ) -> Result<Proof, AppError> {
        self.admit_trial(tenant, new).await?;
        let wording = |error| refusal(&error, self.coord.clock().now());
        let trial = self.broker.check_secret(&new.appid, &new.secret).await;
        let trial = trial.map_err(wording);
        let trial = self
            .noted(tenant, "app.register", &new.appid, trial)
            .await?;
        match self.store.platform().app(&new.appid).await {
            Ok(_) => return Err(AppError::Taken),
            Err(StoreError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let proof = self
            .broker
            .prove_tried(&new.appid, &new.secret, new.token_mode, trial)
            .await
            .map_err(wording);
        self.noted(tenant, "app.register", &new.appid, proof).await
    }

    async fn admit_trial(&self, tenant: TenantId, new: &Registration) -> Result<(), AppError> {
        let key = format!("app-trials:{tenant}:{}", new.appid);
        let quota = RateLimit::new(TRIALS, Duration::from_mins(1), TRIALS);
        match self.coord.limits().check(&key, quota, 1).await {
            Ok(decision) if !decision.allowed => Err(AppError::TooOften {
                retry_after: decision.retry_after,
                detail: format!(
                    "the gateway tries an appid at most {TRIALS} times a minute: wait as long as Retry-After says, and look up the AppSecret in WeChat's console"
                ),
            }),
            // While Redis is away, only the tenant's own rate limit applies.
            _ => Ok(()),
        }
    }
}
