//! That looking for work costs the same whatever the backlog and the history: no statement that moves messages goes
//! through the table.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use domain::{
    app::{AppId, AppKind, TokenMode},
    id::{self, TenantId},
    lifecycle::Event,
    quota::Shares,
    tenant::TenantLimits,
    verdict::Verdict,
};
use sea_orm::{ConnectionTrait, DbBackend, Statement};
use testkit::Postgres;
use uuid::Uuid;

use super::{ClaimRequest, Settlement, Word};
use crate::{NewApp, Store, millis};

/// What [`Sql::on`](super::sql::Sql::on) has made in this process.
static MADE: Mutex<Vec<Statement>> = Mutex::new(Vec::new());

/// How many messages have ended, and how many wait for something.
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
    let platform = store.platform();
    let limits = TenantLimits::default();
    platform
        .create_tenant(tenant, "t", limits, at(0))
        .await
        .unwrap();
    let app = NewApp {
        appid: AppId::parse("wx0000000000000001").unwrap(),
        name: "app".into(),
        kind: AppKind::MiniProgram,
        token_mode: TokenMode::Stable,
        daily_quota: 1_000_000,
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

/// Messages of the app in every phase, most of them ended.
async fn fill(store: &Store, appid: &AppId) {
    let connection = &store.write;
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
        // Every other message that is ready is for somebody who is being sent one.
        (3, "sending", "'ready' || (2 * i)", WAITING / 10),
        (4, "sent", "'ended' || i", ENDED),
    ] {
        let insert = Statement::from_sql_and_values(
            connection.get_database_backend(),
            format!(
                "INSERT INTO message (id, tenant_id, appid, touser, template_id, priority, status, phase, content, \
                 on_uncertain, ttl_seconds, due_at, expires_at, attempt_count, attempts, lease, lease_until, followed, created_at, updated_at) \
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
                 SELECT {uuid}, $1, $2, {touser}, 't', 1, '{status}', {phase}, '{content}', \
                 'hold', 3600, {due} + i, {due} + 3600000 + i, 0, '[]', 0, {due}, 0, {due}, {due} FROM n",
                due = millis(at(0)),
            ),
            [tenant.uuid().into(), appid.as_str().into()],
        );
        connection.execute_raw(insert).await.unwrap();
    }
    connection.execute_unprepared("ANALYZE").await.unwrap();
}

/// Everything that the engine does of its own accord.
async fn work(store: &Store) {
    let platform = store.platform();
    let now = at(60);
    let request = ClaimRequest {
        slots: 64,
        apps: Vec::new(),
        cursor: String::new(),
        lease: 7,
        lease_until: now + Duration::from_mins(1),
        shares: Shares::default(),
    };
    let claimed = platform.claim(&request, now).await.unwrap().claimed;
    assert_eq!(claimed.len(), 32);
    let sent = Event::Answered(Verdict::Accepted { msgid: None });
    let settled: Vec<Settlement> = claimed
        .into_iter()
        .map(|flight| Settlement {
            id: flight.id,
            lease: flight.lease,
            word: Word::Final,
            transition: flight.facts().apply(&sent, now, 0.0).unwrap(),
            appid: flight.appid,
            touser: flight.touser,
            attempts: flight.attempts,
            refund: None,
            msgid: None,
            failure_detail: None,
        })
        .collect();
    let (some, others) = settled.split_at(16);
    platform.record_plain(some, now).await.unwrap();
    platform.record(others, &[], now).await.unwrap();
    platform.promote(now).await.unwrap();
    platform.next_due().await.unwrap();
    platform.overdue(now).await.unwrap();
    platform.disown(7, now).await.unwrap();
    platform.release_stranded(now).await.unwrap();
    platform.expire(at(3600)).await.unwrap();
    platform.forget_messages(at(0)).await.unwrap();
    platform
        .drop_payloads(Uuid::nil(), at(0), now)
        .await
        .unwrap();
}

/// The lines of the plan of `statement` that go through all messages.
async fn scans(store: &Store, statement: &Statement) -> Vec<String> {
    let backend = store.write.get_database_backend();
    let (explain, column, is_scan): (_, _, fn(&str) -> bool) = match backend {
        DbBackend::Postgres => ("EXPLAIN ", "QUERY PLAN", |line| {
            line.contains("Seq Scan on message")
        }),
        _ => ("EXPLAIN QUERY PLAN ", "detail", |line| {
            let of_messages = ["SCAN message", "SCAN m", "SCAN f"];
            of_messages.iter().any(|scan| line.starts_with(scan)) && !line.contains("USING")
        }),
    };
    let explained = Statement {
        sql: format!("{explain}{}", statement.sql),
        ..statement.clone()
    };
    let plan = store.write.query_all_raw(explained).await.unwrap();
    let lines = plan
        .iter()
        .map(|row| row.try_get::<String>("", column).unwrap());
    lines.filter(|line| is_scan(line)).collect()
}

async fn no_statement_goes_through_all_messages(url: &str) {
    let store = Store::connect(url).await.unwrap();
    store.migrate_up().await.unwrap();
    let appid = app(&store).await;
    fill(&store, &appid).await;
    MADE.lock().unwrap().clear();
    work(&store).await;
    let made = std::mem::take(&mut *MADE.lock().unwrap());
    assert!(made.len() >= 15, "{} statements", made.len());
    for statement in &made {
        let scans = scans(&store, statement).await;
        assert!(scans.is_empty(), "{scans:?}: {}", statement.sql);
    }
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_use_the_indexes() {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}/wxgate.db", folder.path().display());
    no_statement_goes_through_all_messages(&sqlite).await;
    let postgres = Postgres::start();
    no_statement_goes_through_all_messages(&postgres.create_database("plans")).await;
}
