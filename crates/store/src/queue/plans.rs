//! Tests that a search for work costs the same for every size of the backlog and of the history: no statement that
//! moves messages scans the table.

mod fill;
mod lists;
mod receipts;
mod turns;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use domain::{
    app::{AppId, AppKind, TokenMode},
    grant::{GrantPolicy, IdKind, NewGrant},
    id::{self, TenantId},
    lifecycle::Event,
    message::{Channel, Priority, Request},
    quota::PriorityShares,
    tenant::TenantLimits,
    verdict::Verdict,
};
use sea_orm::{ConnectionTrait, DbBackend, Statement, Value};
use testkit::Postgres;
use uuid::Uuid;

use super::{
    ClaimRequest, ClaimedMessage, GrantEntry, NewMessage, Permit, Settlement, SettlementSource,
    Submission, SubmissionBody,
};
use crate::{NewApp, Page, Store, timestamp::millis};

/// The statements that [`Sql::on`](super::sql::Sql::on) has built in this process.
static MADE: Mutex<Vec<Statement>> = Mutex::new(Vec::new());
/// Held by each test that uses a store here: `MADE` has the statements of all tests of this process.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The number of messages that have ended, and the number of messages in each of the phases ready, waiting and behind.
const ENDED: usize = 20_000;
const WAITING: usize = 4_000;

pub(super) fn note(statement: &Statement) {
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    made.push(statement.clone());
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_780_281_960 + seconds, 0).unwrap()
}

async fn app(store: &Store) -> AppId {
    let tenant: TenantId = id::new(at(0), 1, 1);
    let (platform, limits) = (store.platform(), TenantLimits::default());
    let created = platform.create_tenant(tenant, "t", limits, at(0)).await;
    created.unwrap();
    let app = NewApp {
        appid: AppId::parse("wx0000000000000001").unwrap(),
        name: "app".into(),
        kind: AppKind::MiniProgram,
        token_mode: TokenMode::Stable,
        daily_quota: 1_000_000,
        grant_policy: GrantPolicy::Observe,
        value_rules: domain::app::ValueRules::Strict,
        secret_sealed: vec![1; 48],
        callback_token_sealed: None,
        callback_aes_key_sealed: None,
        verified_at: None,
    };
    store
        .tenant(tenant)
        .create_app(app, at(0))
        .await
        .unwrap()
        .appid
}

/// Inserts messages of the app in every phase, most of them ended.
async fn fill(store: &Store, appid: &AppId) {
    let connection = store.write();
    let uuid = match connection.get_database_backend() {
        DbBackend::Postgres => "gen_random_uuid()",
        _ => "randomblob(16)",
    };
    let tenant: TenantId = id::new(at(0), 1, 1);
    let content =
        r#"{"channel":"subscribe","data":{},"miniprogram_state":"formal","lang":"zh_CN"}"#;
    for (phase, status, touser, count) in [
        (0, "queued", "'ready' || i", WAITING),
        (1, "scheduled", "'waiting' || i", WAITING),
        (2, "queued", "'behind' || i", WAITING),
        // Every second ready message has a recipient with a message in flight.
        (3, "sending", "'ready' || (2 * i)", WAITING / 10),
        (4, "sent", "'ended' || i", ENDED),
    ] {
        let insert = Statement::from_sql_and_values(
            connection.get_database_backend(),
            format!(
                "INSERT INTO message (id, tenant_id, appid, touser, template_id, priority, status, phase, content, \
                 on_uncertain, permit, ttl_seconds, due_at, expires_at, attempt_count, attempts, lease, lease_until, followed, created_at, updated_at) \
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
                 SELECT {uuid}, $1, $2, {touser}, 't', 1, '{status}', {phase}, '{content}', \
                 'hold', 0, 3600, {due} + i, {due} + 3600000 + i, 0, '[]', 0, {due}, 0, {due}, {due} FROM n",
                due = millis(at(0)),
            ),
            [tenant.uuid().into(), appid.as_str().into()],
        );
        connection.execute_raw(insert).await.unwrap();
    }
    fill::fill_grants(store, tenant, appid).await;
}

/// Runs all the work that the engine does by itself.
async fn work(store: &Store) {
    let platform = store.platform();
    let now = at(60);
    let claimed = claim(store, 64, 7, now).await;
    assert_eq!(claimed.len(), 32);
    record(store, claimed, now).await;
    platform.promote(now).await.unwrap();
    platform.next_due().await.unwrap();
    platform.overdue(now).await.unwrap();
    platform.undo_claim(7, now).await.unwrap();
    platform.release_stranded(now).await.unwrap();
    platform.expire(at(3600)).await.unwrap();
    receipts::work(store).await;
    platform.forget_messages(at(0)).await.unwrap();
    platform
        .drop_payloads(Uuid::nil(), at(0), now)
        .await
        .unwrap();
}

async fn claim(store: &Store, slots: usize, lease: i64, now: DateTime<Utc>) -> Vec<ClaimedMessage> {
    let request = ClaimRequest {
        slots,
        apps: Vec::new(),
        cursor: String::new(),
        lease,
        lease_until: now + Duration::from_mins(1),
        shares: PriorityShares::default(),
    };
    store.platform().claim(&request, now).await.unwrap().claimed
}

async fn record(store: &Store, claimed: Vec<ClaimedMessage>, now: DateTime<Utc>) {
    let sent = Event::Answered(Verdict::Accepted { msgid: None });
    let settled: Vec<Settlement> = claimed
        .into_iter()
        .map(|flight| Settlement {
            grant: flight.grant_news(&sent),
            id: flight.id,
            lease: flight.lease,
            word: SettlementSource::Final,
            transition: flight.facts().apply(&sent, now, 0.0).unwrap(),
            appid: flight.appid,
            touser: flight.touser,
            template_id: flight.template_id,
            attempts: flight.attempts,
            refund: None,
            msgid: None,
            failure_detail: None,
        })
        .collect();
    let (some, others) = settled.split_at(settled.len() / 2);
    store.platform().record_plain(some, now).await.unwrap();
    store.platform().record(others, &[], now).await.unwrap();
}

/// Runs all the work on ids and ledger rows.
async fn work_with_grants(store: &Store, appid: &AppId) {
    let (platform, now) = (store.platform(), at(60));
    let tenant: TenantId = id::new(at(0), 1, 1);
    let door = store.tenant(tenant);
    let drafts = (0u16..32).map(|number| {
        let openid = format!("u{}", 100 + number);
        let (form_id, template_id) = (number % 2 == 0, format!("t{}", number % 4));
        let request = Request {
            channel: if form_id {
                Channel::Template
            } else {
                Channel::Subscribe
            },
            touser: openid,
            template_id,
            data: Some(
                [("k".to_owned(), serde_json::json!({"value": "v"}))]
                    .into_iter()
                    .collect(),
            ),
            grant_policy: (!form_id).then_some(GrantPolicy::Strict),
            priority: Priority::High,
            ..Request::default()
        };
        NewMessage {
            id: id::new(now, number, 2),
            tenant,
            appid: appid.clone(),
            draft: request.check(now).unwrap(),
            received_at: now,
        }
    });
    let batch: Vec<Submission> = drafts
        .map(|new| Submission {
            tenant,
            appid: appid.clone(),
            key: None,
            received_at: now,
            load: SubmissionBody::One(Box::new(new)),
        })
        .collect();
    platform
        .intake(&batch, PriorityShares::default(), now)
        .await
        .unwrap();
    let flights = claim(store, 32, 8, now).await;
    assert!(flights.iter().any(|flight| flight.permit != Permit::Free));
    record(store, flights, now).await;
    let again = at(120);
    claim(store, 16, 9, again).await;
    platform.overdue(at(600)).await.unwrap();
    platform.undo_claim(9, again).await.unwrap();
    let items: Vec<GrantEntry> = (0..20)
        .map(|number| {
            GrantEntry::Grant(NewGrant::Id {
                kind: IdKind::FormId,
                openid: format!("u{number}"),
                value: format!("f{}", 19_990 + number),
                collected_at: now,
            })
        })
        .chain((0..20).map(|number| {
            GrantEntry::Grant(NewGrant::Subscription {
                openid: format!("u{number}"),
                template_id: "t1".into(),
                count: 1,
                long_term: false,
                accepted_at: now,
            })
        }))
        .collect();
    door.collect(appid, &items, None, now).await.unwrap();
    let page = Page {
        limit: 50,
        after: None,
    };
    door.grants(appid, "u7", &page, now).await.unwrap();
    for channel in [Channel::Subscribe, Channel::Template] {
        // The largest number that one statement looks up: the planner might treat a small number differently.
        let users: Vec<String> = (0..4096).map(|number| format!("u{number}")).collect();
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        door.reach(appid, channel, "t1", &users, now).await.unwrap();
    }
}

/// The lines of the plan of `statement` that scan all messages, ids or ledger rows.
async fn walks(
    store: &Store,
    statement: &Statement,
    is_walk: fn(&str, &str) -> bool,
) -> Vec<String> {
    match store.write().get_database_backend() {
        DbBackend::Postgres => walks_on_postgres(store, statement, is_walk).await,
        _ => walks_on_sqlite(store, statement).await,
    }
}

async fn walks_on_sqlite(store: &Store, statement: &Statement) -> Vec<String> {
    let explained = Statement {
        sql: format!("EXPLAIN QUERY PLAN {}", statement.sql),
        ..statement.clone()
    };
    let plan = store.write().query_all_raw(explained).await.unwrap();
    let lines = plan
        .iter()
        .map(|row| row.try_get::<String>("", "detail").unwrap());
    let is_walk = |line: &String| {
        let of_messages = ["SCAN message", "SCAN m", "SCAN f"];
        let of_grants = [
            "SCAN form_id",
            "SCAN subscription",
            "SCAN n",
            "SCAN h",
            "SCAN s",
        ];
        of_messages.iter().any(|scan| line.starts_with(scan)) && !line.contains("USING")
            || of_grants.iter().any(|scan| line.starts_with(scan))
            || ["SCAN d", "SCAN r"].contains(&line.as_str())
            || line.starts_with("SCAN d USING")
            || line.starts_with("SCAN r USING")
    };
    lines.filter(is_walk).collect()
}

/// Plans the statement as a connection of the gateway plans a prepared statement: once for all values. A plain EXPLAIN
/// would know the values.
async fn walks_on_postgres(
    store: &Store,
    statement: &Statement,
    is_walk: fn(&str, &str) -> bool,
) -> Vec<String> {
    let values = statement
        .values
        .as_ref()
        .map_or(&[][..], |values| &values.0);
    let types: Vec<&str> = values.iter().map(type_name).collect();
    let listed = |words: Vec<&str>| match words.len() {
        0 => String::new(),
        _ => format!("({})", words.join(", ")),
    };
    let taken = listed(vec!["NULL"; types.len()]);
    let given = listed(types);
    let session = store.begin_batch().await.unwrap();
    let prepare = format!("PREPARE planned {given} AS {}", statement.sql);
    session.execute_unprepared(&prepare).await.unwrap();
    let explain = format!("EXPLAIN EXECUTE planned {taken}");
    let explain = Statement::from_string(DbBackend::Postgres, explain);
    let plan = session.query_all_raw(explain).await.unwrap();
    session
        .execute_unprepared("DEALLOCATE planned")
        .await
        .unwrap();
    session.rollback().await.unwrap();
    let lines: Vec<String> = plan
        .iter()
        .map(|row| row.try_get("", "QUERY PLAN").unwrap())
        .collect();
    let next = lines.iter().skip(1).map(String::as_str).chain([""]);
    let walks = lines
        .iter()
        .zip(next)
        .filter(|(line, next)| is_walk(line, next));
    walks.map(|(line, next)| format!("{line} {next}")).collect()
}

/// Whether a node of a plan, given with the line after the node, scans a table or an index. An index scan of ids or
/// ledger rows must have a condition on more than the app.
fn is_walk(line: &str, next: &str) -> bool {
    let on = |table: &str| line.contains(" Scan ") && line.contains(&format!(" on {table} "));
    let looks_for = |columns: &[&str]| {
        next.contains("Index Cond: ") && columns.iter().any(|column| next.contains(column))
    };
    if on("form_id") {
        !looks_for(&["openid = ", "value = ", "held_by = ", "expires_at < "])
    } else if on("subscription") {
        !looks_for(&["openid = ", "template_id = "])
    } else {
        is_read_whole(line, next)
    }
}

/// Whether a node of a plan scans a whole table.
fn is_read_whole(line: &str, _next: &str) -> bool {
    let tables = ["message", "form_id", "subscription"];
    tables
        .iter()
        .any(|table| line.contains(&format!("Seq Scan on {table} ")))
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::BigInt(_) => "bigint",
        Value::String(_) => "text",
        Value::Uuid(_) => "uuid",
        Value::Bytes(_) => "bytea",
        other => panic!("what does PostgreSQL call {other:?}?"),
    }
}

/// Runs the work that scans all grants of an app or a part of these grants, and the deletion of ids a week old. By that
/// time the database has statistics on the number of rows.
async fn keep_house(store: &Store, appid: &AppId) {
    let tenant: TenantId = id::new(at(0), 1, 1);
    let door = store.tenant(tenant);
    let count = door.count_grants(appid, at(60)).await.unwrap();
    assert!(door.has_more_grants(appid, 10).await.unwrap());
    door.keep_count(appid, &count, at(120)).await.unwrap();
    door.claim_count(appid, at(120), at(180)).await.unwrap();
    door.kept_count(appid).await.unwrap();
    store.platform().forget_form_ids(at(60)).await.unwrap();
}

async fn no_statement_goes_through_all_messages(url: &str, empty: &str) {
    let store = Store::connect(url).await.unwrap();
    store.migrate_up().await.unwrap();
    let appid = app(&store).await;
    fill(&store, &appid).await;
    MADE.lock().unwrap().clear();
    work(&store).await;
    work_with_grants(&store, &appid).await;
    let made = std::mem::take(&mut *MADE.lock().unwrap());
    assert!(made.len() >= 45, "{} statements", made.len());
    keep_house(&store, &appid).await;
    let housework = std::mem::take(&mut *MADE.lock().unwrap());
    turns::work(&store, id::new(at(0), 1, 1)).await;
    let rounds = turns::rounds(std::mem::take(&mut *MADE.lock().unwrap()));

    // First without statistics on the filled tables, then after `ANALYZE`.
    look_for_walks(&store, &made, is_walk).await;
    look_for_walks(&store, &housework, is_read_whole).await;
    store.write().execute_unprepared("ANALYZE").await.unwrap();
    look_for_walks(&store, &made, is_walk).await;
    look_for_walks(&store, &housework, is_read_whole).await;
    look_for_walks(&store, &rounds, turns::is_walk).await;
    store.close().await.unwrap();

    // A plan that was made while the tables were empty stays in use while the tables grow: first without statistics,
    // then after `ANALYZE`.
    let store = Store::connect(empty).await.unwrap();
    store.migrate_up().await.unwrap();
    look_for_walks(&store, &made, is_walk).await;
    store.write().execute_unprepared("ANALYZE").await.unwrap();
    look_for_walks(&store, &made, is_walk).await;
    look_for_walks(&store, &rounds, turns::is_walk).await;
    store.close().await.unwrap();
}

async fn look_for_walks(store: &Store, statements: &[Statement], is_walk: fn(&str, &str) -> bool) {
    let mut found = Vec::new();
    for statement in statements {
        let walks = walks(store, statement, is_walk).await;
        if !walks.is_empty() {
            found.push(format!("{walks:#?}: {}", statement.sql));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_use_the_indexes() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let sqlite = |name: &str| format!("sqlite://{}/{name}.db", folder.path().display());
    no_statement_goes_through_all_messages(&sqlite("wxgate"), &sqlite("empty")).await;
    let postgres = Postgres::start();
    no_statement_goes_through_all_messages(
        &postgres.create_database("plans"),
        &postgres.create_database("empty"),
    )
    .await;
}
