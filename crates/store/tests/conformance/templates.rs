//! Templates: the same rules on SQLite and on PostgreSQL.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use domain::{
    app::AppId,
    id::{self, TenantId},
    message::Channel,
    template::{Knowledge, Template, TemplateKind},
    webhook::{EventFilter, EventType},
};
use uuid::Uuid;
use wxgate_store::{
    AuditFilter, EventContent, Listing, NewApp, NewAuditLine, NewWebhook, Origin, OutboxRequest,
    Page, Slots, Store, StoreError, Synced, TemplateChange, TemplateCursor, TemplateList,
};

use crate::common::{appid, at, new_app, on_both, onboard};

on_both! {
    a_list_is_taken_over_and_listed
    what_is_not_as_it_was_is_told_once
    a_list_without_anything_is_believed_by_hand_only
    lists_of_other_channels_are_left_alone
    an_app_is_taken_by_one_and_again_when_its_time_comes
    an_unproven_app_waits_until_it_is_proven
    a_failure_is_noted_until_the_next_success
    a_catalog_changes_its_revision_with_its_content
    a_removed_app_takes_its_templates_along
    another_tenant_sees_no_templates
}

const PAGE: Page<TemplateCursor> = Page {
    limit: 100,
    after: None,
};

fn template(id: &str, content: &str) -> Template {
    Template {
        id: id.into(),
        kind: TemplateKind::OneTime,
        title: format!("title of {id}"),
        content: content.into(),
        example: "example".into(),
        values: BTreeMap::new(),
    }
}

fn subscribe(templates: &[Template]) -> Vec<TemplateList> {
    vec![TemplateList {
        channel: Channel::Subscribe,
        templates: templates.to_vec(),
    }]
}

async fn sync(store: &Store, app: &AppId, templates: &[Template], now: DateTime<Utc>) -> Synced {
    let due = now + Duration::from_hours(6);
    store
        .platform()
        .record_templates(app, subscribe(templates), None, due, now)
        .await
        .unwrap()
}

async fn sync_by_hand(
    store: &Store,
    app: &AppId,
    templates: &[Template],
    now: DateTime<Utc>,
) -> Synced {
    let line: NewAuditLine = Origin::CLI.did("templates.sync", app);
    let due = now + Duration::from_hours(6);
    store
        .platform()
        .record_templates(app, subscribe(templates), Some(line), due, now)
        .await
        .unwrap()
}

async fn fail(store: &Store, app: &AppId, now: DateTime<Utc>) -> Result<(), StoreError> {
    store
        .platform()
        .record_template_failure(app, "no answer", at(30), now)
        .await
}

async fn listed(store: &Store, tenant: TenantId) -> Vec<(String, bool)> {
    let Listing { items, .. } = store
        .tenant(tenant)
        .templates(&appid(1), &PAGE)
        .await
        .unwrap();
    items
        .into_iter()
        .map(|known| (known.template.id, known.gone_at.is_some()))
        .collect()
}

async fn proven(store: &Store, tenant: TenantId, number: u16) {
    let app = NewApp {
        verified_at: Some(at(0)),
        ..new_app(number)
    };
    store.tenant(tenant).create_app(app, at(0)).await.unwrap();
}

async fn a_list_is_taken_over_and_listed(store: Store) {
    let tenant = onboard(&store, 1, 1000).await;
    assert!(listed(&store, tenant).await.is_empty());
    let first = [
        Template {
            values: BTreeMap::from([("enum_string1".into(), vec!["排队中".into()])]),
            kind: TemplateKind::LongTerm,
            ..template("b", "状态:{{enum_string1.DATA}}\n")
        },
        template("a", "{{thing1.DATA}}"),
    ];
    let synced = sync(&store, &appid(1), &first, at(1)).await;
    assert_eq!((synced.added, synced.drifts.len()), (2, 0));
    let later = [first[0].clone(), first[1].clone(), template("c", "")];
    assert_eq!(sync(&store, &appid(1), &later, at(2)).await.added, 1);
    let door = store.tenant(tenant);
    let mut page = Page { limit: 1, ..PAGE };
    let (mut seen, mut kept) = (Vec::new(), None);
    loop {
        let Listing { items, next } = door.templates(&appid(1), &page).await.unwrap();
        for known in items {
            seen.push(known.template.id.clone());
            kept = kept.or(Some(known.template).filter(|template| template.id == "b"));
        }
        let Some(next) = next else { break };
        page.after = Some(next);
    }
    assert_eq!(seen, ["c", "a", "b"], "newest first");
    assert_eq!(kept.as_ref(), Some(&first[0]));
    let state = door.template_sync(&appid(1)).await.unwrap();
    assert_eq!(
        (state.synced_at, state.tried_at, state.failure),
        (Some(at(2)), Some(at(2)), None)
    );
}

async fn what_is_not_as_it_was_is_told_once(store: Store) {
    let tenant = onboard(&store, 1, 1000).await;
    let door = store.tenant(tenant);
    let webhook = NewWebhook {
        id: id::new(at(0), 1, 5),
        url: "https://hooks.example/1".into(),
        events: EventFilter::All,
        description: None,
        secret_sealed: vec![1; 60],
    };
    door.create_webhook(webhook, 20, at(0)).await.unwrap();
    let old = [
        template("a", "{{thing1.DATA}}"),
        template("b", "{{thing1.DATA}}"),
    ];
    assert_eq!(sync(&store, &appid(1), &old, at(1)).await.told, 0);
    let renewed = Template {
        example: "another".into(),
        ..old[0].clone()
    };
    let quiet = sync(&store, &appid(1), &[renewed, old[1].clone()], at(2)).await;
    assert!(quiet.drifts.is_empty(), "examples may change");

    let longer = template("a", "{{thing1.DATA}}{{time2.DATA}}");
    let synced = sync(&store, &appid(1), std::slice::from_ref(&longer), at(3)).await;
    let mut changes: Vec<_> = synced
        .drifts
        .iter()
        .map(|drift| (drift.after.id.as_str(), drift.change))
        .collect();
    changes.sort_unstable_by_key(|(id, _)| *id);
    assert_eq!(
        changes,
        [("a", TemplateChange::Changed), ("b", TemplateChange::Gone)]
    );
    assert_eq!(synced.told, 2);
    let again = sync(&store, &appid(1), std::slice::from_ref(&longer), at(4)).await;
    assert_eq!((again.drifts.len(), again.told), (0, 0));
    let back = sync(&store, &appid(1), &[longer, old[1].clone()], at(5)).await;
    assert_eq!(back.drifts[0].change, TemplateChange::Restored);

    let request = OutboxRequest {
        slots: Slots {
            free: 100,
            ..Slots::default()
        },
        each: 10,
        cursor: Uuid::nil(),
        lease: 1,
        lease_until: at(100),
    };
    let due = store.platform().claim_deliveries(&request, at(6)).await;
    let due = due.unwrap().due;
    assert!(due.iter().all(|one| one.kind == EventType::TemplateChanged));
    let mut told: Vec<(String, String)> = due
        .iter()
        .map(|one| match &one.facts {
            EventContent::Data(data) => (
                data["template_id"].as_str().unwrap().to_owned(),
                data["change"].as_str().unwrap().to_owned(),
            ),
            EventContent::Message(_) => unreachable!(),
        })
        .collect();
    told.sort();
    let wanted = [("a", "changed"), ("b", "gone"), ("b", "restored")];
    assert_eq!(told, wanted.map(|(id, change)| (id.into(), change.into())));
    let filter = AuditFilter {
        action: Some("template.changed".into()),
        ..AuditFilter::default()
    };
    let page = Page {
        limit: 10,
        after: None,
    };
    let lines = door.audit(&filter, &page).await.unwrap().items;
    assert_eq!(lines.len(), 3);
    assert_eq!(
        (
            lines[0].line.target.as_str(),
            lines[0].line.outcome.as_str()
        ),
        ("b", "restored")
    );
}

async fn a_list_without_anything_is_believed_by_hand_only(store: Store) {
    let tenant = onboard(&store, 1, 1000).await;
    sync(&store, &appid(1), &[template("a", "")], at(1)).await;
    let doubted = sync(&store, &appid(1), &[], at(2)).await;
    assert_eq!((doubted.doubted, doubted.drifts.len()), (1, 0));
    assert_eq!(listed(&store, tenant).await, [("a".to_owned(), false)]);
    let door = store.tenant(tenant);
    let state = door.template_sync(&appid(1)).await.unwrap();
    assert!(state.failure.is_some_and(|why| why.contains("by hand")));
    let believed = sync_by_hand(&store, &appid(1), &[], at(3)).await;
    assert_eq!((believed.doubted, believed.drifts.len()), (0, 1));
    assert_eq!(listed(&store, tenant).await, [("a".to_owned(), true)]);
    let state = door.template_sync(&appid(1)).await.unwrap();
    assert_eq!(state.failure, None);
}

async fn lists_of_other_channels_are_left_alone(store: Store) {
    onboard(&store, 1, 1000).await;
    let old = Template {
        kind: TemplateKind::FormId,
        ..template("old", "{{keyword1.DATA}}")
    };
    let form_ids = TemplateList {
        channel: Channel::Template,
        templates: vec![old],
    };
    let mut lists = subscribe(&[template("new", "{{thing1.DATA}}")]);
    lists.push(form_ids);
    let platform = store.platform();
    let both = platform
        .record_templates(&appid(1), lists, None, at(9), at(1))
        .await;
    assert_eq!(both.unwrap().added, 2);
    let one = sync(&store, &appid(1), &[template("newer", "")], at(2)).await;
    let gone: Vec<&str> = one
        .drifts
        .iter()
        .map(|drift| drift.after.id.as_str())
        .collect();
    assert_eq!(gone, ["new"]);
}

async fn an_app_is_taken_by_one_and_again_when_its_time_comes(store: Store) {
    let tenant = onboard(&store, 1, 1000).await;
    for number in 2..5 {
        proven(&store, tenant, number).await;
    }
    let platform = store.platform();
    let take = async |limit, now: DateTime<Utc>| {
        let until = now + Duration::from_mins(5);
        let taken = platform.claim_template_syncs(limit, now, until).await;
        taken.unwrap().len()
    };
    assert_eq!(take(2, at(1)).await, 2);
    assert_eq!(take(9, at(1)).await, 1, "the others are taken");
    assert_eq!(take(9, at(2)).await, 0);
    assert_eq!(take(9, at(1 + 300)).await, 3, "whoever took them has died");
    let due = platform.template_sync_of(&appid(2)).await.unwrap();
    assert_eq!((due.tenant, due.appid), (tenant, appid(2)));
    sync(&store, &appid(2), &[], at(400)).await;
    assert_eq!(take(9, at(700)).await, 2);
    let after_hours = take(9, at(400 + 6 * 3600)).await;
    assert_eq!(after_hours, 4, "the one that is not proven among them");
}

async fn an_unproven_app_waits_until_it_is_proven(store: Store) {
    let tenant = onboard(&store, 1, 1000).await;
    let platform = store.platform();
    let due = async |now: DateTime<Utc>| {
        let until = now + Duration::from_mins(5);
        let taken = platform.claim_template_syncs(9, now, until).await;
        taken.unwrap().len()
    };
    assert_eq!(due(at(60)).await, 0);
    let door = store.tenant(tenant);
    door.mark_app_verified(&appid(1), Some(at(61)), at(61))
        .await
        .unwrap();
    assert_eq!(due(at(61)).await, 1);
    sync(&store, &appid(1), &[], at(62)).await;
    door.mark_app_verified(&appid(1), Some(at(63)), at(63))
        .await
        .unwrap();
    assert_eq!(due(at(63)).await, 1, "it may have some by now");
}

async fn a_failure_is_noted_until_the_next_success(store: Store) {
    let tenant = onboard(&store, 1, 1000).await;
    let door = store.tenant(tenant);
    fail(&store, &appid(1), at(1)).await.unwrap();
    let state = door.template_sync(&appid(1)).await.unwrap();
    assert_eq!((state.synced_at, state.due_at), (None, at(30)));
    assert_eq!(state.failure.as_deref(), Some("no answer"));
    sync(&store, &appid(1), &[], at(2)).await;
    let state = door.template_sync(&appid(1)).await.unwrap();
    assert_eq!((state.synced_at, state.failure), (Some(at(2)), None));
    let gone = fail(&store, &appid(7), at(1)).await;
    assert!(matches!(gone, Err(StoreError::NotFound("app"))));
}

async fn a_catalog_changes_its_revision_with_its_content(store: Store) {
    let tenant = onboard(&store, 1, 1000).await;
    let platform = store.platform();
    let read = async || platform.catalog(&appid(1)).await.unwrap().unwrap();
    let blank = read().await;
    assert_eq!(blank.tenant, tenant);
    let look = |read: &wxgate_store::AppCatalog, id: &str| {
        matches!(
            read.catalog.look_up(Channel::Subscribe, id),
            Knowledge::Nothing
        )
    };
    assert!(look(&blank, "a"));
    sync(
        &store,
        &appid(1),
        &[template("a", "{{thing1.DATA}}")],
        at(1),
    )
    .await;
    let known = read().await;
    assert!(known.revision > blank.revision && !look(&known, "a") && !look(&known, "b"));
    sync(
        &store,
        &appid(1),
        &[template("a", "{{thing1.DATA}}")],
        at(2),
    )
    .await;
    let same = platform.catalog_revision(&appid(1)).await.unwrap();
    assert_eq!(same, Some(known.revision), "nothing is new");
    fail(&store, &appid(1), at(3)).await.unwrap();
    let unsure = read().await;
    assert!(unsure.revision > known.revision && look(&unsure, "b") && !look(&unsure, "a"));
    assert_eq!(platform.catalog_revision(&appid(9)).await.unwrap(), None);
    assert_eq!(platform.catalog(&appid(9)).await.unwrap(), None);
}

async fn a_removed_app_takes_its_templates_along(store: Store) {
    let tenant = onboard(&store, 1, 1000).await;
    sync(&store, &appid(1), &[template("a", "")], at(1)).await;
    let door = store.tenant(tenant);
    door.delete_app(&appid(1), at(2)).await.unwrap();
    let gone = door.templates(&appid(1), &PAGE).await;
    assert!(matches!(gone, Err(StoreError::NotFound("app"))));
    proven(&store, tenant, 1).await;
    assert!(listed(&store, tenant).await.is_empty());
}

async fn another_tenant_sees_no_templates(store: Store) {
    onboard(&store, 1, 1000).await;
    let other = onboard(&store, 2, 1000).await;
    sync(&store, &appid(1), &[template("a", "")], at(1)).await;
    let door = store.tenant(other);
    let seen = door.templates(&appid(1), &PAGE).await;
    assert!(matches!(seen, Err(StoreError::NotFound("app"))));
    let seen = door.template_sync(&appid(1)).await;
    assert!(matches!(seen, Err(StoreError::NotFound("app"))));
}
