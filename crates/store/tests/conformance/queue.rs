//! The queue: the same rules on SQLite and on PostgreSQL.

use std::time::Duration;

use crate::common::{appid, at, draft, hand_in, intake, on_both, onboard, one};
use chrono::{DateTime, Utc};
use domain::{
    id::{self, MessageId, TenantId},
    lifecycle::{Event, Status},
    message::Draft,
    quota::PriorityShares,
    verdict::{FailureCode, Verdict},
};
use wxgate_store::{
    ClaimBatch, ClaimRequest, ClaimedMessage, NewMessage, Page, Received, Settled, Settlement,
    SettlementSource, Store, Taken,
};

on_both! {
    what_is_taken_in_is_claimed_sent_and_recorded
    intake_refuses_what_cannot_be_sent
    a_scheduled_message_waits_for_its_time
    a_late_message_expires_and_is_never_claimed
    lists_are_filtered_and_paged
}

pub(crate) struct Sender<'a> {
    pub(crate) store: &'a Store,
    pub(crate) tenant: TenantId,
    pub(crate) next: u16,
}

impl<'a> Sender<'a> {
    pub(crate) async fn new(store: &'a Store, number: u8) -> Self {
        Sender {
            store,
            tenant: onboard(store, number, 1_000_000).await,
            next: 0,
        }
    }

    pub(crate) fn new_message(&mut self, app: u8, draft: Draft, now: DateTime<Utc>) -> NewMessage {
        self.next += 1;
        // Random in the gateway: no two messages share this number.
        let entropy = u64::from(self.next) << 8 | u64::from(app);
        let id = id::new(now, self.next, entropy);
        NewMessage {
            id,
            tenant: self.tenant,
            appid: appid(u16::from(app)),
            draft,
            received_at: now,
        }
    }

    pub(crate) async fn send(&mut self, app: u8, draft: Draft, now: DateTime<Utc>) -> MessageId {
        let new = self.new_message(app, draft, now);
        let id = new.id;
        assert_eq!(intake(self.store, &[new], now).await, [Received::Stored]);
        id
    }

    pub(crate) async fn status(&self, id: MessageId) -> Status {
        self.store
            .tenant(self.tenant)
            .message(id)
            .await
            .unwrap()
            .unwrap()
            .status
    }
}

pub(crate) async fn claim_batch(
    store: &Store,
    slots: usize,
    cursor: &str,
    now: DateTime<Utc>,
) -> ClaimBatch {
    let request = ClaimRequest {
        slots,
        apps: Vec::new(),
        cursor: cursor.to_owned(),
        lease: i64::from(now.timestamp_subsec_micros()) + 7,
        lease_until: now + Duration::from_mins(1),
        shares: PriorityShares::default(),
    };
    store.platform().claim(&request, now).await.unwrap()
}

pub(crate) async fn claim(store: &Store, slots: usize, now: DateTime<Utc>) -> Vec<ClaimedMessage> {
    claim_batch(store, slots, "", now).await.claimed
}

pub(crate) fn settle(flight: &ClaimedMessage, event: &Event, now: DateTime<Utc>) -> Settlement {
    let msgid = match event {
        Event::Answered(Verdict::Accepted { msgid }) => *msgid,
        _ => None,
    };
    Settlement {
        id: flight.id,
        lease: flight.lease,
        word: match event {
            event if event.is_final() => SettlementSource::Final,
            Event::LeaseEnded => SettlementSource::LeaseEnded,
            _ => SettlementSource::Worker,
        },
        appid: flight.appid.clone(),
        touser: flight.touser.clone(),
        template_id: flight.template_id.clone(),
        grant: flight.grant_news(event),
        transition: flight.facts().apply(event, now, 0.0).unwrap(),
        attempts: flight.attempts.clone(),
        refund: None,
        msgid,
        failure_detail: None,
    }
}

pub(crate) fn accepted(msgid: u64) -> Event {
    Event::Answered(Verdict::Accepted { msgid: Some(msgid) })
}

pub(crate) async fn record(
    store: &Store,
    flights: &[ClaimedMessage],
    event: &Event,
    now: DateTime<Utc>,
) -> usize {
    let batch: Vec<Settlement> = flights
        .iter()
        .map(|flight| settle(flight, event, now))
        .collect();
    store
        .platform()
        .record(&batch, &[], now)
        .await
        .unwrap()
        .changed
        .len()
}

async fn what_is_taken_in_is_claimed_sent_and_recorded(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let id = sender.send(1, draft("o1"), at(0)).await;
    assert_eq!(sender.status(id).await, Status::Queued);

    let flights = claim(&store, 8, at(1)).await;
    assert_eq!(
        flights
            .iter()
            .map(|flight| (flight.id, flight.claims))
            .collect::<Vec<_>>(),
        [(id, 1)]
    );
    assert_eq!(flights[0].content, draft("o1").content);
    assert_eq!(sender.status(id).await, Status::Sending);
    assert!(
        claim(&store, 8, at(1)).await.is_empty(),
        "a flying message is nobody else's"
    );

    // Above 2^53, the largest integer that JavaScript represents exactly.
    assert_eq!(
        record(
            &store,
            &flights,
            &accepted(4_103_297_716_205_551_617),
            at(2)
        )
        .await,
        1
    );
    let message = store
        .tenant(sender.tenant)
        .message(id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (message.status, message.msgid.as_deref()),
        (Status::Sent, Some("4103297716205551617"))
    );

    let stranger = onboard(&store, 2, 10).await;
    assert_eq!(store.tenant(stranger).message(id).await.unwrap(), None);
}

async fn intake_refuses_what_cannot_be_sent(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let other = onboard(&store, 2, 10).await;
    let unknown = sender.new_message(9, draft("o1"), at(0));
    let foreign = sender.new_message(2, draft("o1"), at(0));
    let dry = sender.new_message(
        1,
        Draft {
            dry_run: true,
            ..draft("o1")
        },
        at(0),
    );
    let good = sender.new_message(1, draft("o1"), at(0));
    let batch = [unknown, foreign, dry.clone(), good.clone()].map(|new| one(new, None));
    let stored = Taken::Fresh(vec![Received::Stored]);
    assert_eq!(
        hand_in(&store, &batch, at(0)).await,
        [Taken::NoSuchApp, Taken::NoSuchApp, stored.clone(), stored]
    );
    assert_eq!(
        store.tenant(sender.tenant).message(dry.id).await.unwrap(),
        None,
        "a dry run leaves nothing"
    );
    assert!(
        store
            .tenant(sender.tenant)
            .message(good.id)
            .await
            .unwrap()
            .is_some()
    );
    assert!(
        store
            .tenant(other)
            .message(good.id)
            .await
            .unwrap()
            .is_none()
    );
}

async fn a_scheduled_message_waits_for_its_time(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let id = sender
        .send(
            1,
            Draft {
                send_at: Some(at(100)),
                ..draft("o1")
            },
            at(0),
        )
        .await;
    assert_eq!(sender.status(id).await, Status::Scheduled);
    assert_eq!(store.platform().next_due().await.unwrap(), Some(at(100)));
    assert_eq!(store.platform().promote(at(99)).await.unwrap().moved, 0);
    assert!(claim(&store, 8, at(99)).await.is_empty());
    assert_eq!(store.platform().promote(at(100)).await.unwrap().moved, 1);
    assert_eq!(sender.status(id).await, Status::Queued);
    assert_eq!(claim(&store, 8, at(100)).await.len(), 1);
}

async fn a_late_message_expires_and_is_never_claimed(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let short = || Draft {
        ttl: Duration::from_secs(2),
        ..draft("o1")
    };
    let (ready, waiting) = (
        sender.send(1, short(), at(0)).await,
        sender
            .send(
                1,
                Draft {
                    send_at: Some(at(1)),
                    ..short()
                },
                at(0),
            )
            .await,
    );
    let batch = claim_batch(&store, 8, "", at(2)).await;
    let expired = |id| Settled {
        id,
        status: Status::Expired,
    };
    assert_eq!(
        (batch.claimed.len(), batch.ended),
        (0, vec![expired(ready)])
    );
    assert!(store.platform().expire(at(2)).await.unwrap().is_empty());
    assert_eq!(
        store.platform().expire(at(3)).await.unwrap(),
        [expired(waiting)]
    );
    for id in [ready, waiting] {
        let message = store
            .tenant(sender.tenant)
            .message(id)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (message.status, message.failure.unwrap().code),
            (Status::Expired, FailureCode::Expired)
        );
    }
}

async fn lists_are_filtered_and_paged(store: Store) {
    use wxgate_store::MessageFilter;
    let mut sender = Sender::new(&store, 1).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let reference = (n == 3).then(|| "order-3".to_owned());
        ids.push(
            sender
                .send(
                    1,
                    Draft {
                        reference,
                        ..draft(&format!("o{n}"))
                    },
                    at(n),
                )
                .await,
        );
    }
    let door = store.tenant(sender.tenant);
    let list = async |filter: MessageFilter, page: Page| {
        door.messages(&appid(1), &filter, &page).await.unwrap()
    };

    ids.reverse();
    let first = list(
        MessageFilter::default(),
        Page {
            limit: 3,
            after: None,
        },
    )
    .await;
    let second = list(
        MessageFilter::default(),
        Page {
            limit: 3,
            after: first.next,
        },
    )
    .await;
    let seen: Vec<MessageId> = first
        .items
        .iter()
        .chain(&second.items)
        .map(|message| message.id)
        .collect();
    assert_eq!((seen, second.next), (ids.clone(), None));

    let all = Page {
        limit: 50,
        after: None,
    };
    let of = |filter: MessageFilter| list(filter, all);
    assert_eq!(
        of(MessageFilter {
            reference: Some("order-3".into()),
            ..Default::default()
        })
        .await
        .items[0]
            .id,
        ids[1]
    );
    assert_eq!(
        of(MessageFilter {
            touser: Some("o0".into()),
            ..Default::default()
        })
        .await
        .items[0]
            .id,
        ids[4]
    );
    assert_eq!(
        of(MessageFilter {
            status: Some(Status::Sent),
            ..Default::default()
        })
        .await
        .items
        .len(),
        0
    );
    let middle = MessageFilter {
        created_after: Some(at(1)),
        created_before: Some(at(4)),
        ..Default::default()
    };
    assert_eq!(of(middle).await.items.len(), 3);
}
