//! Proving the AppSecret of an app that is to be registered, whoever has the app already.
//!
//! Only who has an app's AppSecret is told that another tenant has registered it: WeChat's refusal of a wrong one comes
//! first, and is the same for every appid. The trial does the present owner no harm, and a tenant may try an appid some
//! times a minute only, because WeChat counts every try against the account.

use std::time::Duration;

use broker::Proof;
use coord::Quota;
use domain::id::TenantId;
use store::StoreError;

use super::{AppError, Apps, Registration, refusal};

/// How often a tenant may try to register one appid, at once and then in a minute.
const TRIALS: u32 = 10;

impl Apps {
    /// Proves that the tenant has the AppSecret of a new app, and that nobody has registered the app.
    pub(super) async fn prove_new(
        &self,
        tenant: TenantId,
        new: &Registration,
    ) -> Result<Proof, AppError> {
        self.admit_trial(tenant, new).await?;
        let wording = |error| refusal(&error, self.coord.clock().now());
        let trial = self.broker.try_secret(&new.appid, &new.secret).await;
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
        let quota = Quota::new(TRIALS, Duration::from_mins(1), TRIALS);
        match self.coord.limits().check(&key, quota, 1).await {
            Ok(decision) if !decision.allowed => Err(AppError::TooOften {
                retry_after: decision.retry_after,
                detail: format!(
                    "an appid may be tried {TRIALS} times a minute: wait as long as Retry-After says, and look up the AppSecret in WeChat's console"
                ),
            }),
            // While Redis is away the tenant's own rate is what limits it.
            _ => Ok(()),
        }
    }
}
