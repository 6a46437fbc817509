//! API keys: creation, listing, revocation.

use chrono::{DateTime, SecondsFormat, Utc};
use domain::{
    id::{KeyId, TenantId},
    scope::{Scope, ScopeSet},
    secret::ClientSecret,
    violation::Violation,
};
use store::{Descendants, Keep, Key, Listing, Page};

use crate::{Caller, Tenancy, TenancyError, client_secret, tenants::name_violation};

/// The owner of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOwner {
    /// The operators of the gateway.
    Operator,
    /// A tenant.
    Tenant(TenantId),
}

/// A request for a new key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// The name that the owner gives the key.
    pub name: String,
    /// The scopes of the key.
    pub scopes: ScopeSet,
    /// When the key expires; `None`: when the key that creates this key expires, or never.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A key with the client secret, which is shown this once and not stored.
#[derive(Debug)]
pub struct CreatedKey {
    /// The key; the id is the OAuth `client_id`.
    pub key: Key,
    /// The client secret, which identifies the key without the `client_id`.
    pub secret: ClientSecret,
}

impl Tenancy {
    /// Creates a key for `owner`.
    ///
    /// `minted_by` is the caller that asks; `None`: the command line on the machine itself. A tenant's caller creates
    /// keys of the same tenant only, and only with scopes that the caller has. The scope `operator` stands above the
    /// others: a caller with that scope may give out any. A key that expires creates no key that expires later. A
    /// tenant has at most [`store::MAX_KEYS`] keys in force.
    pub async fn create_key(
        &self,
        owner: KeyOwner,
        request: NewKey,
        minted_by: Option<&Caller>,
    ) -> Result<CreatedKey, TenancyError> {
        self.create_key_once(owner, request, minted_by, Keep::nothing())
            .await
    }

    /// As [`Tenancy::create_key`], and stores the answer under an idempotency key as `keep` says.
    pub async fn create_key_once(
        &self,
        owner: KeyOwner,
        request: NewKey,
        minted_by: Option<&Caller>,
        keep: Keep<CreatedKey>,
    ) -> Result<CreatedKey, TenancyError> {
        let inner = &*self.0;
        let now = inner.coord.clock().now();
        if let Some(caller) = minted_by {
            may_mint(caller, owner, request.scopes)?;
        }
        let latest = minted_by.and_then(|caller| caller.expires_at);
        validate(owner, &request, latest, now)?;
        let id = inner.new_key_id();
        let secret = client_secret::mint(id);
        let new = store::NewKey {
            id,
            name: request.name.trim().to_owned(),
            secret_hash: client_secret::hash(&inner.pepper, &secret),
            scopes: request.scopes,
            expires_at: request.expires_at.or(latest),
            created_by: minted_by.map_or(self.1.actor, Caller::actor),
        };
        let tenant_id = match owner {
            KeyOwner::Operator => None,
            KeyOwner::Tenant(id) => Some(id),
        };
        let created = CreatedKey {
            key: new.made(tenant_id, now),
            secret,
        };
        let kept = keep.answer(&created);
        let words = format!("`{}` with {}", new.name, new.scopes);
        let line = self.1.did("key.create", &id).saying(words);
        match tenant_id {
            None => {
                let door = inner
                    .store
                    .platform()
                    .with_audit_line(line)
                    .with_answer(kept);
                door.create_operator_key(new, now).await?;
            }
            Some(tenant) => {
                let door = inner
                    .store
                    .tenant(tenant)
                    .with_audit_line(line)
                    .with_answer(kept);
                door.create_key(new, now).await?;
            }
        }
        Ok(created)
    }

    /// The keys of `owner`, revoked keys included, newest first.
    pub async fn keys(&self, owner: KeyOwner, page: &Page) -> Result<Listing<Key>, TenancyError> {
        let store = &self.0.store;
        Ok(match owner {
            KeyOwner::Operator => store.platform().operator_keys(page).await?,
            KeyOwner::Tenant(tenant) => {
                store.platform().tenant(tenant).await?;
                store.tenant(tenant).keys(page).await?
            }
        })
    }

    /// Revokes a key of `owner` and, depending on `descendants`, the keys that were created with that key, directly or
    /// over other keys: at once in this replica, within 5 seconds in every replica. Returns all keys that this call
    /// revoked. Revoking a revoked key is no error.
    pub async fn revoke_key(
        &self,
        owner: KeyOwner,
        id: KeyId,
        descendants: Descendants,
    ) -> Result<Vec<KeyId>, TenancyError> {
        let inner = &*self.0;
        let now = inner.coord.clock().now();
        let line = self.1.did("key.revoke", &id);
        let revoked = match owner {
            KeyOwner::Operator => {
                let door = inner.store.platform().with_audit_line(line);
                door.revoke_operator_key(id, descendants, now).await
            }
            KeyOwner::Tenant(owner) => {
                let door = inner.store.tenant(owner).with_audit_line(line);
                door.revoke_key(id, descendants, now).await
            }
        };
        inner.standings.forget(id).await;
        let revoked = revoked?;
        for key in &revoked {
            inner.standings.forget(*key).await;
        }
        Ok(revoked)
    }
}

fn may_mint(caller: &Caller, owner: KeyOwner, scopes: ScopeSet) -> Result<(), TenancyError> {
    if let Some(own) = caller.tenant
        && owner != KeyOwner::Tenant(own)
    {
        return Err(TenancyError::NotFound("tenant"));
    }
    let beyond: ScopeSet = scopes
        .iter()
        .filter(|scope| !caller.scopes.contains(*scope))
        .collect();
    if beyond.is_empty() || caller.scopes.contains(Scope::Operator) {
        Ok(())
    } else {
        Err(TenancyError::Escalation(beyond))
    }
}

/// Checks the request for a key. `latest` is when the key that creates the new key expires, if ever.
fn validate(
    owner: KeyOwner,
    request: &NewKey,
    latest: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<(), TenancyError> {
    let mut violations = Vec::new();
    violations.extend(name_violation(&request.name));
    let operator = request.scopes.contains(Scope::Operator);
    match owner {
        KeyOwner::Operator if !operator => {
            violations.push(Violation::new(
                "/scopes",
                "an operator's key must have the scope `operator`",
            ));
        }
        KeyOwner::Tenant(_) if operator => {
            violations.push(Violation::new(
                "/scopes",
                "only an operator's key can have the scope `operator`",
            ));
        }
        KeyOwner::Tenant(_) if request.scopes.is_empty() => {
            let detail = format!("must name at least one of: {}", ScopeSet::tenant());
            violations.push(Violation::new("/scopes", detail));
        }
        _ => {}
    }
    if request.expires_at.is_some_and(|end| end <= now) {
        violations.push(Violation::new("/expires_at", "must lie in the future"));
    }
    if let (Some(end), Some(latest)) = (request.expires_at, latest)
        && end > latest
    {
        let latest = latest.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        let detail = format!("must not be later than {latest}, when the creating key expires");
        violations.push(Violation::new("/expires_at", detail));
    }
    if violations.is_empty() {
        Ok(())
    } else {
        Err(TenancyError::Invalid(violations))
    }
}
