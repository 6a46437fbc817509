//! Retention: old data is deleted, and lists stay cheap before the deletion.

use domain::{
    lifecycle::Status,
    message::{Content, Draft},
};
use uuid::Uuid;
use wxgate_store::{AuditFilter, Origin, Page, Store};

use crate::{
    common::{at, draft, on_both, onboard},
    queue::{Sender, accepted, claim, record},
};

on_both! {
    messages_that_ended_long_ago_are_forgotten
    payloads_go_before_their_messages
    old_lines_of_the_audit_log_are_forgotten_in_bounded_steps
}

async fn messages_that_ended_long_ago_are_forgotten(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let ended = sender.send(1, draft("o1"), at(0)).await;
    let flights = claim(&store, 8, at(1)).await;
    record(&store, &flights, &accepted(1), at(2)).await;
    let waiting = sender.send(1, draft("o2"), at(0)).await;
    let platform = store.platform();
    for (before, forgotten) in [(at(1), 0), (at(2), 0), (at(3), 1), (at(1_000_000), 0)] {
        let swept = platform.forget_messages(before).await.unwrap();
        assert_eq!(swept.moved, forgotten, "{before}");
    }
    assert_eq!(platform.message(ended).await.unwrap(), None);
    assert_eq!(sender.status(waiting).await, Status::Queued);
}

async fn old_lines_of_the_audit_log_are_forgotten_in_bounded_steps(store: Store) {
    const OLD: i64 = 501;
    let tenant = onboard(&store, 1, 10).await;
    let (platform, door) = (store.platform(), store.tenant(tenant));
    for number in 0..OLD {
        let line = Origin::CLI.did("app.update", &number);
        let written = match number % 2 {
            0 => platform.append_audit(line, at(number)).await,
            _ => door.append_audit(line, at(number)).await,
        };
        written.unwrap();
    }
    let kept = Origin::CLI.did("app.remove", &"kept");
    door.append_audit(kept, at(OLD)).await.unwrap();

    let before = at(OLD);
    let mut steps = Vec::new();
    while steps.last() != Some(&(0, false)) {
        let swept = platform.forget_audit(before).await.unwrap();
        steps.push((swept.moved, swept.more));
    }
    assert_eq!(steps, [(500, true), (1, false), (0, false)]);
    let page = Page {
        limit: 9,
        after: None,
    };
    let left = platform.audit(&AuditFilter::default(), &page).await;
    let left: Vec<_> = left
        .unwrap()
        .items
        .into_iter()
        .map(|line| line.at)
        .collect();
    assert_eq!(left, [before], "a line of that very moment stays");
}

async fn payloads_go_before_their_messages(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let metadata = serde_json::json!({"name": "Li"}).as_object().cloned();
    let personal = Draft {
        metadata,
        ..draft("o1")
    };
    let ended = sender.send(1, personal, at(0)).await;
    let flights = claim(&store, 8, at(1)).await;
    record(&store, &flights, &accepted(1), at(2)).await;
    let waiting = sender.send(1, draft("o2"), at(1)).await;

    let platform = store.platform();
    let dropped = platform
        .drop_payloads(Uuid::nil(), at(2), at(9))
        .await
        .unwrap();
    assert_eq!(
        (dropped.messages, dropped.cursor),
        (0, Some(waiting.uuid()))
    );
    let dropped = platform
        .drop_payloads(Uuid::nil(), at(3), at(9))
        .await
        .unwrap();
    assert_eq!(dropped.messages, 1);
    let again = platform
        .drop_payloads(Uuid::nil(), at(3), at(9))
        .await
        .unwrap();
    assert_eq!(again.messages, 0);
    let end = platform
        .drop_payloads(waiting.uuid(), at(3), at(9))
        .await
        .unwrap();
    assert_eq!(end.cursor, None);

    let empty = platform.message(ended).await.unwrap().unwrap();
    assert_eq!(
        (empty.metadata, empty.payload_dropped_at),
        (None, Some(at(9)))
    );
    let Content::Subscribe { data, .. } = empty.content else {
        unreachable!()
    };
    assert!(data.is_empty());
    assert_eq!(empty.status, Status::Sent);
    let whole = platform.message(waiting).await.unwrap().unwrap();
    let Content::Subscribe { data, .. } = whole.content else {
        unreachable!()
    };
    assert!(!data.is_empty() && whole.payload_dropped_at.is_none());
}
