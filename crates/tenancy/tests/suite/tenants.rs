//! Tenants: their limits, and the enforcement of the limits.

use domain::tenant::TenantLimits;
use wxgate_tenancy::{KeyOwner, TenancyError, TenantPatch};

use crate::gate::{Gate, ask, first};

#[tokio::test]
async fn names_and_limits_are_checked() {
    let gate = Gate::open().await;
    let limits = TenantLimits {
        requests_per_second: 0,
        messages_per_day: Some(u64::MAX),
    };
    let Err(TenancyError::Invalid(violations)) = gate.tenancy.create_tenant("\t", limits).await
    else {
        panic!("accepted");
    };
    let pointers: Vec<_> = violations
        .iter()
        .map(|violation| violation.pointer.as_str())
        .collect();
    assert_eq!(
        pointers,
        ["/name", "/requests_per_second", "/messages_per_day"]
    );

    let made = gate
        .tenancy
        .create_tenant("  茶馆  ", TenantLimits::default())
        .await
        .unwrap();
    assert_eq!(made.name, "茶馆");
    assert_eq!(gate.tenancy.tenant(made.id).await.unwrap(), made);
    let patch = TenantPatch {
        name: Some("n".repeat(101)),
        ..TenantPatch::default()
    };
    let refused = gate
        .tenancy
        .update_tenant(made.id, patch)
        .await
        .unwrap_err();
    assert!(matches!(refused, TenancyError::Invalid(_)), "{refused:?}");
}

#[tokio::test]
async fn tenants_of_one_moment_are_listed_newest_first() {
    let gate = Gate::open().await;
    for name in ["one", "two", "three"] {
        gate.tenancy
            .create_tenant(name, TenantLimits::default())
            .await
            .unwrap();
    }
    let listing = gate.tenancy.tenants(&first(2)).await.unwrap();
    let names: Vec<_> = listing
        .items
        .iter()
        .map(|tenant| tenant.name.as_str())
        .collect();
    assert_eq!(names, ["three", "two"]);
    assert!(listing.next.is_some());
}

#[tokio::test]
async fn a_tenant_is_kept_to_its_rate() {
    let gate = Gate::open().await;
    let made = gate.key("apps:read").await;
    let tenant = made.key.tenant.unwrap();
    let patch = TenantPatch {
        requests_per_second: Some(2),
        ..TenantPatch::default()
    };
    gate.tenancy.update_tenant(tenant, patch).await.unwrap();
    let second = gate
        .tenancy
        .create_key(KeyOwner::Tenant(tenant), ask("apps:read"), None)
        .await
        .unwrap();

    let callers = [
        gate.tenancy
            .authenticate(&gate.token(&made.secret).await)
            .await
            .unwrap(),
        gate.tenancy
            .authenticate(&gate.token(&second.secret).await)
            .await
            .unwrap(),
    ];
    for caller in callers.iter().cycle().take(10) {
        assert!(gate.tenancy.admit(caller).await.allowed);
    }
    // All keys of a tenant share the tenant's rate.
    for caller in &callers {
        let refused = gate.tenancy.admit(caller).await;
        assert!(
            !refused.allowed && refused.retry_after.as_millis() == 500,
            "{refused:?}"
        );
    }
    gate.pass(1);
    let admitted = [
        gate.tenancy.admit(&callers[0]).await.allowed,
        gate.tenancy.admit(&callers[1]).await.allowed,
    ];
    assert_eq!(
        (admitted, gate.tenancy.admit(&callers[0]).await.allowed),
        ([true, true], false)
    );

    let stranger = gate.key("apps:read").await;
    let stranger = gate
        .tenancy
        .authenticate(&gate.token(&stranger.secret).await)
        .await
        .unwrap();
    assert_eq!(gate.tenancy.admit(&stranger).await.limit, 100);
}

#[tokio::test]
async fn an_operator_has_a_rate_too() {
    let gate = Gate::open().await;
    let made = gate
        .tenancy
        .create_key(KeyOwner::Operator, ask("operator"), None)
        .await
        .unwrap();
    let caller = gate
        .tenancy
        .authenticate(&gate.token(&made.secret).await)
        .await
        .unwrap();
    let decision = gate.tenancy.admit(&caller).await;
    assert_eq!(
        (decision.allowed, decision.limit, decision.remaining),
        (true, 1000, 999)
    );
}

#[tokio::test]
async fn without_redis_each_replica_counts_for_itself() {
    let gate = Gate::open().await;
    let made = gate.key("apps:read").await;
    let token = gate.token(&made.secret).await;
    let patch = TenantPatch {
        requests_per_second: Some(1),
        ..TenantPatch::default()
    };
    gate.tenancy
        .update_tenant(made.key.tenant.unwrap(), patch)
        .await
        .unwrap();

    let lost = gate.without_redis().await;
    let caller = lost.authenticate(&token).await.unwrap();
    for _ in 0..10 {
        assert!(lost.admit(&caller).await.allowed);
    }
    assert!(!lost.admit(&caller).await.allowed);
}
