//! Who is calling.

use chrono::{DateTime, Utc};
use domain::{
    id::{KeyId, TenantId},
    scope::{Scope, ScopeSet},
    tenant::TenantLimits,
};
use store::{Actor, Credential};

/// An operator's rate: high, so that no script is in the way, and there, so that no loop takes the gateway down.
const OPERATOR_LIMITS: TenantLimits = TenantLimits {
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
    /// When the key ends; none: never.
    pub expires_at: Option<DateTime<Utc>>,
    /// What the tenant may use up.
    pub limits: TenantLimits,
}

/// The caller may not do this.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("this needs the scope `{0}`, which the access token does not have")]
pub struct MissingScope(pub Scope);

impl Caller {
    /// Whoever has this key, with these of its scopes.
    pub(crate) fn of(credential: &Credential, scopes: ScopeSet) -> Self {
        let limits = credential.tenant.as_ref().map(|tenant| tenant.limits);
        Self {
            key: credential.key.id,
            tenant: credential.key.tenant,
            scopes,
            expires_at: credential.key.expires_at,
            limits: limits.unwrap_or(OPERATOR_LIMITS),
        }
    }

    /// Lets only callers with `scope` pass.
    pub fn require(&self, scope: Scope) -> Result<(), MissingScope> {
        if self.scopes.contains(scope) {
            Ok(())
        } else {
            Err(MissingScope(scope))
        }
    }

    /// Who this is in the audit log.
    pub(crate) fn actor(&self) -> Actor {
        if self.is_operator() {
            Actor::Operator(self.key)
        } else {
            Actor::Key(self.key)
        }
    }

    /// Whether this is an operator, who belongs to no tenant. What an operator may do is still a matter of scopes.
    pub fn is_operator(&self) -> bool {
        self.tenant.is_none()
    }
}
