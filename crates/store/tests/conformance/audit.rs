//! The audit log: the same rules on SQLite and on PostgreSQL.

use crate::common::{appid, at, on_both, onboard};
use domain::id;
use wxgate_store::{AuditLine, NewAuditLine, Page, Store, StoreError};

on_both! {
    lines_are_added_and_read_newest_first
    a_tenant_reads_its_own_lines_alone
    a_line_is_never_replaced
    a_line_outlives_its_app
}

fn line(number: u16) -> NewAuditLine {
    NewAuditLine {
        id: id::new(at(0), number, 1),
        actor: "key_01jq2xv1cde8sbw7mv9v6a5kzq".into(),
        action: "token.hand_out".into(),
        target: appid(number).to_string(),
        outcome: "ok".into(),
        detail: (number > 1).then(|| "a sentence".into()),
        request_id: (number > 1).then(|| "r-1".into()),
    }
}

fn page(limit: u64) -> Page {
    Page { limit, after: None }
}

async fn lines_are_added_and_read_newest_first(store: Store) {
    let tenant = onboard(&store, 1, 10).await;
    let door = store.tenant(tenant);
    for number in 1..=3 {
        door.append_audit(line(number), at(i64::from(number)))
            .await
            .unwrap();
    }
    let first = door.audit(&page(2)).await.unwrap();
    let written = |number: u16| AuditLine {
        line: line(number),
        tenant: Some(tenant),
        at: at(i64::from(number)),
    };
    assert_eq!(first.items, [written(3), written(2)]);
    let rest = Page {
        limit: 2,
        after: first.next,
    };
    assert_eq!(door.audit(&rest).await.unwrap().items, [written(1)]);
}

async fn a_tenant_reads_its_own_lines_alone(store: Store) {
    let one = onboard(&store, 1, 10).await;
    let two = onboard(&store, 2, 10).await;
    let platform = store.platform();
    store
        .tenant(one)
        .append_audit(line(1), at(1))
        .await
        .unwrap();
    platform.append_audit(line(2), at(2)).await.unwrap();

    assert_eq!(
        store.tenant(one).audit(&page(9)).await.unwrap().items.len(),
        1
    );
    assert!(
        store
            .tenant(two)
            .audit(&page(9))
            .await
            .unwrap()
            .items
            .is_empty()
    );
    let all = platform.audit(&page(9)).await.unwrap().items;
    let owners: Vec<_> = all.iter().map(|line| line.tenant).collect();
    assert_eq!(owners, [None, Some(one)]);
}

async fn a_line_is_never_replaced(store: Store) {
    let tenant = onboard(&store, 1, 10).await;
    let door = store.tenant(tenant);
    door.append_audit(line(1), at(1)).await.unwrap();
    let other = NewAuditLine {
        outcome: "another".into(),
        ..line(1)
    };
    let again = door.append_audit(other, at(2)).await;
    assert!(matches!(again, Err(StoreError::Taken(_))), "{again:?}");
    assert_eq!(door.audit(&page(9)).await.unwrap().items[0].line, line(1));
}

async fn a_line_outlives_its_app(store: Store) {
    let tenant = onboard(&store, 1, 10).await;
    let door = store.tenant(tenant);
    door.append_audit(line(1), at(1)).await.unwrap();
    door.delete_app(&appid(1), at(2)).await.unwrap();
    assert_eq!(door.audit(&page(9)).await.unwrap().items.len(), 1);
}
