//! The daily quota: the gateway uses the quota up to the last message; the count restarts at 00:00 in Shanghai.

use std::time::Duration;

use serde_json::{Value, json};
use simulator::{Effect, Fault};

use crate::world::{Mode, Tenant, World, message, message_with};

const APP: &str = "wx00000000000000a1";
/// A world with a clock set by hand begins at 10:00 in Shanghai.
const TO_MIDNIGHT: Duration = Duration::from_hours(14);
/// Ten seconds less than [`TO_MIDNIGHT`].
const ALMOST_MIDNIGHT: Duration = Duration::from_secs(14 * 3600 - 10);

both_modes!(
    exactly_the_quota_is_sent_and_the_rest_the_next_day,
    a_message_that_would_expire_first_is_refused,
    the_last_sends_of_a_day_are_for_higher_priorities,
    wechat_may_end_the_daily_quota_earlier,
    a_quota_refusal_with_sends_left_pauses_for_a_minute,
    a_minute_limit_of_wechat_slows_the_app_down,
    a_raised_quota_counts_at_once,
    removing_and_adding_an_app_keeps_the_days_count,
);

/// WeChat counts by appid, so an app that is removed and added again keeps the day's count.
async fn removing_and_adding_an_app_keeps_the_days_count(mode: Mode) {
    let world = World::plan(mode).own_process().start().await;
    let tenant = world.tenant("a").await;
    for sent in 1..=2 {
        tenant.app(APP).await;
        let message = tenant.send_and_wait(APP, &message("o1")).await;
        assert_eq!(message["status"], "sent");
        assert_eq!(quota(&tenant).await["used"], sent);
        let path = format!("/v1/apps/{APP}");
        let removed = tenant.client.delete(&path).await;
        assert_eq!(removed.status, 204, "{removed:?}");
    }
}

async fn quota(tenant: &Tenant) -> Value {
    tenant
        .client
        .get(&format!("/v1/apps/{APP}/quota"))
        .await
        .expect(200)
}

async fn app(tenant: &Tenant) -> Value {
    let path = format!("/v1/apps/{APP}");
    tenant.client.get(&path).await.expect(200)
}

/// A message of high priority, which may use all of the quota.
fn high(number: usize) -> Value {
    message_with(&format!("o{number}"), json!({"priority": "high"}))
}

async fn exactly_the_quota_is_sent_and_the_rest_the_next_day(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app_with(APP, json!({"daily_quota": 5})).await;
    let before = quota(&tenant).await;
    assert_eq!(
        (&before["limit"], &before["used"], &before["remaining"]),
        (&json!(5), &json!(0), &json!(5))
    );
    assert_eq!(before["reset_at"], "2026-03-02T16:00:00.000Z");

    for number in 0..8 {
        tenant.send(APP, &high(number)).await;
    }
    tenant.wait_count(APP, "sent", 5).await;
    assert_eq!(tenant.count(APP, "queued").await, 3);
    let spent = quota(&tenant).await;
    assert_eq!(
        (&spent["used"], &spent["remaining"]),
        (&json!(5), &json!(0))
    );

    world.pass(ALMOST_MIDNIGHT);
    tenant.app("wx00000000000000b2").await;
    tenant
        .send_and_wait("wx00000000000000b2", &message("o1"))
        .await;
    assert_eq!(world.wechat().sent(APP).len(), 5, "not before midnight");

    world.pass(Duration::from_secs(15));
    tenant.wait_count(APP, "sent", 8).await;
    let next = quota(&tenant).await;
    assert_eq!((&next["used"], &next["remaining"]), (&json!(3), &json!(2)));
    assert_eq!(next["reset_at"], "2026-03-03T16:00:00.000Z");
    assert_eq!(world.wechat().sent(APP).len(), 8);
}

async fn a_message_that_would_expire_first_is_refused(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app_with(APP, json!({"daily_quota": 2})).await;
    for number in 0..2 {
        tenant.send_and_wait(APP, &high(number)).await;
    }
    let path = format!("/v1/apps/{APP}/messages");
    let short = message_with("o3", json!({"priority": "high", "ttl": 3600}));

    let refused = tenant.client.post(&path, &short).await;
    assert_eq!(refused.header("retry-after"), Some("50400"), "{refused:?}");
    refused.problem(429, "quota_exhausted");

    let long = message_with("o3", json!({"priority": "high", "ttl": 86_400}));
    assert_eq!(tenant.send(APP, &long).await["status"], "queued");
    world.pass(TO_MIDNIGHT + Duration::from_secs(5));
    tenant.wait_count(APP, "sent", 3).await;
    tenant.send_and_wait(APP, &short).await;
}

async fn the_last_sends_of_a_day_are_for_higher_priorities(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app_with(APP, json!({"daily_quota": 20})).await;
    for number in 0..20 {
        tenant
            .send(
                APP,
                &message_with(&format!("low{number}"), json!({"priority": "low"})),
            )
            .await;
    }
    tenant.wait_count(APP, "sent", 16).await;
    for number in 0..5 {
        tenant.send(APP, &message(&format!("normal{number}"))).await;
    }
    tenant.wait_count(APP, "sent", 19).await;
    tenant.send(APP, &high(0)).await;
    tenant.send(APP, &high(1)).await;
    tenant.wait_count(APP, "sent", 20).await;
    let sent = world.wechat().sent(APP);
    let count = |prefix: &str| {
        sent.iter()
            .filter(|sent| sent.touser.starts_with(prefix))
            .count()
    };
    assert_eq!(
        (count("low"), count("normal"), count("o")),
        (16, 3, 1),
        "80 %, 95 %, all"
    );

    world.pass(TO_MIDNIGHT + Duration::from_secs(5));
    tenant.wait_count(APP, "sent", 27).await;
}

/// WeChat's limit of the day is smaller than the gateway's setting.
async fn wechat_may_end_the_daily_quota_earlier(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    world
        .wechat()
        .change_app(APP, |app| app.limits.subscribe_send = 1);
    tenant.app(APP).await;
    tenant.send_and_wait(APP, &message("o1")).await;

    let mut waiting = Vec::new();
    let first = tenant.send(APP, &message("o2")).await;
    let first = tenant.wait_attempt(&first, "quota_spent").await;
    assert_eq!(first["status"], "queued");
    waiting.push(first);
    for number in 3..6 {
        waiting.push(tenant.send(APP, &message(&format!("o{number}"))).await);
    }
    let app = app(&tenant).await;
    assert_eq!(app["pause"]["reason"], "quota_exhausted", "{app}");
    assert_eq!(app["pause"]["until"], "2026-03-02T16:00:00.000Z", "{app}");
    assert_eq!(quota(&tenant).await["remaining"], 0, "WeChat's count holds");
    assert_eq!(world.wechat().sent(APP).len(), 1);

    world
        .wechat()
        .change_app(APP, |app| app.limits.subscribe_send = 100);
    world.pass(TO_MIDNIGHT + Duration::from_secs(30));
    for message in waiting {
        assert_eq!(tenant.wait_ended(&message).await["status"], "sent");
    }
}

/// WeChat also answers 45009 for a limit of the minute. WeChat's own count of the day shows which limit is reached.
async fn a_quota_refusal_with_sends_left_pauses_for_a_minute(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    refuse(&world, 45009, 1);
    let first = tenant.send(APP, &message("o1")).await;
    let first = tenant.wait_attempt(&first, "quota_spent").await;
    assert_eq!(app(&tenant).await["pause"]["reason"], "throttled");
    world.pass(Duration::from_mins(1));
    assert_eq!(tenant.wait_ended(&first).await["status"], "sent");
    assert_eq!(app(&tenant).await["pause"], Value::Null);
}

/// Messages that WeChat refuses for the limit of a minute wait for the next minute. The pace is at least 600 messages a
/// minute, so a minute with few sends does not slow the app down.
async fn a_minute_limit_of_wechat_slows_the_app_down(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    for number in 0..10 {
        tenant
            .send_and_wait(APP, &message(&format!("before{number}")))
            .await;
    }
    refuse(&world, 45011, 1);
    let first = tenant.send(APP, &message("o1")).await;
    let first = tenant.wait_attempt(&first, "retry").await;
    let slowed = app(&tenant).await;
    assert_eq!(slowed["pause"]["reason"], "throttled", "{slowed}");
    assert_eq!(slowed["pace"], 600, "{slowed}");

    world.pass(Duration::from_mins(1) + Duration::from_secs(6));
    assert_eq!(tenant.wait_ended(&first).await["status"], "sent");
    for number in 0..20 {
        tenant.send(APP, &message(&format!("after{number}"))).await;
    }
    tenant.wait_count(APP, "sent", 10 + 1 + 20).await;
}

fn refuse(world: &World, errcode: i64, count: u64) {
    let refusal = Effect::Errcode {
        errcode,
        errmsg: None,
    };
    let sends = "/cgi-bin/message/subscribe/send";
    world
        .wechat()
        .add_fault(Fault::next(count, refusal).for_path(sends));
}

async fn a_raised_quota_counts_at_once(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app_with(APP, json!({"daily_quota": 2})).await;
    for number in 0..4 {
        tenant.send(APP, &high(number)).await;
    }
    tenant.wait_count(APP, "sent", 2).await;
    let raised = json!({"daily_quota": 100});
    tenant
        .client
        .patch(&format!("/v1/apps/{APP}"), &raised)
        .await
        .expect(200);
    tenant.wait_count(APP, "sent", 4).await;
}
