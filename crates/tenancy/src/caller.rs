//! Who is calling.

use domain::{
    id::{KeyId, TenantId},
    scope::{Scope, ScopeSet},
    tenant::TenantLimits,
};

/// An operator's rate: high, so that no script is in the way, and there, so that no loop takes the gateway down.
pub(crate) const OPERATOR_LIMITS: TenantLimits = TenantLimits {
    requests_per_second: 1000,
    messages_per_day: None,
};

/// Who is calling: an authenticated key, with what it may do just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The key behind the access token.
    pub key: KeyId,
    /// The key's tenant; none: an operator.
    pub tenant: Option<TenantId>,
    /// What the access token may do: what was asked for, of what the key has.
    pub scopes: ScopeSet,
    /// What the tenant may use up.
    pub limits: TenantLimits,
}

/// The caller may not do this.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("this needs the scope `{0}`, which the access token does not have")]
pub struct MissingScope(pub Scope);

impl Caller {
    /// Lets only callers with `scope` pass.
    pub fn require(&self, scope: Scope) -> Result<(), MissingScope> {
        if self.scopes.contains(scope) {
            Ok(())
        } else {
            Err(MissingScope(scope))
        }
    }

    /// Whether this is an operator, who belongs to no tenant. What an operator may do is still a matter of scopes.
    pub fn is_operator(&self) -> bool {
        self.tenant.is_none()
    }
}
