//! The operators' actions on tenants.

use domain::{
    id::TenantId,
    tenant::{TenantLimits, TenantStatus},
    violation::Violation,
};
use store::{AuditFilter, AuditLine, Keep, Listing, Page, Tenant, TenantPatch};

use crate::{Tenancy, TenancyError};

const LONGEST_NAME: usize = 100;
const HIGHEST_RATE: u32 = 100_000;
const MOST_MESSAGES: u64 = 1_000_000_000_000;

impl Tenancy {
    /// Creates a tenant.
    pub async fn create_tenant(
        &self,
        name: &str,
        limits: TenantLimits,
    ) -> Result<Tenant, TenancyError> {
        self.create_tenant_once(name, limits, Keep::nothing()).await
    }

    /// As [`Tenancy::create_tenant`], and stores the answer under an idempotency key as `keep` says.
    pub async fn create_tenant_once(
        &self,
        name: &str,
        limits: TenantLimits,
        keep: Keep<Tenant>,
    ) -> Result<Tenant, TenancyError> {
        let inner = &*self.0;
        let patch = TenantPatch {
            name: Some(name.to_owned()),
            requests_per_second: Some(limits.requests_per_second),
            messages_per_day: Some(limits.messages_per_day),
            status: None,
            known_at: None,
        };
        validate(&patch)?;
        let now = inner.coord.clock().now();
        let id = inner.new_tenant_id();
        let line = self.1.did("tenant.create", &id).saying(changes(&patch));
        let new = Tenant::new(id, name.trim(), limits, now);
        let door = inner.store.platform().with_audit_line(line);
        let door = door.with_answer(keep.answer(&new));
        Ok(door.create_tenant(id, name.trim(), limits, now).await?)
    }

    /// The tenant with this id.
    pub async fn tenant(&self, id: TenantId) -> Result<Tenant, TenancyError> {
        Ok(self.0.store.platform().tenant(id).await?)
    }

    /// All tenants, newest first.
    pub async fn tenants(&self, page: &Page) -> Result<Listing<Tenant>, TenancyError> {
        Ok(self.0.store.platform().tenants(page).await?)
    }

    /// The audit log of a tenant, newest first; `None`: of all tenants and of the platform.
    pub async fn audit(
        &self,
        tenant: Option<TenantId>,
        filter: &AuditFilter,
        page: &Page,
    ) -> Result<Listing<AuditLine>, TenancyError> {
        let store = &self.0.store;
        Ok(match tenant {
            Some(tenant) => store.tenant(tenant).audit(filter, page).await?,
            None => store.platform().audit(filter, page).await?,
        })
    }

    /// Changes a tenant: suspends or resumes the tenant, sets name and limits. The change takes effect at once in this
    /// replica, and within 5 seconds in every replica.
    pub async fn update_tenant(
        &self,
        id: TenantId,
        patch: TenantPatch,
    ) -> Result<Tenant, TenancyError> {
        let inner = &*self.0;
        validate(&patch)?;
        let patch = TenantPatch {
            name: patch.name.map(|name| name.trim().to_owned()),
            ..patch
        };
        let line = self.1.did("tenant.update", &id).saying(changes(&patch));
        let changed = inner
            .store
            .platform()
            .with_audit_line(line)
            .update_tenant(id, &patch, inner.coord.clock().now())
            .await;
        inner.standings.forget_all();
        Ok(changed?)
    }
}

/// Describes the changes of a patch, for the audit log.
fn changes(patch: &TenantPatch) -> String {
    let words = [
        patch.name.as_ref().map(|name| format!("name `{name}`")),
        patch.status.map(|status| match status {
            TenantStatus::Active => "active".to_owned(),
            TenantStatus::Suspended => "suspended".to_owned(),
        }),
        patch
            .requests_per_second
            .map(|rate| format!("{rate} requests per second")),
        patch.messages_per_day.map(|limit| match limit {
            Some(limit) => format!("{limit} messages per day"),
            None => "any number of messages per day".to_owned(),
        }),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn validate(patch: &TenantPatch) -> Result<(), TenancyError> {
    let mut violations = Vec::new();
    if let Some(name) = &patch.name {
        violations.extend(name_violation(name));
    }
    if patch
        .requests_per_second
        .is_some_and(|rate| !(1..=HIGHEST_RATE).contains(&rate))
    {
        violations.push(Violation::new(
            "/requests_per_second",
            format!("must be from 1 to {HIGHEST_RATE}"),
        ));
    }
    if patch
        .messages_per_day
        .flatten()
        .is_some_and(|limit| limit > MOST_MESSAGES)
    {
        let detail = format!("must be at most {MOST_MESSAGES}; null removes the limit");
        violations.push(Violation::new("/messages_per_day", detail));
    }
    if violations.is_empty() {
        Ok(())
    } else {
        Err(TenancyError::Invalid(violations))
    }
}

/// Why `name` is not valid for a tenant or key; `None`: the name is valid.
pub(crate) fn name_violation(name: &str) -> Option<Violation> {
    let length = name.trim().chars().count();
    let fine =
        (1..=LONGEST_NAME).contains(&length) && !name.contains(domain::text::is_display_control);
    let detail = || {
        format!(
            "must have 1 to {LONGEST_NAME} characters, without control characters and without characters that change the direction of writing"
        )
    };
    (!fine).then(|| Violation::new("/name", detail()))
}
