//! The pool and the ledger: the same rules on SQLite and on PostgreSQL.

mod ledger;
mod pool;
mod reading;

use chrono::{DateTime, Utc};
use domain::{
    grant::{GrantPolicy, IdKind, LedgerEntry, NewGrant},
    id::{MessageId, TenantId},
    lifecycle::{Event, Status},
    message::{Content, Draft},
    retry::Delay,
    verdict::{FailureCode, Verdict},
};
use wxgate_store::{
    CallbackEvent, ClaimedMessage, Collected, Collection, EventKey, Grant, GrantEntry,
    LedgerChange, Page, PooledId, Store,
};

use crate::{
    common::{appid, at, draft, owner},
    queue::{Sender, claim, record},
};

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

/// A template message with an id from the pool.
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

/// The form id with which a claimed message is sent.
fn sent_with(flight: &ClaimedMessage) -> &str {
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

/// The only claimed message.
async fn flight(store: &Store, second: i64) -> ClaimedMessage {
    let mut flights = claim(store, 8, at(second)).await;
    assert_eq!(flights.len(), 1, "{flights:?}");
    flights.remove(0)
}

async fn end(store: &Store, flight: &ClaimedMessage, event: &Event, second: i64) {
    let flights = std::slice::from_ref(flight);
    assert_eq!(record(store, flights, event, at(second)).await, 1);
}

pub(crate) async fn grants(
    store: &Store,
    tenant: TenantId,
    openid: &str,
    now: DateTime<Utc>,
) -> Vec<Grant> {
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

fn heard(number: u8, openid: &str, entry: LedgerEntry) -> CallbackEvent {
    CallbackEvent {
        tenant: owner(1),
        event: EventKey {
            appid: appid(1),
            digest: [number; 32],
        },
        entries: vec![LedgerChange {
            appid: appid(1),
            openid: openid.into(),
            template_id: "tpl".into(),
            entry,
        }],
    }
}
