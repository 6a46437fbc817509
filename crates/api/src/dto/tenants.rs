//! Tenants in requests and answers.

use domain::tenant::TenantLimits;
use serde::{Deserialize, Serialize};
use store::TenantPatch;
use tenancy::TenancyError;
use utoipa::ToSchema;

use super::{nullable, time::Timestamp, words::TenantStatus};
use crate::{extract::object, problem::Problem};

/// A customer of the gateway.
#[derive(Debug, Serialize, ToSchema)]
pub struct Tenant {
    #[schema(example = "ten_01jq2xv1cde8sbw7mv9v6a5kzq")]
    id: String,
    #[schema(example = "Acme")]
    name: String,
    status: TenantStatus,
    limits: Limits,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// The limits of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Limits {
    /// API requests a second, over all keys of the tenant.
    #[schema(example = 100)]
    requests_per_second: u32,
    /// Messages accepted in one Beijing day; null: no limit but the apps' own quotas.
    #[schema(required = true)]
    messages_per_day: Option<u64>,
}

impl From<store::Tenant> for Tenant {
    fn from(tenant: store::Tenant) -> Self {
        let TenantLimits {
            requests_per_second,
            messages_per_day,
        } = tenant.limits;
        Self {
            id: tenant.id.to_string(),
            name: tenant.name,
            status: tenant.status.into(),
            limits: Limits {
                requests_per_second,
                messages_per_day,
            },
            created_at: tenant.created_at.into(),
            updated_at: tenant.updated_at.into(),
        }
    }
}

/// A tenant to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantRequest {
    /// The tenant's name, for operators.
    #[schema(min_length = 1, max_length = 100, example = "Acme")]
    name: String,
    /// The limits of the tenant; absent limits take their defaults.
    #[serde(default, deserialize_with = "object")]
    #[schema(required = false)]
    limits: LimitsPatch,
}

impl TenantRequest {
    /// The requested name and limits.
    pub(crate) fn split(self) -> (String, TenantLimits) {
        let default = TenantLimits::default();
        let limits = TenantLimits {
            requests_per_second: self
                .limits
                .requests_per_second
                .unwrap_or(default.requests_per_second),
            messages_per_day: self
                .limits
                .messages_per_day
                .unwrap_or(default.messages_per_day),
        };
        (self.name, limits)
    }
}

/// What to change of a tenant; absent fields stay unchanged.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantChanges {
    /// The tenant's name, for operators.
    #[schema(min_length = 1, max_length = 100, example = "Acme")]
    name: Option<String>,
    /// `suspended`: the gateway refuses the tenant's credentials and sends none of its messages.
    status: Option<TenantStatus>,
    #[serde(default, deserialize_with = "object")]
    #[schema(required = false)]
    limits: LimitsPatch,
}

impl From<TenantChanges> for TenantPatch {
    fn from(changes: TenantChanges) -> Self {
        Self {
            name: changes.name,
            status: changes.status.map(Into::into),
            requests_per_second: changes.limits.requests_per_second,
            messages_per_day: changes.limits.messages_per_day,
            known_at: None,
        }
    }
}

/// Limits to set; absent limits stay unchanged, or take their defaults.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::option_option,
    reason = "absent, null and a value are three things in a PATCH"
)]
pub(crate) struct LimitsPatch {
    /// API requests a second, over all keys of the tenant.
    #[schema(minimum = 1, maximum = 100_000, example = 100)]
    requests_per_second: Option<u32>,
    /// Messages accepted in one Beijing day; null removes the limit.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u64>)]
    messages_per_day: Option<Option<u64>>,
}

/// Moves the pointers of violations below `/limits`, the API's place of the limits: `tenancy` does not know the JSON.
pub(crate) fn refusal(error: TenancyError) -> Problem {
    match error {
        TenancyError::Invalid(mut found) => {
            for violation in &mut found {
                if matches!(
                    violation.pointer.as_str(),
                    "/requests_per_second" | "/messages_per_day"
                ) {
                    violation.pointer.insert_str(0, "/limits");
                }
            }
            Problem::validation_failed(found)
        }
        error => error.into(),
    }
}
