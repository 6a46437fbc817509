//! Tests that a page of a filtered list is complete, however old the matching messages are, and that an index finds the
//! page.

use domain::{
    app::AppId,
    id::{self, TenantId},
    lifecycle::Status,
};
use sea_orm::{ConnectionTrait, QueryTrait, Statement};
use testkit::Postgres;

use super::{ONE_AT_A_TIME, app, at, fill};
use crate::{MessageFilter, Page, Store};

const PAGE: Page = Page {
    limit: 50,
    after: None,
};

/// Makes the oldest ended message the only one with this status and template.
const RARE: &str = "UPDATE message SET status = 'uncertain', template_id = 'rare' WHERE id IN \
                    (SELECT id FROM message WHERE phase = 4 ORDER BY id LIMIT 1)";

fn filters() -> [(MessageFilter, &'static str); 3] {
    let uncertain = MessageFilter {
        status: Some(Status::Uncertain),
        ..MessageFilter::default()
    };
    let template = MessageFilter {
        template_id: Some("rare".into()),
        ..MessageFilter::default()
    };
    let both = MessageFilter {
        status: Some(Status::Uncertain),
        ..template.clone()
    };
    [
        (uncertain, "message_rare"),
        (template, "message_template"),
        (both, "message_"),
    ]
}

async fn the_plan(store: &Store, appid: &AppId, filter: &MessageFilter) -> String {
    let tenant: TenantId = id::new(at(0), 1, 1);
    let backend = store.read().get_database_backend();
    let query = store.tenant(tenant).listed(appid, filter, &PAGE);
    let query = query.build(backend);
    let explain = match backend {
        sea_orm::DbBackend::Postgres => "EXPLAIN",
        _ => "EXPLAIN QUERY PLAN",
    };
    let explain = Statement {
        sql: format!("{explain} {}", query.sql),
        ..query
    };
    let rows = store.read().query_all_raw(explain).await.unwrap();
    let line = |row: &sea_orm::QueryResult| {
        let text = row.try_get::<String>("", "detail");
        text.or_else(|_| row.try_get("", "QUERY PLAN")).unwrap()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

async fn a_page_of_what_is_rare_is_whole(url: &str) {
    let store = Store::connect(url).await.unwrap();
    store.migrate_up().await.unwrap();
    let appid = app(&store).await;
    fill(&store, &appid).await;
    store.write().execute_unprepared(RARE).await.unwrap();
    let door = store.tenant(id::new(at(0), 1, 1));
    for (filter, index) in filters() {
        let page = door.messages(&appid, &filter, &PAGE).await.unwrap();
        assert_eq!(page.items.len(), 1, "{filter:?}");
        assert_eq!(page.next, None, "{filter:?}");
        let plan = the_plan(&store, &appid, &filter).await;
        assert!(plan.contains(index), "{filter:?}: {plan}");
    }
    for status in Status::ALL {
        let filter = MessageFilter {
            status: Some(status),
            ..MessageFilter::default()
        };
        let page = door.messages(&appid, &filter, &PAGE).await.unwrap();
        let is_empty = page.items.is_empty();
        assert!(!(is_empty && page.next.is_some()), "{status:?}");
    }
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_empty_only_where_nothing_more_is() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}/wxgate.db", folder.path().display());
    a_page_of_what_is_rare_is_whole(&sqlite).await;
    let postgres = Postgres::start();
    a_page_of_what_is_rare_is_whole(&postgres.create_database("lists")).await;
}
