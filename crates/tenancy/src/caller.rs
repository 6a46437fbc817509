//! The authenticated caller of a request.

use chrono::{DateTime, Utc};
use domain::{
    id::{KeyId, TenantId},
    scope::{Scope, ScopeSet},
    tenant::TenantLimits,
};
use store::{Actor, Credential};

/// An operator's limits: high enough for every script, low enough that a script in a loop does not overload the
/// gateway.
const OPERATOR_LIMITS: TenantLimits = TenantLimits {
    requests_per_second: 1000,
    messages_per_day: None,
};

/// The caller of a request: an authenticated key, with the scopes and limits of this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The key behind the access token.
    pub key: KeyId,
    /// The key's tenant; `None` for an operator.
    pub tenant: Option<TenantId>,
    /// What the access token may do: the requested scopes, of those that the key has.
    pub scopes: ScopeSet,
    /// When the key expires; `None`: never.
    pub expires_at: Option<DateTime<Utc>>,
    /// The limits of the tenant, or of an operator.
    pub limits: TenantLimits,
}

/// The caller's access token lacks this scope.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("this request needs the scope `{0}`, which the access token does not have")]
pub struct MissingScope(pub Scope);

impl Caller {
    /// The caller that holds this key, limited to `scopes`.
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

    /// Fails unless the caller has `scope`.
    pub fn require(&self, scope: Scope) -> Result<(), MissingScope> {
        if self.scopes.contains(scope) {
            Ok(())
        } else {
            Err(MissingScope(scope))
        }
    }

    /// The caller's name in the audit log.
    pub(crate) fn actor(&self) -> Actor {
        match self.tenant {
            Some(_) => Actor::Key(self.key),
            None => Actor::Operator(self.key),
        }
    }
}
