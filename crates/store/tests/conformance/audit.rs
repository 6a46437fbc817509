//! The audit log: the same rules on SQLite and on PostgreSQL.

use chrono::Duration;
use domain::{app::TokenMode, tenant::TenantLimits};
use wxgate_store::{
    AppPatch, AuditFilter, AuditLine, NewAuditLine, Origin, Page, Store, StoreError, TenantPatch,
    TenantStore,
};

use crate::common::{appid, at, new_app, on_both, onboard};

on_both! {
    lines_are_added_and_read_newest_first
    lines_of_one_moment_keep_their_order
    a_tenant_reads_its_own_lines_alone
    lines_are_found_by_what_they_say_and_when
    a_change_and_its_line_happen_together
    a_line_outlives_its_app
}

fn line(number: u16) -> NewAuditLine {
    NewAuditLine {
        detail: (number > 1).then(|| "a sentence".into()),
        request_id: (number > 1).then(|| "r-1".into()),
        address: (number > 1).then(|| "192.0.2.7".into()),
        ..Origin::CLI.did("token.hand_out", &appid(number))
    }
}

fn page(limit: u64) -> Page {
    Page { limit, after: None }
}

async fn said(door: &TenantStore, filter: AuditFilter) -> Vec<NewAuditLine> {
    let lines = door.audit(&filter, &page(99)).await.unwrap().items;
    lines.into_iter().map(|line| line.line).collect()
}

async fn lines_are_added_and_read_newest_first(store: Store) {
    let tenant = onboard(&store, 1, 10).await;
    let door = store.tenant(tenant);
    for number in 1..=3 {
        door.append_audit(line(number), at(i64::from(number)))
            .await
            .unwrap();
    }
    let all = AuditFilter::default();
    let first = door.audit(&all, &page(2)).await.unwrap();
    let written = |found: &AuditLine, number: u16| {
        assert_eq!(found.line, line(number));
        assert_eq!(
            (found.tenant, found.at),
            (Some(tenant), at(i64::from(number)))
        );
    };
    written(&first.items[0], 3);
    written(&first.items[1], 2);
    let rest = Page {
        limit: 2,
        after: first.next,
    };
    let rest = door.audit(&all, &rest).await.unwrap();
    written(&rest.items[0], 1);
    assert_eq!((rest.items.len(), rest.next), (1, None));
}

async fn lines_of_one_moment_keep_their_order(store: Store) {
    let door = store.tenant(onboard(&store, 1, 10).await);
    for number in 0..50 {
        door.append_audit(line(number), at(1)).await.unwrap();
    }
    let expected: Vec<_> = (0..50).rev().map(line).collect();
    assert_eq!(said(&door, AuditFilter::default()).await, expected);
}

async fn a_tenant_reads_its_own_lines_alone(store: Store) {
    let one = store.tenant(onboard(&store, 1, 10).await);
    let two = store.tenant(onboard(&store, 2, 10).await);
    let platform = store.platform();
    one.append_audit(line(1), at(1)).await.unwrap();
    platform.append_audit(line(2), at(2)).await.unwrap();

    assert_eq!(said(&one, AuditFilter::default()).await, [line(1)]);
    assert_eq!(said(&two, AuditFilter::default()).await, []);
    let all = platform.audit(&AuditFilter::default(), &page(9)).await;
    let owners: Vec<_> = all.unwrap().items.iter().map(|line| line.tenant).collect();
    assert_eq!(owners.len(), 2);
    assert!(owners[0].is_none() && owners[1].is_some());
}

async fn lines_are_found_by_what_they_say_and_when(store: Store) {
    let door = store.tenant(onboard(&store, 1, 10).await);
    let other = Origin::GATEWAY.did("app.added", &appid(2));
    door.append_audit(line(1), at(1)).await.unwrap();
    door.append_audit(other.clone(), at(2)).await.unwrap();
    door.append_audit(line(2), at(3)).await.unwrap();
    let by = |filter| said(&door, filter);
    let action = AuditFilter {
        action: Some("app.added".into()),
        ..AuditFilter::default()
    };
    assert_eq!(by(action).await, std::slice::from_ref(&other));
    let target = AuditFilter {
        target: Some(appid(2).to_string()),
        ..AuditFilter::default()
    };
    assert_eq!(by(target.clone()).await, [line(2), other.clone()]);
    let between = AuditFilter {
        created_after: Some(at(2)),
        created_before: Some(at(3)),
        ..target
    };
    assert_eq!(by(between).await, [other]);
    let later = AuditFilter {
        created_after: Some(at(3) + Duration::milliseconds(1)),
        ..AuditFilter::default()
    };
    assert_eq!(by(later).await, []);
}

async fn a_change_and_its_line_happen_together(store: Store) {
    let tenant = onboard(&store, 1, 10).await;
    let door = |action: &str| {
        let line = Origin::CLI.did(action, &appid(2));
        store.tenant(tenant).with_audit_line(line)
    };
    let platform = |action: &str| {
        store
            .platform()
            .with_audit_line(Origin::CLI.did(action, &tenant))
    };
    let suspend = TenantPatch {
        name: Some("other".into()),
        ..TenantPatch::default()
    };
    let patch = AppPatch {
        token_mode: Some(TokenMode::Legacy),
        ..AppPatch::default()
    };
    door("added").create_app(new_app(2), at(1)).await.unwrap();
    door("changed")
        .update_app(&appid(2), patch.clone(), at(2))
        .await
        .unwrap();
    door("secret")
        .replace_app_secret(&appid(2), vec![1; 40], None, at(3))
        .await
        .unwrap();
    door("verified")
        .mark_app_verified(&appid(2), Some(at(4)), at(4))
        .await
        .unwrap();
    door("removed").delete_app(&appid(2), at(5)).await.unwrap();
    platform("renamed")
        .update_tenant(tenant, &suspend, at(6))
        .await
        .unwrap();

    // A refused change leaves no line.
    let taken = door("taken").create_app(new_app(1), at(7)).await;
    assert!(matches!(taken, Err(StoreError::Taken(_))), "{taken:?}");
    for refused in [
        door("missing")
            .update_app(&appid(9), patch, at(8))
            .await
            .map(drop),
        door("missing").delete_app(&appid(9), at(8)).await,
        platform("missing")
            .create_tenant(tenant, "twice", TenantLimits::default(), at(9))
            .await
            .map(drop),
    ] {
        assert!(refused.is_err());
    }
    let lines = said(&store.tenant(tenant), AuditFilter::default()).await;
    let actions: Vec<_> = lines.iter().map(|line| line.action.as_str()).collect();
    let expected = [
        "renamed", "removed", "verified", "secret", "changed", "added",
    ];
    assert_eq!(actions, expected);
}

async fn a_line_outlives_its_app(store: Store) {
    let door = store.tenant(onboard(&store, 1, 10).await);
    door.append_audit(line(1), at(1)).await.unwrap();
    door.delete_app(&appid(1), at(2)).await.unwrap();
    assert_eq!(said(&door, AuditFilter::default()).await, [line(1)]);
}
