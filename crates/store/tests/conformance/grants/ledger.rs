//! The ledger: the number of messages that users have accepted for each template.

use std::collections::BTreeMap;

use domain::{
    grant::{GrantPolicy, LedgerEntry},
    lifecycle::{Event, Status},
    message::{Channel, Draft},
    template::{Template, TemplateKind},
    verdict::{FailureCode, Verdict},
};
use futures::future::join_all;
use wxgate_store::{AppPatch, CallbackEvent, Grant, GrantEntry, Store, TemplateList};

use super::{
    collect, end, failure, flight, grants, heard, lasting, ok, rejected, remaining, strict,
    subscription,
};
use crate::{
    common::{appid, at, draft, on_both},
    queue::{Sender, claim, record},
};

on_both! {
    strict_messages_are_sent_as_often_as_was_accepted
    a_reserved_grant_comes_back_and_a_refusal_takes_all
    long_term_grants_do_not_count_down
    a_template_that_wechat_lists_as_long_term_does_not_count_down
    observed_messages_count_where_there_is_a_ledger
    an_acceptance_counts_once_whoever_tells_of_it
    claims_records_and_reports_do_not_wait_for_each_other_in_a_circle
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

async fn a_template_that_wechat_lists_as_long_term_does_not_count_down(store: Store) {
    let mut sender = Sender::new(&store, 1).await;
    // Reported before WeChat has listed the template, and not as a long-term one.
    collect(&store, sender.tenant, &[subscription("o1", 1)]).await;
    let listed = Template {
        id: "tpl".into(),
        kind: TemplateKind::LongTerm,
        title: "t".into(),
        content: String::new(),
        example: String::new(),
        values: BTreeMap::new(),
    };
    let list = TemplateList {
        channel: Channel::Subscribe,
        templates: vec![listed],
    };
    let (platform, app) = (store.platform(), appid(1));
    let synced = platform.record_templates(&app, vec![list], None, at(3600), at(0));
    synced.await.unwrap();
    for second in [1, 3] {
        sender.send(1, strict("o1"), at(second)).await;
        let strict = flight(&store, second).await;
        end(&store, &strict, &ok(), second).await;
        sender.send(1, draft("o1"), at(second)).await;
        let observed = flight(&store, second + 1).await;
        end(&store, &observed, &ok(), second + 1).await;
        assert_eq!(remaining(&store, sender.tenant, "o1").await, 1);
    }
    collect(&store, sender.tenant, &[subscription("o2", 1)]).await;
    for user in ["o1", "o2"] {
        let grants = grants(&store, sender.tenant, user, at(5)).await;
        assert!(
            matches!(&grants[..], [Grant::Subscription(one)] if one.long_term),
            "{grants:?}"
        );
    }
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

async fn an_acceptance_counts_once_whoever_tells_of_it(store: Store) {
    let sender = Sender::new(&store, 1).await;
    let tell = async |news: &[CallbackEvent]| {
        store
            .platform()
            .remember_events(news, at(1))
            .await
            .unwrap()
            .len()
    };
    let yes = |number: u8, openid: &str| heard(number, openid, LedgerEntry::Accepted { at: at(2) });
    collect(&store, sender.tenant, &[subscription("o1", 1)]).await;
    assert_eq!(tell(&[yes(1, "o1"), yes(1, "o1")]).await, 1);
    assert_eq!(remaining(&store, sender.tenant, "o1").await, 1);
    assert_eq!(tell(&[yes(1, "o1"), yes(2, "o2")]).await, 1);
    assert_eq!(remaining(&store, sender.tenant, "o2").await, 1);
    collect(&store, sender.tenant, &[subscription("o2", 1)]).await;
    assert_eq!(remaining(&store, sender.tenant, "o2").await, 1);
    assert_eq!(tell(&[yes(3, "o1")]).await, 1);
    assert_eq!(remaining(&store, sender.tenant, "o1").await, 2);
    let no = heard(4, "o1", LedgerEntry::Revoked { at: at(3) });
    assert_eq!(tell(&[no]).await, 1);
    assert_eq!(remaining(&store, sender.tenant, "o1").await, 0);
    let mut gone = yes(5, "o9");
    gone.entries[0].appid = appid(9);
    assert_eq!(tell(&[gone]).await, 1, "for nobody here");
}

/// All transactions that change the ledger, at the same time.
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
