//! The pool and the ledger: the same rules on SQLite and on PostgreSQL.

use chrono::{DateTime, Duration, Utc};
use domain::{
    grant::{Entry, GrantPolicy, IdKind, NewGrant, usable_until},
    id::{MessageId, TenantId},
    lifecycle::{Event, Status},
    message::{Channel, Content, Draft},
    retry::Delay,
    verdict::{FailureCode, Verdict},
};
use futures::future::join_all;
use wxgate_store::{
    AppPatch, Claimed, Collected, Collection, Grant, GrantEntry, HeardEvent, HeardNews,
    IdempotencyKey, LedgerNews, Page, PoolCount, PooledId, Reach, Store, StoreError,
};

use crate::{
    common::{appid, at, draft, on_both, onboard},
    queue::{Sender, claim, claim_batch, record},
};

on_both! {
    the_id_that_expires_first_is_taken_and_each_once
    an_id_is_its_users_and_its_apps
    a_refused_id_is_dropped_and_the_next_one_taken
    what_was_not_sent_gives_its_id_back
    an_id_that_may_have_been_used_stays_with_its_message
    a_prepay_id_is_good_for_three_and_one_in_doubt_is_spent
    a_claim_that_nobody_got_gives_back_what_it_took
    an_old_id_is_not_taken_and_forgotten_later
    collecting_again_changes_nothing
    concurrent_requests_with_the_same_ids_agree
    a_request_is_answered_the_same_under_its_key
    strict_messages_are_sent_as_often_as_was_accepted
    a_reserved_grant_comes_back_and_a_refusal_takes_all
    long_term_grants_do_not_count_down
    observed_messages_count_where_there_is_a_ledger
    an_acceptance_counts_once_whoever_tells_of_it
    claims_records_and_reports_do_not_wait_for_each_other_in_a_circle
    counts_and_reach_say_who_can_be_written_to
    a_users_grants_are_listed_in_pages
    a_removed_apps_grants_are_gone
}

fn id(kind: IdKind, openid: &str, value: &str, collected_at: DateTime<Utc>) -> GrantEntry {
    GrantEntry::Grant(NewGrant::Id {
        kind,
        openid: openid.into(),
        value: value.into(),
        collected_at,
    })
}

fn form_id(openid: &str, value: &str) -> GrantEntry {
    id(IdKind::FormId, openid, value, at(0))
}

fn subscription(openid: &str, count: u32) -> GrantEntry {
    lasting(openid, count, false)
}

fn lasting(openid: &str, count: u32, long_term: bool) -> GrantEntry {
    GrantEntry::Grant(NewGrant::Subscription {
        openid: openid.into(),
        template_id: "tpl".into(),
        count,
        long_term,
        accepted_at: at(0),
    })
}

async fn collect(store: &Store, tenant: TenantId, items: &[GrantEntry]) -> Vec<Collected> {
    let door = store.tenant(tenant);
    match door.collect(&appid(1), items, None, at(0)).await.unwrap() {
        Collection::Fresh(results) => results,
        other => panic!("{other:?}"),
    }
}

/// A template message that takes its id from the pool.
fn template(touser: &str) -> Draft {
    let content = Content::Template {
        data: serde_json::Map::new(),
        page: None,
        form_id: None,
        emphasis_keyword: None,
    };
    Draft {
        content,
        ..draft(touser)
    }
}

fn strict(touser: &str) -> Draft {
    Draft {
        grant_policy: Some(GrantPolicy::Strict),
        ..draft(touser)
    }
}

/// The form id that a flight is sent with.
fn sent_with(flight: &Claimed) -> &str {
    match &flight.content {
        Content::Template { form_id, .. } => form_id.as_deref().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn ok() -> Event {
    Event::Answered(Verdict::Accepted { msgid: None })
}

fn refused_id() -> Event {
    Event::Answered(Verdict::Later(Delay::AtOnce))
}

fn rejected(code: FailureCode) -> Event {
    Event::Answered(Verdict::Rejected(code))
}

async fn failure(sender: &Sender<'_>, id: MessageId) -> (Status, Option<FailureCode>) {
    let message = sender.store.tenant(sender.tenant).message(id).await;
    let message = message.unwrap().unwrap();
    (message.status, message.failure.map(|failure| failure.code))
}

/// The only flight there is.
async fn flight(store: &Store, second: i64) -> Claimed {
    let mut flights = claim(store, 8, at(second)).await;
    assert_eq!(flights.len(), 1, "{flights:?}");
    flights.remove(0)
}

async fn end(store: &Store, flight: &Claimed, event: &Event, second: i64) {
    let flights = std::slice::from_ref(flight);
    assert_eq!(record(store, flights, event, at(second)).await, 1);
}

async fn grants(store: &Store, tenant: TenantId, openid: &str, now: DateTime<Utc>) -> Vec<Grant> {
    let page = Page {
        limit: 100,
        after: None,
    };
    let door = store.tenant(tenant);
    let listing = door.grants(&appid(1), openid, &page, now).await.unwrap();
    assert_eq!(listing.next, None);
    listing.items
}

async fn ids(store: &Store, tenant: TenantId, openid: &str) -> Vec<PooledId> {
    let grants = grants(store, tenant, openid, at(1)).await.into_iter();
    let ids = grants.filter_map(|grant| match grant {
        Grant::Id(id) => Some(id),
        Grant::Subscription(_) => None,
    });
    ids.collect()
}

async fn remaining(store: &Store, tenant: TenantId, openid: &str) -> u32 {
    let grants = grants(store, tenant, openid, at(1)).await.into_iter();
    let counts = grants.map(|grant| match grant {
        Grant::Subscription(subscription) => subscription.remaining,
        Grant::Id(_) => 0,
    });
    counts.sum()
}

async fn the_id_that_expires_first_is_taken_and_each_once(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let ages = [("middle", 20), ("youngest", 10), ("oldest", 30)];
    let entries = ages.map(|(value, minutes)| {
        let collected_at = at(0) - Duration::minutes(minutes);
        id(IdKind::FormId, "o1", value, collected_at)
    });
    collect(&store, sender.tenant, &entries).await;
    let mut messages = Vec::new();
    for _ in 0..4 {
        messages.push(sender.send(1, template("o1"), at(0)).await);
    }
    let mut used = Vec::new();
    for second in [1, 3, 5] {
        let flight = flight(&store, second).await;
        used.push(sent_with(&flight).to_owned());
        end(&store, &flight, &ok(), second + 1).await;
    }
    assert_eq!(used, ["oldest", "middle", "youngest"]);
    let before = store
        .tenant(sender.tenant)
        .quota_use(&appid(1), at(6))
        .await;
    let last = claim_batch(&store, 8, "", at(7)).await;
    assert!(last.claimed.is_empty());
    assert_eq!(last.unpermitted, messages[3..]);
    let ended = (Status::Failed, Some(FailureCode::NoGrant));
    assert_eq!(failure(&sender, messages[3]).await, ended);
    let after = store
        .tenant(sender.tenant)
        .quota_use(&appid(1), at(7))
        .await;
    assert_eq!(before.unwrap().used, 3);
    assert_eq!(
        after.unwrap().used,
        3,
        "nothing was sent, nothing is charged"
    );
    let message = store.tenant(sender.tenant).message(messages[3]).await;
    let failure = message.unwrap().unwrap().failure.unwrap();
    assert!(
        failure.detail.contains("the pool has no form id"),
        "{failure:?}"
    );
}

async fn an_id_is_its_users_and_its_apps(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    collect(&store, sender.tenant, &[form_id("o1", "f1")]).await;
    let other = sender.send(1, template("o2"), at(0)).await;
    let own = sender.send(1, template("o1"), at(0)).await;
    let flights = claim(&store, 8, at(1)).await;
    assert_eq!(flights.iter().map(|one| one.id).collect::<Vec<_>>(), [own]);
    assert_eq!(sender.status(other).await, Status::Failed);
    let stranger = onboard(&store, 2, 10).await;
    let (door, items) = (store.tenant(stranger), [form_id("o1", "f1")]);
    let foreign = door.collect(&appid(1), &items, None, at(1)).await;
    assert!(matches!(foreign, Err(StoreError::NotFound("app"))));
}

async fn a_refused_id_is_dropped_and_the_next_one_taken(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let old = id(IdKind::FormId, "o1", "bad", at(-60));
    collect(&store, sender.tenant, &[form_id("o1", "good"), old]).await;
    let message = sender.send(1, template("o1"), at(0)).await;
    let first = flight(&store, 1).await;
    assert_eq!(sent_with(&first), "bad");
    end(&store, &first, &refused_id(), 2).await;
    assert_eq!(sender.status(message).await, Status::Queued);
    let second = flight(&store, 2).await;
    assert_eq!(sent_with(&second), "good");
    end(&store, &second, &ok(), 3).await;
    assert_eq!(sender.status(message).await, Status::Sent);
    assert_eq!(ids(&store, sender.tenant, "o1").await, []);
}

async fn what_was_not_sent_gives_its_id_back(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    collect(&store, sender.tenant, &[form_id("o1", "f1")]).await;
    sender.send(1, template("o1"), at(0)).await;
    let busy = flight(&store, 1).await;
    assert!(ids(&store, sender.tenant, "o1").await[0].is_held);
    end(
        &store,
        &busy,
        &Event::Answered(Verdict::Later(Delay::Moment)),
        1,
    )
    .await;
    assert!(!ids(&store, sender.tenant, "o1").await[0].is_held);
    store.platform().promote(at(5)).await.unwrap();
    let again = flight(&store, 5).await;
    end(&store, &again, &rejected(FailureCode::InvalidPage), 6).await;
    sender.send(1, template("o1"), at(7)).await;
    let next = flight(&store, 7).await;
    assert_eq!(sent_with(&next), "f1");
}

async fn an_id_that_may_have_been_used_stays_with_its_message(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    collect(&store, sender.tenant, &[form_id("o1", "f1")]).await;
    let lost = sender.send(1, template("o1"), at(0)).await;
    flight(&store, 1).await;
    let overdue = store.platform().overdue(at(120)).await.unwrap();
    end(&store, &overdue[0], &Event::LeaseEnded, 120).await;
    assert_eq!(
        sender.status(lost).await,
        Status::Queued,
        "WeChat refuses a second copy with this id, so that it is sent again"
    );
    let other = sender.send(1, template("o1"), at(121)).await;
    let flights = claim(&store, 8, at(122)).await;
    assert!(flights.is_empty(), "{flights:?}");
    assert_eq!(
        sender.status(other).await,
        Status::Failed,
        "the id is nobody else's"
    );
    store.platform().promote(at(200)).await.unwrap();
    let again = flight(&store, 200).await;
    assert_eq!((again.id, sent_with(&again)), (lost, "f1"));
    // Not sent this time; the try before stays in doubt, and the id with its message.
    end(&store, &again, &Event::Released, 201).await;
    assert!(ids(&store, sender.tenant, "o1").await[0].is_held);
    let third = flight(&store, 202).await;
    assert_eq!(sent_with(&third), "f1");
    end(&store, &third, &ok(), 203).await;
    assert_eq!(sender.status(lost).await, Status::Sent);
    assert_eq!(ids(&store, sender.tenant, "o1").await, []);
}

async fn a_prepay_id_is_good_for_three_and_one_in_doubt_is_spent(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let prepay = id(IdKind::PrepayId, "o1", "wx2017", at(0));
    collect(&store, sender.tenant, &[prepay]).await;
    let lost = sender.send(1, template("o1"), at(0)).await;
    flight(&store, 1).await;
    let overdue = store.platform().overdue(at(120)).await.unwrap();
    end(&store, &overdue[0], &Event::LeaseEnded, 120).await;
    assert_eq!(sender.status(lost).await, Status::Uncertain);
    let left = ids(&store, sender.tenant, "o1").await;
    assert_eq!((left[0].uses_left, left[0].is_held), (2, false));
    // WeChat's last word comes late, and is counted already.
    end(&store, &overdue[0], &ok(), 121).await;
    assert_eq!(ids(&store, sender.tenant, "o1").await[0].uses_left, 2);
    for second in [130, 132] {
        sender.send(1, template("o1"), at(second)).await;
        let flight = flight(&store, second).await;
        end(&store, &flight, &ok(), second + 1).await;
    }
    assert_eq!(ids(&store, sender.tenant, "o1").await, []);
}

async fn a_claim_that_nobody_got_gives_back_what_it_took(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let items = [form_id("o1", "f1"), subscription("o2", 1)];
    collect(&store, sender.tenant, &items).await;
    sender.send(1, template("o1"), at(0)).await;
    sender.send(1, strict("o2"), at(0)).await;
    let flights = claim(&store, 8, at(1)).await;
    assert_eq!(flights.len(), 2);
    assert_eq!(remaining(&store, sender.tenant, "o2").await, 0);
    store
        .platform()
        .disown(flights[0].lease, at(2))
        .await
        .unwrap();
    assert!(!ids(&store, sender.tenant, "o1").await[0].is_held);
    assert_eq!(remaining(&store, sender.tenant, "o2").await, 1);
    assert_eq!(claim(&store, 8, at(3)).await.len(), 2);
}

async fn an_old_id_is_not_taken_and_forgotten_later(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    collect(&store, sender.tenant, &[form_id("o1", "f1")]).await;
    let over = usable_until(at(0));
    assert_eq!(grants(&store, sender.tenant, "o1", over).await, []);
    let message = sender.send(1, template("o1"), over).await;
    assert!(claim(&store, 8, over).await.is_empty());
    assert_eq!(sender.status(message).await, Status::Failed);
    let platform = store.platform();
    assert_eq!(platform.forget_form_ids(over).await.unwrap().moved, 0);
    let later = over + Duration::days(1) + Duration::seconds(1);
    assert_eq!(platform.forget_form_ids(later).await.unwrap().moved, 1);
}

async fn collecting_again_changes_nothing(store: Store) {
    let sender = Sender::new(&store, 1).await;
    let items = [
        form_id("o1", "f1"),
        form_id("o1", "f1"),
        form_id("o2", "f1"),
    ];
    let results = collect(&store, sender.tenant, &items).await;
    let Collected::Added(Grant::Id(added)) = &results[0] else {
        panic!("{results:?}")
    };
    assert_eq!(
        (added.uses_left, added.is_held, added.usable_until),
        (1, false, usable_until(at(0)))
    );
    assert_eq!(results[1], Collected::Known(Grant::Id(added.clone())));
    assert_eq!(results[2], Collected::Foreign);
    let unfit = GrantEntry::Unfit("words".into());
    let results = collect(&store, sender.tenant, &[unfit, form_id("o1", "f1")]).await;
    assert_eq!(results[0], Collected::Unfit("words".into()));
    assert!(matches!(results[1], Collected::Known(_)));
    assert_eq!(collect(&store, sender.tenant, &[]).await, []);
}

async fn concurrent_requests_with_the_same_ids_agree(store: Store) {
    let sender = Sender::new(&store, 1).await;
    let (store, tenant) = (&store, sender.tenant);
    let requests = (0..8).map(|turn| async move {
        let mut items: Vec<GrantEntry> = (0..50)
            .map(|number| form_id("o1", &format!("f{number}")))
            .collect();
        items.rotate_left(turn * 6);
        items.push(subscription("o1", 1));
        collect(store, tenant, &items).await
    });
    let results = join_all(requests).await.into_iter().flatten();
    let added = results.filter(|one| matches!(one, Collected::Added(Grant::Id(_))));
    assert_eq!(added.count(), 50);
    assert_eq!(remaining(store, tenant, "o1").await, 8, "none is lost");
}

async fn a_request_is_answered_the_same_under_its_key(store: Store) {
    let sender = Sender::new(&store, 1).await;
    let door = store.tenant(sender.tenant);
    let key = |fingerprint: u8| IdempotencyKey {
        key: "k1".into(),
        fingerprint: [fingerprint; 32],
        kept_for: IdempotencyKey::DAY,
    };
    let items = [
        form_id("o1", "f1"),
        subscription("o1", 2),
        GrantEntry::Unfit("words".into()),
    ];
    let ask = async |fingerprint: u8| {
        let key = key(fingerprint);
        door.collect(&appid(1), &items, Some(&key), at(0)).await
    };
    let Collection::Fresh(first) = ask(1).await.unwrap() else {
        panic!("fresh")
    };
    assert_eq!(ask(1).await.unwrap(), Collection::Replayed(first));
    assert_eq!(ask(2).await.unwrap(), Collection::KeyReused);
    assert_eq!(remaining(&store, sender.tenant, "o1").await, 2);
}

async fn strict_messages_are_sent_as_often_as_was_accepted(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let patch = AppPatch {
        grant_policy: Some(GrantPolicy::Strict),
        ..AppPatch::default()
    };
    let door = store.tenant(sender.tenant);
    door.update_app(&appid(1), patch, at(0)).await.unwrap();
    collect(&store, sender.tenant, &[subscription("o1", 2)]).await;
    let mut messages = Vec::new();
    for _ in 0..3 {
        messages.push(sender.send(1, draft("o1"), at(0)).await);
    }
    let observed = Draft {
        grant_policy: Some(GrantPolicy::Observe),
        ..draft("o2")
    };
    let free = sender.send(1, observed, at(0)).await;
    let ungranted = sender.send(1, draft("o3"), at(0)).await;
    for second in [1, 3, 5] {
        let flights = claim(&store, 8, at(second)).await;
        record(&store, &flights, &ok(), at(second + 1)).await;
    }
    for sent in [messages[0], messages[1], free] {
        assert_eq!(sender.status(sent).await, Status::Sent);
    }
    for unsent in [messages[2], ungranted] {
        let ended = (Status::Failed, Some(FailureCode::NoGrant));
        assert_eq!(failure(&sender, unsent).await, ended);
    }
    assert_eq!(remaining(&store, sender.tenant, "o1").await, 0);
}

async fn a_reserved_grant_comes_back_and_a_refusal_takes_all(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    collect(&store, sender.tenant, &[subscription("o1", 5)]).await;
    let mut second = 0;
    for (event, left) in [
        (rejected(FailureCode::InvalidValue), 5),
        (Event::Answered(Verdict::Unknown), 4),
        (ok(), 3),
        (rejected(FailureCode::NoGrant), 0),
    ] {
        second += 2;
        sender.send(1, strict("o1"), at(second)).await;
        let flight = flight(&store, second).await;
        end(&store, &flight, &event, second + 1).await;
        let remaining = remaining(&store, sender.tenant, "o1").await;
        assert_eq!(remaining, left, "{event:?}");
    }
}

async fn long_term_grants_do_not_count_down(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    collect(&store, sender.tenant, &[lasting("o1", 1, true)]).await;
    for second in [1, 3, 5] {
        let draft = if second == 3 {
            draft("o1")
        } else {
            strict("o1")
        };
        sender.send(1, draft, at(second)).await;
        let flight = flight(&store, second).await;
        end(&store, &flight, &ok(), second + 1).await;
    }
    assert_eq!(remaining(&store, sender.tenant, "o1").await, 1);
    sender.send(1, draft("o1"), at(7)).await;
    let last = flight(&store, 7).await;
    end(&store, &last, &rejected(FailureCode::NoGrant), 8).await;
    assert_eq!(remaining(&store, sender.tenant, "o1").await, 0);
}

async fn observed_messages_count_where_there_is_a_ledger(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    sender.send(1, draft("o1"), at(0)).await;
    let free = flight(&store, 0).await;
    assert_eq!(free.grant_news(&ok()), None, "there is no ledger yet");
    end(&store, &free, &ok(), 0).await;
    collect(&store, sender.tenant, &[subscription("o1", 2)]).await;
    for (second, left) in [(1, 1), (3, 0), (5, 0)] {
        sender.send(1, draft("o1"), at(second)).await;
        let flight = flight(&store, second).await;
        end(&store, &flight, &ok(), second + 1).await;
        assert_eq!(remaining(&store, sender.tenant, "o1").await, left);
    }
}

fn heard(number: u8, openid: &str, entry: Entry) -> HeardNews {
    HeardNews {
        event: HeardEvent {
            appid: appid(1),
            digest: [number; 32],
        },
        entries: vec![LedgerNews {
            appid: appid(1),
            openid: openid.into(),
            template_id: "tpl".into(),
            entry,
        }],
    }
}

async fn an_acceptance_counts_once_whoever_tells_of_it(store: Store) {
    let sender = Sender::new(&store, 1).await;
    let tell = async |news: &[HeardNews]| {
        store
            .platform()
            .remember_events(news, at(1))
            .await
            .unwrap()
            .len()
    };
    let yes = |number: u8, openid: &str| heard(number, openid, Entry::Accepted { at: at(2) });
    collect(&store, sender.tenant, &[subscription("o1", 1)]).await;
    assert_eq!(tell(&[yes(1, "o1"), yes(1, "o1")]).await, 1);
    assert_eq!(remaining(&store, sender.tenant, "o1").await, 1);
    assert_eq!(tell(&[yes(1, "o1"), yes(2, "o2")]).await, 1);
    assert_eq!(remaining(&store, sender.tenant, "o2").await, 1);
    collect(&store, sender.tenant, &[subscription("o2", 1)]).await;
    assert_eq!(remaining(&store, sender.tenant, "o2").await, 1);
    assert_eq!(tell(&[yes(3, "o1")]).await, 1);
    assert_eq!(remaining(&store, sender.tenant, "o1").await, 2);
    let no = heard(4, "o1", Entry::Revoked { at: at(3) });
    assert_eq!(tell(&[no]).await, 1);
    assert_eq!(remaining(&store, sender.tenant, "o1").await, 0);
    let mut gone = yes(5, "o9");
    gone.entries[0].appid = appid(9);
    assert_eq!(tell(&[gone]).await, 1, "for nobody here");
}

/// Everybody who changes the ledger, at the same time.
async fn claims_records_and_reports_do_not_wait_for_each_other_in_a_circle(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    let users: Vec<String> = (0..20).map(|number| format!("o{number:02}")).collect();
    let items: Vec<GrantEntry> = users.iter().map(|user| subscription(user, 3)).collect();
    collect(&store, sender.tenant, &items).await;
    for user in users.iter().rev() {
        sender.send(1, strict(user), at(0)).await;
        sender.send(1, draft(user), at(0)).await;
    }
    let tenant = sender.tenant;
    let work = async {
        let mut sent = 0;
        for second in 1..20 {
            let flights = claim(&store, 64, at(second)).await;
            sent += record(&store, &flights, &ok(), at(second)).await;
        }
        sent
    };
    let reports = join_all((0..10).map(|turn| {
        let (store, mut items) = (&store, items.clone());
        items.rotate_left(turn);
        async move { collect(store, tenant, &items).await }
    }));
    let (sent, _) = futures::future::join(work, reports).await;
    assert_eq!(sent, 40);
    for user in &users {
        assert_eq!(remaining(&store, tenant, user).await, 3 + 30 - 2, "{user}");
    }
}

async fn counts_and_reach_say_who_can_be_written_to(store: Store) {
    let sender = Sender::new(&store, 1).await;
    let door = store.tenant(sender.tenant);
    let empty = door.count_pool(&appid(1), at(1)).await.unwrap();
    assert_eq!(empty, PoolCount::default());
    let first = id(IdKind::FormId, "o1", "f1", at(-60));
    let prepay = id(IdKind::PrepayId, "o2", "p1", at(0));
    let items = [first, form_id("o1", "f2"), prepay, subscription("o1", 2)];
    collect(&store, sender.tenant, &items).await;
    collect(&store, sender.tenant, &[subscription("o3", 1)]).await;
    let count = door.count_pool(&appid(1), at(1)).await.unwrap();
    let expected = PoolCount {
        users: 2,
        sends: 5,
        next_expiry: Some(usable_until(at(-60))),
    };
    assert_eq!(count, expected);
    let templates = door.count_subscriptions(&appid(1)).await.unwrap();
    assert_eq!(templates.len(), 1);
    assert_eq!((templates[0].users, templates[0].sends), (2, 3));

    let no = heard(1, "o3", Entry::Revoked { at: at(1) });
    store
        .platform()
        .remember_events(&[no], at(1))
        .await
        .unwrap();
    let asked = ["o1", "o2", "o3", "o4", "o5"];
    let reach = async |channel: Channel| {
        let app = appid(1);
        let reach = door.reach(&app, channel, "tpl", &asked, at(1));
        reach.await.unwrap()
    };
    let by_ledger = Reach {
        users: 5,
        reachable: 1,
        revoked: 1,
    };
    assert_eq!(reach(Channel::Subscribe).await, by_ledger);
    let by_pool = Reach {
        users: 5,
        reachable: 2,
        revoked: 0,
    };
    assert_eq!(reach(Channel::Template).await, by_pool);
    let stranger = onboard(&store, 2, 10).await;
    let foreign = store.tenant(stranger).count_pool(&appid(1), at(1)).await;
    assert!(matches!(foreign, Err(StoreError::NotFound(_))));
}

async fn a_users_grants_are_listed_in_pages(store: Store) {
    let sender = Sender::new(&store, 1).await;
    let mut items: Vec<GrantEntry> = (0..5)
        .map(|number| {
            let value = format!("f.{number}");
            id(IdKind::FormId, "o1", &value, at(-number / 2))
        })
        .collect();
    items.push(subscription("o1", 1));
    collect(&store, sender.tenant, &items).await;
    let all = grants(&store, sender.tenant, "o1", at(1)).await;
    assert_eq!(all.len(), 6);
    let door = store.tenant(sender.tenant);
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = Page { limit: 2, after };
        let listing = door.grants(&appid(1), "o1", &page, at(1)).await.unwrap();
        seen.extend(listing.items);
        match listing.next {
            // As it goes over the wire.
            Some(next) => after = Some(next.to_string().parse().unwrap()),
            None => break,
        }
    }
    assert_eq!(seen, all);
}

async fn a_removed_apps_grants_are_gone(store: Store) {
    let sender = Sender::new(&store, 1).await;
    let items = [form_id("o1", "f1"), subscription("o1", 1)];
    collect(&store, sender.tenant, &items).await;
    let door = store.tenant(sender.tenant);
    door.delete_app(&appid(1), at(1)).await.unwrap();
    door.create_app(crate::common::new_app(1), at(2))
        .await
        .unwrap();
    assert_eq!(grants(&store, sender.tenant, "o1", at(3)).await, []);
    let again = collect(&store, sender.tenant, &items[..1]).await;
    assert!(matches!(again[0], Collected::Added(_)));
}
