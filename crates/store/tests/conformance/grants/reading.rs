//! Reads of pool and ledger: lists, counts, estimates.

use domain::{
    grant::{IdKind, LedgerEntry, usable_until},
    message::Channel,
};
use futures::future::join_all;
use wxgate_store::{Collected, GrantEntry, Page, PoolCount, Reach, Store, StoreError};

use super::{collect, form_id, grants, heard, id, subscription};
use crate::{
    common::{appid, at, on_both, onboard},
    queue::Sender,
};

on_both! {
    counts_and_reach_say_who_can_be_written_to
    a_users_grants_are_listed_in_pages
    a_removed_apps_grants_are_gone
    a_count_is_kept_and_made_by_one_at_a_time
}

async fn counts_and_reach_say_who_can_be_written_to(store: Store) {
    let sender = Sender::new(&store, 1).await;
    let door = store.tenant(sender.tenant);
    let empty = door.count_grants(&appid(1), at(1)).await.unwrap();
    assert_eq!((empty.pool, empty.as_of), (PoolCount::default(), at(1)));
    let first = id(IdKind::FormId, "o1", "f1", at(-60));
    let prepay = id(IdKind::PrepayId, "o2", "p1", at(0));
    let items = [first, form_id("o1", "f2"), prepay, subscription("o1", 2)];
    collect(&store, sender.tenant, &items).await;
    collect(&store, sender.tenant, &[subscription("o3", 1)]).await;
    let count = door.count_grants(&appid(1), at(1)).await.unwrap();
    let expected = PoolCount {
        users: 2,
        sends: 5,
        next_expiry: Some(usable_until(at(-60))),
    };
    assert_eq!(count.pool, expected);
    let templates = count.templates;
    assert_eq!(templates.len(), 1);
    assert_eq!((templates[0].users, templates[0].sends), (2, 3));

    let no = heard(1, "o3", LedgerEntry::Revoked { at: at(1) });
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
    let foreign = store.tenant(stranger).count_grants(&appid(1), at(1)).await;
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
            // Converted to text and back, as in the API.
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

async fn a_count_is_kept_and_made_by_one_at_a_time(store: Store) {
    let sender = Sender::new(&store, 1).await;
    let (app, door) = (appid(1), store.tenant(sender.tenant));
    let stranger = store.tenant(onboard(&store, 2, 10).await);
    let items = ["o1", "o2", "o3"].map(|user| form_id(user, user));
    collect(&store, sender.tenant, &items).await;
    collect(&store, sender.tenant, &[subscription("o1", 2)]).await;
    assert!(door.has_more_grants(&app, 2).await.unwrap());
    assert!(!door.has_more_grants(&app, 3).await.unwrap());

    let count = door.count_grants(&app, at(1)).await.unwrap();
    assert_eq!(door.kept_count(&app).await.unwrap(), None);
    door.keep_count(&app, &count, at(10)).await.unwrap();
    let kept = door.kept_count(&app).await.unwrap().unwrap();
    assert_eq!((&kept.count, kept.due_at), (&count, at(10)));
    assert_eq!(stranger.kept_count(&app).await.unwrap(), None);

    assert!(!stranger.claim_count(&app, at(10), at(20)).await.unwrap());
    assert!(
        !door.claim_count(&app, at(9), at(20)).await.unwrap(),
        "not due"
    );
    let both = [
        door.claim_count(&app, at(10), at(20)),
        door.claim_count(&app, at(10), at(20)),
    ];
    let taken: Vec<bool> = join_all(both)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
    assert!(
        door.claim_count(&app, at(20), at(30)).await.unwrap(),
        "lost"
    );

    let platform = store.platform();
    let old = |second| platform.old_counts(at(second), 10);
    assert_eq!(old(1).await.unwrap(), []);
    assert_eq!(old(2).await.unwrap(), [(sender.tenant, app.clone())]);
    collect(&store, sender.tenant, &[form_id("o4", "o4")]).await;
    let newer = door.count_grants(&app, at(40)).await.unwrap();
    door.keep_count(&app, &newer, at(50)).await.unwrap();
    let kept = door.kept_count(&app).await.unwrap().unwrap();
    assert_eq!((kept.count.pool.users, kept.count.as_of), (4, at(40)));
    door.delete_app(&app, at(41)).await.unwrap();
    assert_eq!(door.kept_count(&app).await.unwrap(), None);
}
