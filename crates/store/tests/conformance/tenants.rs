//! Tenants: the same rules on SQLite and on PostgreSQL.

use crate::common::{at, on_both};
use domain::{
    id::{self, TenantId},
    tenant::{TenantLimits, TenantStatus},
};
use wxgate_store::{Page, Store, StoreError, Tenant, TenantPatch};

on_both! {
    tenants_are_made_changed_and_listed
    a_page_ends_where_the_next_begins
}

pub(crate) async fn tenant(store: &Store, number: u16) -> Tenant {
    let id: TenantId = id::new(at(0), number, 1);
    store
        .platform()
        .create_tenant(
            id,
            &format!("tenant {number}"),
            TenantLimits::default(),
            at(0),
        )
        .await
        .unwrap()
}

#[track_caller]
pub(crate) fn missing<T: std::fmt::Debug>(result: Result<T, StoreError>, what: &str) {
    match result {
        Err(StoreError::NotFound(it)) => assert_eq!(it, what),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn first(limit: u64) -> Page {
    Page { limit, after: None }
}

async fn tenants_are_made_changed_and_listed(store: Store) {
    let made = tenant(&store, 1).await;
    assert_eq!(
        (made.name.as_str(), made.status, made.limits),
        ("tenant 1", TenantStatus::Active, TenantLimits::default())
    );
    assert_eq!(store.platform().tenant(made.id).await.unwrap(), made);

    let patch = TenantPatch {
        status: Some(TenantStatus::Suspended),
        messages_per_day: Some(Some(5)),
        ..TenantPatch::default()
    };
    let changed = store
        .platform()
        .update_tenant(made.id, &patch, at(9))
        .await
        .unwrap();
    let limits = TenantLimits {
        messages_per_day: Some(5),
        ..made.limits
    };
    let wanted = Tenant {
        status: TenantStatus::Suspended,
        limits,
        updated_at: at(9),
        ..made.clone()
    };
    assert_eq!(changed, wanted);
    assert_eq!(store.tenant(made.id).itself().await.unwrap(), wanted);

    let lift = TenantPatch {
        messages_per_day: Some(None),
        name: Some("new".into()),
        ..TenantPatch::default()
    };
    let lifted = store
        .platform()
        .update_tenant(made.id, &lift, at(10))
        .await
        .unwrap();
    assert_eq!((lifted.name.as_str(), lifted.limits), ("new", made.limits));

    let nobody = id::new(at(0), 99, 1);
    missing(store.platform().tenant(nobody).await, "tenant");
    missing(
        store.platform().update_tenant(nobody, &patch, at(9)).await,
        "tenant",
    );
}

async fn a_page_ends_where_the_next_begins(store: Store) {
    for number in 1..=5 {
        tenant(&store, number).await;
    }
    let mut page = first(2);
    let mut pages = Vec::new();
    loop {
        let listing = store.platform().tenants(&page).await.unwrap();
        pages.push(
            listing
                .items
                .into_iter()
                .map(|tenant| tenant.name)
                .collect::<Vec<_>>(),
        );
        page.after = listing.next;
        if page.after.is_none() {
            break;
        }
    }
    assert_eq!(
        pages,
        [
            vec!["tenant 5", "tenant 4"],
            vec!["tenant 3", "tenant 2"],
            vec!["tenant 1"]
        ]
    );
    assert_eq!(
        store.platform().tenants(&first(5)).await.unwrap().next,
        None
    );
}
