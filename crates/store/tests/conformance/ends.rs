//! The ends of messages: the same rules on SQLite and on PostgreSQL.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use chrono::{DateTime, Utc};
use domain::{
    id::{MessageId, WebhookId},
    lifecycle::{Event, Status},
    message::{Draft, OnUncertain},
    quota::PriorityShares,
    retry::Delay,
    verdict::{Attempt, FailureCode, Outcome, Verdict},
    webhook::{EventFilter, EventType},
};
use futures::future::join_all;
use wxgate_store::{ClaimRequest, ClaimedMessage, NewReceipt, Page, Settlement, Store};

use crate::{
    common::{at, draft, on_both},
    queue::{Sender, accepted, settle},
    receipts::receipt,
    webhooks::endpoint,
};

on_both! {
    an_end_is_told_once_whoever_writes_it
    every_end_is_told_once_and_in_order
}

/// The events of each message for the endpoint, in the order of the events.
async fn told(sender: &Sender<'_>, webhook: WebhookId) -> BTreeMap<MessageId, Vec<EventType>> {
    let door = sender.store.tenant(sender.tenant);
    let mut told: BTreeMap<MessageId, Vec<EventType>> = BTreeMap::new();
    let mut page = Page {
        limit: 200,
        after: None,
    };
    loop {
        let listing = door.webhook_deliveries(webhook, None, &page).await.unwrap();
        for one in listing.items {
            told.entry(one.message.unwrap()).or_default().push(one.kind);
        }
        match listing.next {
            Some(after) => page.after = Some(after),
            None => break,
        }
    }
    // The list has the newest event first.
    for kinds in told.values_mut() {
        kinds.reverse();
    }
    told
}

async fn claim(store: &Store, lease: i64, now: DateTime<Utc>) -> Vec<ClaimedMessage> {
    let request = ClaimRequest {
        slots: 64,
        apps: Vec::new(),
        cursor: String::new(),
        lease,
        lease_until: now + Duration::from_mins(1),
        shares: PriorityShares::default(),
    };
    store.platform().claim(&request, now).await.unwrap().claimed
}

async fn an_end_is_told_once_whoever_writes_it(store: Store) {
    const MESSAGES: i64 = 300;
    let mut sender = Sender::new(&store, 1).await;
    let webhook = endpoint(&store, sender.tenant, 1, EventFilter::All).await;
    for number in 0..MESSAGES {
        let short = Draft {
            ttl: Duration::from_mins(1),
            ..draft(&format!("o{number}"))
        };
        sender.send(1, short, at(0)).await;
    }
    // Four replicas claim and sweep expired messages, each by a clock of its own.
    let replicas = (0..4).map(|replica| {
        let store = &store;
        async move {
            for round in 0..40 {
                let now = at(60 + round) + Duration::from_millis(replica);
                let lease = round * 10 + i64::try_from(replica).unwrap();
                let swept = async { store.platform().expire(now).await.unwrap().len() };
                let (claimed, _) = futures::join!(claim(store, lease, now), swept);
                assert_eq!(claimed, []);
            }
        }
    });
    join_all(replicas).await;
    let told = told(&sender, webhook).await;
    assert_eq!(told.len(), usize::try_from(MESSAGES).unwrap());
    for (message, kinds) in told {
        assert_eq!(kinds, [EventType::MessageExpired], "{message}");
    }
}

/// Pseudo-random numbers, the same for the same seed.
struct Dice(u64);

impl Dice {
    /// One of `0..sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % sides
    }
}

/// A possible event that ends an attempt.
fn landing(dice: &mut Dice) -> Event {
    match dice.roll(7) {
        0 => Event::LeaseEnded,
        1 | 2 => Event::Answered(Verdict::Unknown),
        3 => Event::Answered(Verdict::Rejected(FailureCode::NoGrant)),
        4 => Event::Answered(Verdict::Later(Delay::Moment)),
        5 => Event::Released,
        _ => accepted(dice.roll(3) + 1),
    }
}

/// The settlement with the attempt, as the gateway records an attempt.
fn landed(flight: &ClaimedMessage, event: &Event, now: DateTime<Utc>) -> Settlement {
    let mut settlement = settle(flight, event, now);
    let outcome = match event {
        Event::Answered(verdict) => verdict.outcome(),
        Event::LeaseEnded => Outcome::Unknown,
        _ => return settlement,
    };
    settlement.attempts.push(Attempt {
        number: u32::try_from(flight.attempts.len() + 1).unwrap(),
        started_at: now,
        duration_ms: 5,
        outcome,
        errcode: None,
        errmsg: None,
        rid: None,
    });
    settlement
}

/// All that replicas do with the messages of three users at one moment, some actions at once and some late.
struct Replicas<'a> {
    store: &'a Store,
    sender: Sender<'a>,
    dice: Dice,
    ids: Vec<MessageId>,
    /// Messages in flight, and messages with an ended lease and an outcome still to come.
    flights: Vec<ClaimedMessage>,
    retried: HashMap<MessageId, usize>,
    lease: i64,
}

impl Replicas<'_> {
    async fn step(&mut self, now: DateTime<Utc>) {
        let platform = self.store.platform();
        match self.dice.roll(9) {
            0 | 1 => {
                let ttl = [2, 20, 3000][usize::try_from(self.dice.roll(3)).unwrap()];
                let on_uncertain = match self.dice.roll(2) {
                    0 => OnUncertain::Hold,
                    _ => OnUncertain::Retry,
                };
                let message = Draft {
                    ttl: Duration::from_secs(ttl),
                    on_uncertain,
                    ..draft(&format!("o{}", self.dice.roll(3)))
                };
                self.ids.push(self.sender.send(1, message, now).await);
            }
            2 | 3 => {
                self.lease += 2;
                let (a, b, _, _) = futures::join!(
                    claim(self.store, self.lease, now),
                    claim(self.store, self.lease + 1, now),
                    platform.expire(now),
                    platform.promote(now)
                );
                self.flights.extend(a.into_iter().chain(b));
            }
            4 | 5 => self.land(now).await,
            6 => {
                let touser = format!("o{}", self.dice.roll(3));
                let one = receipt(&touser, self.dice.roll(3) + 1);
                let both: [NewReceipt; 1] = [one];
                let (a, b) =
                    futures::join!(platform.receive(&both, now), platform.receive(&both, now));
                assert!(a.unwrap().0.len() + b.unwrap().0.len() <= 1);
            }
            7 => {
                let (a, b) = futures::join!(platform.expire(now), platform.expire(now));
                a.and(b).unwrap();
                platform.sweep_receipts("", now).await.unwrap();
            }
            _ => self.change(now).await,
        }
    }

    /// One attempt ends, perhaps in two ways at once: by the end of the lease, and by the worker's late outcome.
    async fn land(&mut self, now: DateTime<Utc>) {
        if self.flights.is_empty() {
            return;
        }
        let sides = u64::try_from(self.flights.len()).unwrap();
        let flight = self
            .flights
            .swap_remove(usize::try_from(self.dice.roll(sides)).unwrap());
        let one = landed(&flight, &landing(&mut self.dice), now);
        let other = landed(&flight, &landing(&mut self.dice), now);
        let platform = self.store.platform();
        if self.dice.roll(2) == 0 {
            platform.record(&[one], &[], now).await.unwrap();
            self.flights.push(flight);
        } else {
            let (one, other) = ([one], [other]);
            let (a, b) = futures::join!(
                platform.record(&one, &[], now),
                platform.record(&other, &[], now)
            );
            a.and(b).unwrap();
        }
    }

    /// The tenant cancels one of the messages, or retries the message.
    async fn change(&mut self, now: DateTime<Utc>) {
        let sides = u64::try_from(self.ids.len()).unwrap().max(1);
        let Some(&id) = self
            .ids
            .get(usize::try_from(self.dice.roll(sides)).unwrap())
        else {
            return;
        };
        let door = self.store.tenant(self.sender.tenant);
        if self.dice.roll(2) == 0 {
            let (a, b) = futures::join!(door.cancel(id, now), door.cancel(id, now));
            a.and(b).unwrap();
        } else {
            let retried = door
                .retry(id, None, PriorityShares::default(), now)
                .await
                .unwrap();
            if matches!(retried, wxgate_store::Retried::Queued(_)) {
                *self.retried.entry(id).or_default() += 1;
            }
        }
    }
}

async fn every_end_is_told_once_and_in_order(store: Store) {
    let sender = Sender::new(&store, 1).await;
    let webhook = endpoint(&store, sender.tenant, 1, EventFilter::All).await;
    let mut replicas = Replicas {
        store: &store,
        sender,
        dice: Dice(0),
        ids: Vec::new(),
        flights: Vec::new(),
        retried: HashMap::new(),
        lease: 0,
    };
    for seed in 1..=12 {
        replicas.dice = Dice(seed);
        let mut now = at(i64::try_from(seed).unwrap() * 10_000);
        for _ in 0..120 {
            // Often in the same millisecond, sometimes by a slow clock.
            now += Duration::from_millis(
                [0, 0, 1, 700, 5000][usize::try_from(replicas.dice.roll(5)).unwrap()],
            );
            let behind = Duration::from_millis(replicas.dice.roll(2) * 20);
            Box::pin(replicas.step(now - behind)).await;
        }
    }
    let told = told(&replicas.sender, webhook).await;
    let mut ends = 0;
    for id in &replicas.ids {
        let message = store.platform().message(*id).await.unwrap().unwrap();
        let kinds = told.get(id).cloned().unwrap_or_default();
        let retries = replicas.retried.get(id).copied().unwrap_or_default();
        for kind in EventType::ALL {
            let times = kinds.iter().filter(|told| **told == kind).count();
            assert!(
                times <= 1 + retries,
                "{id}: {kinds:?} with {retries} retries"
            );
        }
        if let Some(kind) = EventType::of(message.status) {
            assert_eq!(kinds.last(), Some(&kind), "{id}: {kinds:?}");
            ends += 1;
        }
        let unanswered = |attempt: &Attempt| attempt.outcome == Outcome::Unknown;
        let unsent = [Status::Failed, Status::Expired, Status::Canceled];
        assert!(
            !(unsent.contains(&message.status) && message.attempts.iter().any(unanswered)),
            "{message:?}"
        );
    }
    assert!(
        ends > 50,
        "{ends} ends among {} messages",
        replicas.ids.len()
    );
}
