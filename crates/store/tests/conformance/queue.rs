//! The queue: the same rules on SQLite and on PostgreSQL.

use std::{collections::HashSet, time::Duration};

use crate::common::{appid, at, draft, hand_in, intake, on_both, onboard, one};
use chrono::{DateTime, Utc};
use domain::{
    id::{self, MessageId, TenantId},
    lifecycle::{Event, Status},
    message::{Draft, OnUncertain, Priority},
    quota::{self, Shares},
    retry::Delay,
    verdict::{FailureCode, Verdict},
};
use wxgate_store::{
    ClaimBatch, ClaimRequest, Claimed, LaneNews, LanePause, NewMessage, Page, Received, Settlement,
    Spent, Store, Taken, Word,
};

on_both! {
    what_is_taken_in_is_claimed_sent_and_recorded
    intake_refuses_what_cannot_be_sent
    a_scheduled_message_waits_for_its_time
    a_late_message_expires_and_is_never_claimed
    claims_go_round_the_apps
    high_goes_before_normal_before_low
    one_flight_for_each_user
    those_behind_are_released_one_by_one
    two_workers_share_without_repeating
    the_quota_is_exact_and_begins_anew_each_day
    low_priority_leaves_the_rest_of_the_quota
    a_paused_app_rests_and_others_go_on
    a_lost_lease_is_found_and_wechats_last_word_corrects_it
    a_message_that_flies_again_is_its_new_claims
    a_claim_that_nobody_got_is_taken_back
    a_retry_waits_and_comes_back
    quota_is_given_back_for_what_never_left
    a_removed_apps_messages_are_nobodys
    a_lapsed_message_that_may_have_been_sent_is_uncertain
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
        let id = id::new(now, self.next, u64::from(app));
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
        shares: Shares::default(),
    };
    store.platform().claim(&request, now).await.unwrap()
}

pub(crate) async fn claim(store: &Store, slots: usize, now: DateTime<Utc>) -> Vec<Claimed> {
    claim_batch(store, slots, "", now).await.claimed
}

pub(crate) fn settle(flight: &Claimed, event: &Event, now: DateTime<Utc>) -> Settlement {
    let msgid = match event {
        Event::Answered(Verdict::Accepted { msgid }) => *msgid,
        _ => None,
    };
    Settlement {
        id: flight.id,
        lease: flight.lease,
        word: match event {
            event if event.is_final() => Word::Final,
            Event::LeaseEnded => Word::Nobody,
            _ => Word::Worker,
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
    flights: &[Claimed],
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

    // Above 2^53, where JavaScript's numbers end.
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
    assert_eq!((batch.claimed.len(), batch.expired), (0, vec![ready]));
    assert!(store.platform().expire(at(2)).await.unwrap().is_empty());
    assert_eq!(store.platform().expire(at(3)).await.unwrap(), [waiting]);
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

async fn claims_go_round_the_apps(store: Store) {
    let mut big = Sender::new(&store, 1).await;
    let mut small = Sender::new(&store, 2).await;
    let batch: Vec<NewMessage> = (0..100)
        .map(|n| big.new_message(1, draft(&format!("o{n}")), at(0)))
        .collect();
    intake(&store, &batch, at(0)).await;
    let one = small.send(2, draft("o1"), at(5)).await;
    let flights = claim(&store, 10, at(6)).await;
    assert_eq!(
        flights.len(),
        6,
        "half of the slots for each app: five and the one there is"
    );
    assert!(
        flights.iter().any(|flight| flight.id == one),
        "a late single message does not wait for a hundred"
    );

    // More apps than one claim serves: the cursor goes on where the last claim ended.
    let mut seen = HashSet::new();
    for number in 10..50 {
        let mut sender = Sender::new(&store, number).await;
        sender.send(number, draft("o1"), at(6)).await;
    }
    let mut cursor = String::new();
    for _ in 0..4 {
        let batch = claim_batch(&store, 64, &cursor, at(7)).await;
        seen.extend(batch.claimed.iter().map(|flight| flight.appid.clone()));
        cursor = batch.cursor;
    }
    assert_eq!(seen.len(), 41, "40 small apps and the big one's rest");
}

async fn high_goes_before_normal_before_low(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let mut ids = Vec::new();
    for (n, priority) in [Priority::Low, Priority::Normal, Priority::High]
        .into_iter()
        .enumerate()
    {
        ids.push(
            sender
                .send(
                    1,
                    Draft {
                        priority,
                        ..draft(&format!("o{n}"))
                    },
                    at(0),
                )
                .await,
        );
    }
    let mut order = Vec::new();
    for _ in 0..3 {
        order.extend(
            claim(&store, 1, at(1))
                .await
                .into_iter()
                .map(|flight| flight.id),
        );
    }
    ids.reverse();
    assert_eq!(order, ids);
}

async fn one_flight_for_each_user(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let first = sender.send(1, draft("same"), at(0)).await;
    let second = sender.send(1, draft("same"), at(1)).await;
    let other = sender.send(1, draft("other"), at(2)).await;
    let flights = claim(&store, 8, at(3)).await;
    assert_eq!(
        flights
            .iter()
            .map(|flight| flight.id)
            .collect::<HashSet<_>>(),
        HashSet::from([first, other])
    );
    assert!(claim(&store, 8, at(3)).await.is_empty());
    record(&store, &flights, &accepted(1), at(4)).await;
    assert_eq!(claim(&store, 8, at(5)).await[0].id, second);
}

async fn those_behind_are_released_one_by_one(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let mut ids = Vec::new();
    for n in 0..6 {
        let ttl = if n == 2 {
            Duration::from_secs(20)
        } else {
            Duration::from_mins(10)
        };
        ids.push(
            sender
                .send(
                    1,
                    Draft {
                        ttl,
                        ..draft("same")
                    },
                    at(n),
                )
                .await,
        );
    }
    let mut order = Vec::new();
    for step in 0..6 {
        let now = at(10 + step * 10);
        let flights = claim(&store, 8, now).await;
        assert!(flights.len() <= 1, "never two to one user");
        order.extend(flights.iter().map(|flight| flight.id));
        record(&store, &flights, &accepted(1), now).await;
    }
    // The third lapsed while it was next; the ones behind it were released all the same.
    ids.remove(2);
    assert_eq!(order, ids);
    assert_eq!(
        store
            .platform()
            .release_stranded(at(100))
            .await
            .unwrap()
            .moved,
        0
    );
}

async fn two_workers_share_without_repeating(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let batch: Vec<NewMessage> = (0..300)
        .map(|n| sender.new_message(1, draft(&format!("o{}", n % 50)), at(0)))
        .collect();
    intake(&store, &batch, at(0)).await;
    let work = |worker: i64| {
        let store = store.clone();
        async move {
            let mut sent: Vec<MessageId> = Vec::new();
            for _ in 0..200 {
                let flights = claim(&store, 16, at(worker)).await;
                let people: HashSet<&str> = flights
                    .iter()
                    .map(|flight| flight.touser.as_str())
                    .collect();
                assert_eq!(people.len(), flights.len());
                sent.extend(flights.iter().map(|flight| flight.id));
                record(&store, &flights, &accepted(1), at(worker)).await;
                if sent.len() == 300 {
                    break;
                }
            }
            sent
        }
    };
    let (a, b) = tokio::join!(work(1), work(2));
    let all: HashSet<MessageId> = a.iter().chain(&b).copied().collect();
    assert_eq!(
        (a.len() + b.len(), all.len()),
        (300, 300),
        "each message once, none left"
    );
}

async fn the_quota_is_exact_and_begins_anew_each_day(store: Store) {
    let tenant = onboard(&store, 1, 10).await;
    let mut sender = Sender {
        store: &store,
        tenant,
        next: 0,
    };
    let high = |n: i32| Draft {
        priority: Priority::High,
        ttl: Duration::from_hours(48),
        ..draft(&format!("o{n}"))
    };
    let batch: Vec<NewMessage> = (0..25)
        .map(|n| sender.new_message(1, high(n), at(0)))
        .collect();
    intake(&store, &batch, at(0)).await;
    let (a, b) = tokio::join!(claim(&store, 25, at(1)), claim(&store, 25, at(1)));
    assert_eq!(a.len() + b.len(), 10);
    assert!(claim(&store, 25, at(2)).await.is_empty());
    assert_eq!(
        store
            .tenant(tenant)
            .quota_use(&appid(1), at(2))
            .await
            .unwrap()
            .used,
        10
    );

    let doomed = sender.new_message(
        1,
        Draft {
            ttl: Duration::from_mins(1),
            ..high(90)
        },
        at(2),
    );
    let reset_at = quota::reset_at(at(2));
    assert_eq!(
        intake(&store, &[doomed], at(2)).await,
        [Received::Spent(Spent::App { reset_at })]
    );

    assert_eq!(
        store
            .tenant(tenant)
            .quota_use(&appid(1), reset_at)
            .await
            .unwrap()
            .used,
        0
    );
    let probe = claim(&store, 25, reset_at).await;
    assert_eq!(probe.len(), 1, "WeChat's day may begin later");
    let opened = LaneNews::Open(appid(1));
    let settled = [settle(&probe[0], &accepted(1), reset_at)];
    let platform = store.platform();
    platform
        .record(&settled, &[opened], reset_at)
        .await
        .unwrap();
    assert_eq!(claim(&store, 25, reset_at).await.len(), 9);
}

async fn low_priority_leaves_the_rest_of_the_quota(store: Store) {
    let tenant = onboard(&store, 1, 100).await;
    let mut sender = Sender {
        store: &store,
        tenant,
        next: 0,
    };
    let batch: Vec<NewMessage> = (0..100)
        .map(|n| {
            sender.new_message(
                1,
                Draft {
                    priority: Priority::Low,
                    ..draft(&format!("o{n}"))
                },
                at(0),
            )
        })
        .collect();
    intake(&store, &batch, at(0)).await;
    assert_eq!(claim(&store, 100, at(1)).await.len(), 80);
    let stuck = claim_batch(&store, 100, "", at(1)).await;
    assert_eq!(
        (stuck.claimed.len(), stuck.more),
        (0, false),
        "a worker must not spin on what it may not send"
    );
    sender
        .send(
            1,
            Draft {
                priority: Priority::High,
                ..draft("high")
            },
            at(2),
        )
        .await;
    assert_eq!(claim(&store, 100, at(3)).await[0].touser, "high");
}

async fn a_paused_app_rests_and_others_go_on(store: Store) {
    let mut resting = Sender::new(&store, 1).await;
    let mut working = Sender::new(&store, 2).await;
    resting.send(1, draft("o1"), at(0)).await;
    working.send(2, draft("o1"), at(0)).await;
    let pause = LanePause {
        appid: appid(1),
        until: at(60),
        reason: "wrong_secret".into(),
        detail: "set it".into(),
        refused: 1,
        by_probe: false,
    };
    let pause = LaneNews::Pause(pause);
    store.platform().record(&[], &[pause], at(0)).await.unwrap();
    assert_eq!(
        claim(&store, 8, at(1))
            .await
            .iter()
            .map(|f| f.appid.clone())
            .collect::<Vec<_>>(),
        [appid(2)]
    );
    assert!(claim(&store, 8, at(59)).await.is_empty());
    store
        .tenant(working.tenant)
        .resume_lane(&appid(1))
        .await
        .unwrap_err();
    store
        .tenant(resting.tenant)
        .resume_lane(&appid(1))
        .await
        .unwrap();
    assert_eq!(claim(&store, 8, at(59)).await.len(), 1);
}

async fn a_lost_lease_is_found_and_wechats_last_word_corrects_it(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let id = sender.send(1, draft("o1"), at(0)).await;
    let flights = claim(&store, 8, at(1)).await;
    assert!(store.platform().overdue(at(60)).await.unwrap().is_empty());
    let lost = store.platform().overdue(at(61)).await.unwrap();
    assert_eq!(lost, flights);
    assert_eq!(record(&store, &lost, &Event::LeaseEnded, at(61)).await, 1);
    assert_eq!(sender.status(id).await, Status::Uncertain);
    let open = Event::Answered(Verdict::Later(Delay::Backoff));
    assert_eq!(
        record(&store, &flights, &open, at(62)).await,
        0,
        "no last word, and too late"
    );
    assert_eq!(record(&store, &flights, &accepted(1), at(62)).await, 1);
    assert_eq!(sender.status(id).await, Status::Sent);
    assert_eq!(
        record(&store, &flights, &accepted(2), at(63)).await,
        0,
        "it is settled"
    );
}

async fn a_message_that_flies_again_is_its_new_claims(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let wanted_again = Draft {
        on_uncertain: OnUncertain::Retry,
        ..draft("o1")
    };
    let id = sender.send(1, wanted_again, at(0)).await;
    let first = claim(&store, 8, at(1)).await;
    record(&store, &first, &Event::LeaseEnded, at(61)).await;
    store.platform().promote(at(70)).await.unwrap();
    let second = claim(&store, 8, at(70) + Duration::from_millis(5)).await;
    assert_eq!(second[0].id, id);
    assert_eq!(record(&store, &first, &accepted(1), at(71)).await, 0);
    assert_eq!(record(&store, &second, &accepted(2), at(71)).await, 1);
    assert_eq!(sender.status(id).await, Status::Sent);
}

async fn a_claim_that_nobody_got_is_taken_back(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let id = sender.send(1, draft("o1"), at(0)).await;
    let flights = claim(&store, 8, at(1)).await;
    let platform = store.platform();
    platform.disown(flights[0].lease + 1, at(2)).await.unwrap();
    assert_eq!(sender.status(id).await, Status::Sending);
    platform.disown(flights[0].lease, at(2)).await.unwrap();
    assert_eq!(sender.status(id).await, Status::Queued);
    let door = store.tenant(sender.tenant);
    assert_eq!(door.quota_use(&appid(1), at(2)).await.unwrap().used, 0);
    assert_eq!(claim(&store, 8, at(3)).await[0].claims, 1);
}

async fn a_retry_waits_and_comes_back(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let id = sender.send(1, draft("o1"), at(0)).await;
    let flights = claim(&store, 8, at(1)).await;
    let later = Event::Answered(Verdict::Later(Delay::After(Duration::from_secs(30))));
    record(&store, &flights, &later, at(1)).await;
    assert_eq!(sender.status(id).await, Status::Queued);
    assert!(claim(&store, 8, at(30)).await.is_empty());
    assert_eq!(store.platform().next_due().await.unwrap(), Some(at(31)));
    store.platform().promote(at(31)).await.unwrap();
    assert_eq!(claim(&store, 8, at(31)).await[0].id, id);
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

async fn quota_is_given_back_for_what_never_left(store: Store) {
    let tenant = onboard(&store, 1, 2).await;
    let mut sender = Sender {
        store: &store,
        tenant,
        next: 0,
    };
    for n in 0..3 {
        sender.send(1, draft(&format!("o{n}")), at(n)).await;
    }
    let flights = claim(&store, 8, at(5)).await;
    assert_eq!(flights.len(), 2, "the quota");
    assert!(claim(&store, 8, at(5)).await.is_empty());
    let batch: Vec<Settlement> = flights
        .iter()
        .map(|flight| Settlement {
            refund: Some(flight.claimed_at),
            ..settle(flight, &Event::Released, at(6))
        })
        .collect();
    store.platform().record(&batch, &[], at(6)).await.unwrap();
    let used = || async {
        store
            .tenant(tenant)
            .quota_use(&appid(1), at(7))
            .await
            .unwrap()
            .used
    };
    assert_eq!(used().await, 0);
    assert_eq!(claim(&store, 8, at(7)).await.len(), 2, "the lane goes on");
    assert_eq!(used().await, 2);
    // What was charged to another day is not given back to this one.
    let stale = Settlement {
        refund: Some(at(5) - chrono::Duration::days(1)),
        ..batch[0].clone()
    };
    store.platform().record(&[stale], &[], at(8)).await.unwrap();
    assert_eq!(used().await, 2);
}

async fn a_removed_apps_messages_are_nobodys(store: Store) {
    let mut former = Sender::new(&store, 1).await;
    let now_or_later = [None, Some(at(50))];
    let mut unsent = Vec::new();
    for send_at in now_or_later {
        unsent.push(
            former
                .send(
                    1,
                    Draft {
                        send_at,
                        ..draft("o1")
                    },
                    at(0),
                )
                .await,
        );
    }
    let flights = claim(&store, 8, at(1)).await;
    store
        .tenant(former.tenant)
        .delete_app(&appid(1), at(2))
        .await
        .unwrap();
    assert_eq!(former.status(unsent[1]).await, Status::Canceled);

    // The flight comes back when its app is gone, and again when the appid has another owner.
    record(&store, &flights, &Event::Released, at(3)).await;
    let owner = onboard(&store, 2, 10).await;
    let app = wxgate_store::NewApp {
        appid: appid(1),
        ..crate::common::new_app(1)
    };
    store.tenant(owner).create_app(app, at(4)).await.unwrap();
    assert!(
        claim(&store, 8, at(5)).await.is_empty(),
        "never in the name of the new owner"
    );
    assert_eq!(former.status(unsent[0]).await, Status::Canceled);

    // Without a new owner the claim calls it back as well.
    let mut lonely = Sender::new(&store, 3).await;
    let id = lonely.send(3, draft("o1"), at(6)).await;
    let flights = claim(&store, 8, at(7)).await;
    store
        .tenant(lonely.tenant)
        .delete_app(&appid(3), at(8))
        .await
        .unwrap();
    record(&store, &flights, &Event::Released, at(9)).await;
    assert!(claim(&store, 8, at(10)).await.is_empty());
    assert_eq!(lonely.status(id).await, Status::Canceled);
}

async fn a_lapsed_message_that_may_have_been_sent_is_uncertain(store: Store) {
    use domain::verdict::{Attempt, Outcome};
    let mut sender = Sender::new(&store, 1).await;
    let careless = Draft {
        on_uncertain: domain::message::OnUncertain::Retry,
        ..draft("o1")
    };
    let id = sender.send(1, careless, at(0)).await;
    let flights = claim(&store, 8, at(1)).await;
    let unknown = Attempt {
        number: 1,
        started_at: at(1),
        duration_ms: 5000,
        outcome: Outcome::Unknown,
        errcode: None,
        errmsg: Some("the connection broke".into()),
        rid: None,
    };
    let settlement = Settlement {
        attempts: vec![unknown],
        ..settle(&flights[0], &Event::Answered(Verdict::Unknown), at(6))
    };
    store
        .platform()
        .record(&[settlement], &[], at(6))
        .await
        .unwrap();
    assert_eq!(sender.status(id).await, Status::Queued);
    store.platform().expire(at(4000)).await.unwrap();
    let message = store
        .tenant(sender.tenant)
        .message(id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (message.status, message.failure.unwrap().code),
        (Status::Uncertain, FailureCode::Unanswered)
    );
}
