//! Daily limits of tenants: the same rules on SQLite and on PostgreSQL.

use crate::{
    common::{at, draft, hand_in, intake, on_both, one},
    keys::{batch, key},
    queue::{Sender, claim},
};
use chrono::{DateTime, Utc};
use domain::{
    id::TenantId,
    message::Draft,
    quota::{self, PriorityShares},
};
use wxgate_store::{
    BatchEntry, FirstAnswer, FirstEntry, Received, Retried, Spent, Store, Taken, TenantPatch,
};

on_both! {
    the_limit_is_exact_and_begins_anew_each_day
    the_first_of_a_batch_fit_and_the_rest_do_not
    only_what_is_new_counts
    a_retry_counts
    replicas_count_together_and_never_wait_in_a_circle
}

async fn limit(store: &Store, tenant: TenantId, messages: Option<u64>) {
    let patch = TenantPatch {
        messages_per_day: Some(messages),
        ..TenantPatch::default()
    };
    let platform = store.platform();
    platform.update_tenant(tenant, &patch, at(0)).await.unwrap();
}

fn used_up(limit: u64, now: DateTime<Utc>) -> Received {
    Received::Spent(Spent::Tenant {
        limit,
        reset_at: quota::reset_at(now),
    })
}

async fn the_limit_is_exact_and_begins_anew_each_day(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    limit(&store, sender.tenant, Some(3)).await;
    let mut send = async |count: usize, now| {
        let news: Vec<_> = (0..count)
            .map(|_| sender.new_message(1, draft("o1"), now))
            .collect();
        intake(&store, &news, now).await
    };
    assert_eq!(send(2, at(0)).await, [Received::Stored; 2]);
    let spent = used_up(3, at(1));
    assert_eq!(send(3, at(1)).await, [Received::Stored, spent, spent]);
    assert_eq!(send(1, at(2)).await, [spent]);

    let midnight = quota::reset_at(at(2));
    assert_eq!(send(3, midnight).await, [Received::Stored; 3]);
    // A replica with a slow clock neither counts for the previous day nor resets the count of the new day.
    let behind = midnight - chrono::Duration::seconds(1);
    assert_eq!(send(1, behind).await, [used_up(3, behind)]);
    assert_eq!(send(1, midnight).await, [used_up(3, midnight)]);
}

async fn the_first_of_a_batch_fit_and_the_rest_do_not(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    limit(&store, sender.tenant, Some(2)).await;
    let news: Vec<_> = (0..4)
        .map(|_| sender.new_message(1, draft("o1"), at(0)))
        .collect();
    let ids: Vec<_> = news.iter().map(|new| new.id).collect();
    let entries = || {
        let news = news.iter().cloned();
        news.map(|new| BatchEntry::Message(Box::new(new))).collect()
    };
    let spent = used_up(2, at(0));
    let received = [Received::Stored, Received::Stored, spent, spent];
    let request = || batch(&news[0], key("b", 1), entries());
    let taken = hand_in(&store, &[request()], at(0)).await;
    assert_eq!(taken, [Taken::Fresh(received.to_vec())]);

    let answers = ids.into_iter().zip(received);
    let first = FirstAnswer::Batch {
        entries: answers
            .map(|(id, received)| FirstEntry::Message(id, received))
            .collect(),
        received_at: at(0),
    };
    assert_eq!(
        hand_in(&store, &[request()], at(1)).await,
        [Taken::Replayed(first)]
    );
}

async fn only_what_is_new_counts(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    limit(&store, sender.tenant, Some(2)).await;
    let stored = Taken::Fresh(vec![Received::Stored]);
    let dry = Draft {
        dry_run: true,
        ..draft("o1")
    };
    let mut request = |draft, name| [one(sender.new_message(1, draft, at(0)), key(name, 1))];
    let first = request(draft("o1"), "a");
    assert_eq!(hand_in(&store, &first, at(0)).await[0], stored);
    for _ in 0..3 {
        let replayed = &hand_in(&store, &first, at(0)).await[0];
        assert!(matches!(replayed, Taken::Replayed(_)), "{replayed:?}");
        let checked = request(dry.clone(), "dry");
        assert_eq!(hand_in(&store, &checked, at(0)).await[0], stored);
    }
    let (second, third) = (request(draft("o1"), "b"), request(draft("o1"), "c"));
    assert_eq!(hand_in(&store, &second, at(0)).await[0], stored);
    let spent = Taken::Fresh(vec![used_up(2, at(0))]);
    assert_eq!(hand_in(&store, &third, at(0)).await[0], spent);

    // A refused message has left the key free. Without a limit nothing is counted.
    limit(&store, sender.tenant, None).await;
    assert_eq!(hand_in(&store, &third, at(0)).await[0], stored);
}

async fn a_retry_counts(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    limit(&store, sender.tenant, Some(2)).await;
    let id = sender.send(1, draft("o1"), at(0)).await;
    let door = store.tenant(sender.tenant);
    let again = async |seconds| {
        door.cancel(id, at(seconds)).await.unwrap();
        let retried = door.retry(id, None, PriorityShares::default(), at(seconds));
        retried.await.unwrap()
    };
    let retried = again(1).await;
    assert!(matches!(retried, Retried::Queued(_)), "{retried:?}");
    assert_eq!(again(2).await, Retried::NotTaken(used_up(2, at(2))));
    assert!(
        claim(&store, 8, at(4)).await.is_empty(),
        "it stays canceled"
    );
}

async fn replicas_count_together_and_never_wait_in_a_circle(store: Store) {
    let mut senders = [Sender::new(&store, 1).await, Sender::new(&store, 2).await];
    for sender in &senders {
        limit(&store, sender.tenant, Some(50)).await;
    }
    let mut news = |order: [u8; 2]| {
        let news = order.map(|app| {
            let sender = &mut senders[usize::from(app) - 1];
            sender.new_message(app, draft("o1"), at(0))
        });
        news.to_vec()
    };
    let mut stored = 0;
    for _ in 0..30 {
        let (there, back) = (news([1, 2]), news([2, 1]));
        let (there, back) =
            tokio::join!(intake(&store, &there, at(0)), intake(&store, &back, at(0)));
        let received = there.into_iter().chain(back);
        stored += received
            .filter(|received| *received == Received::Stored)
            .count();
    }
    assert_eq!(stored, 100, "two tenants, 50 each, of 120");
}
