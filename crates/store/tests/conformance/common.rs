//! A separate database for each rule, and the setup that most rules share.

use std::{sync::LazyLock, time::Duration};

use chrono::{DateTime, Utc};
use domain::{
    app::{AppId, AppKind, TokenMode},
    grant::GrantPolicy,
    id::{self, TenantId},
    message::{Draft, Request},
    quota::PriorityShares,
    tenant::TenantLimits,
};
use serde_json::{Value, json};
use testkit::Postgres;
use wxgate_store::{
    IdempotencyKey, NewApp, NewMessage, Received, Store, Submission, SubmissionBody, Taken,
};

static POSTGRES: LazyLock<Postgres> = LazyLock::new(Postgres::start);

/// Each rule becomes two tests, each with a separate database.
macro_rules! on_both {
    ($($rule:ident)*) => {
        mod sqlite {
            $(#[tokio::test] async fn $rule() { crate::common::on_sqlite(super::$rule).await })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")] async fn $rule() {
                crate::common::on_postgres(stringify!($rule), super::$rule).await;
            })*
        }
    };
}
pub(crate) use on_both;

pub(crate) async fn on_sqlite(rule: impl AsyncFnOnce(Store)) {
    let folder = tempfile::tempdir().unwrap();
    run(
        &format!("sqlite://{}/wxgate.db", folder.path().display()),
        rule,
    )
    .await;
}

pub(crate) async fn on_postgres(name: &str, rule: impl AsyncFnOnce(Store)) {
    run(&POSTGRES.create_database(name), rule).await;
}

async fn run(url: &str, rule: impl AsyncFnOnce(Store)) {
    let store = Store::connect(url).await.unwrap();
    store.migrate_up().await.unwrap();
    rule(store.clone()).await;
    store.close().await.unwrap();
}

/// A time, `seconds` after the start of every test: 10:46 in Shanghai.
pub(crate) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_780_281_960 + seconds, 0).unwrap()
}

/// The appid of app number `number`.
pub(crate) fn appid(number: u16) -> AppId {
    AppId::parse(format!("wx{number:016}")).unwrap()
}

/// The tenant that [`onboard`] makes with this number.
pub(crate) fn owner(number: u8) -> TenantId {
    id::new(at(0), u16::from(number), 1)
}

/// A tenant with an app of the same number.
pub(crate) async fn onboard(store: &Store, number: u8, daily_quota: u64) -> TenantId {
    let tenant = owner(number);
    let name = format!("tenant {number}");
    store
        .platform()
        .create_tenant(tenant, &name, TenantLimits::default(), at(0))
        .await
        .unwrap();
    let app = NewApp {
        daily_quota,
        ..new_app(u16::from(number))
    };
    store.tenant(tenant).create_app(app, at(0)).await.unwrap();
    tenant
}

/// A subscribe message to `touser` with a ttl of one hour.
pub(crate) fn draft(touser: &str) -> Draft {
    let Value::Object(data) = json!({"thing1": {"value": "保温杯"}}) else {
        unreachable!()
    };
    let request = Request {
        touser: touser.to_owned(),
        template_id: "tpl".into(),
        data: Some(data),
        ttl: Some(Duration::from_hours(1).as_secs()),
        ..Request::default()
    };
    request.check(at(0)).unwrap()
}

/// A new mini-program.
pub(crate) fn new_app(number: u16) -> NewApp {
    NewApp {
        appid: appid(number),
        name: format!("app {number}"),
        kind: AppKind::MiniProgram,
        token_mode: TokenMode::Stable,
        daily_quota: 1000,
        grant_policy: GrantPolicy::Observe,
        value_rules: domain::app::ValueRules::Strict,
        secret_sealed: vec![1; 48],
        callback_token_sealed: None,
        callback_aes_key_sealed: None,
        verified_at: None,
    }
}

/// A request to send one message.
pub(crate) fn one(new: NewMessage, key: impl Into<Option<IdempotencyKey>>) -> Submission {
    Submission {
        tenant: new.tenant,
        appid: new.appid.clone(),
        key: key.into(),
        received_at: new.received_at,
        load: SubmissionBody::One(Box::new(new)),
    }
}

/// Submits requests in one transaction.
pub(crate) async fn hand_in(store: &Store, batch: &[Submission], now: DateTime<Utc>) -> Vec<Taken> {
    store
        .platform()
        .intake(batch, PriorityShares::default(), now)
        .await
        .unwrap()
}

/// Submits messages, each as a separate submission. Returns the result of each message.
pub(crate) async fn intake(
    store: &Store,
    batch: &[NewMessage],
    now: DateTime<Utc>,
) -> Vec<Received> {
    let batch: Vec<_> = batch.iter().map(|new| one(new.clone(), None)).collect();
    let taken = hand_in(store, &batch, now).await.into_iter();
    let received = taken.map(|taken| match taken {
        Taken::Fresh(received) => received[0],
        other => unreachable!("{other:?}"),
    });
    received.collect()
}
