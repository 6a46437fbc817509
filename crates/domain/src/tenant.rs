//! Tenants: the customers of the gateway.

use serde::{Deserialize, Serialize};

/// Whether a tenant may use the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantStatus {
    /// The tenant may use the gateway.
    #[default]
    Active,
    /// The tenant may not use the gateway: the gateway refuses the tenant's credentials and sends none of the messages.
    Suspended,
}

/// The limits of a tenant's use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantLimits {
    /// API requests a second, over all keys of the tenant.
    pub requests_per_second: u32,
    /// Messages accepted in one Beijing day; `None`: only the quotas of the apps apply.
    pub messages_per_day: Option<u64>,
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self {
            requests_per_second: 100,
            messages_per_day: None,
        }
    }
}
