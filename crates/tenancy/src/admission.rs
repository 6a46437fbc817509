//! Admission: the rate limit of each tenant.

use std::time::Duration;

use coord::{Decision, RateLimit};

use crate::{Caller, Tenancy};

/// The smallest burst: a tenant with a low rate may still send ten requests at once.
const LEAST_BURST: u32 = 10;

/// The decision where even the in-process count fails, which does not happen.
const OPEN: Decision = Decision {
    allowed: true,
    limit: LEAST_BURST,
    remaining: LEAST_BURST,
    reset_after: Duration::ZERO,
    retry_after: Duration::ZERO,
};

impl Tenancy {
    /// Counts a request of `caller` against the tenant's requests per second; each operator key has a separate count.
    /// The requests of one second may come at once. While the shared count is unavailable, this replica counts alone.
    pub async fn admit(&self, caller: &Caller) -> Decision {
        let rate = caller.limits.requests_per_second;
        let quota = RateLimit::new(rate, Duration::from_secs(1), rate.max(LEAST_BURST));
        let key = match caller.tenant {
            Some(tenant) => format!("requests/{tenant}"),
            None => format!("requests/{}", caller.key),
        };
        self.count(&key, quota).await
    }

    /// Takes one from a bucket that all replicas share; from a bucket of this replica while the shared one is
    /// unavailable.
    pub(crate) async fn count(&self, key: &str, quota: RateLimit) -> Decision {
        let inner = &*self.0;
        match inner.coord.limits().check(key, quota, 1).await {
            Ok(decision) => decision,
            Err(error) => {
                tracing::debug!(%error, "counting requests for this replica only, because the shared count is unavailable");
                let alone = inner.alone.limits().check(key, quota, 1).await;
                alone.unwrap_or(OPEN)
            }
        }
    }
}
