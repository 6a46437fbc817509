//! What time does to messages. The tests set the clock by hand.

use std::time::Duration;

use chrono::SecondsFormat;
use serde_json::{Value, json};
use simulator::{AccountState, Effect, Fault};

use crate::world::{Mode, World, eventually, message, message_with};

const APP: &str = "wx00000000000000a1";
const OTHER: &str = "wx00000000000000b2";

both_modes!(
    a_message_that_cannot_be_sent_in_time_expires,
    a_past_schedule_leaves_the_rest_of_the_ttl,
    a_scheduled_message_waits_for_its_time,
    an_invalid_schedule_is_refused,
    a_message_may_be_scheduled_for_30_days_ahead,
    a_repaired_app_sends_waiting_messages,
    a_token_is_replaced_before_it_ends,
    messages_are_deleted_after_their_retention,
);

fn in_seconds(world: &World, seconds: i64) -> String {
    (world.now() + chrono::Duration::seconds(seconds)).to_rfc3339_opts(SecondsFormat::Millis, true)
}

async fn a_message_that_cannot_be_sent_in_time_expires(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    world.wechat().add_fault(
        Fault::always(Effect::Errcode {
            errcode: -1,
            errmsg: None,
        })
        .for_app(APP),
    );

    let short = tenant
        .send(APP, &message_with("o1", json!({"ttl": 2})))
        .await;
    let long = tenant
        .send(APP, &message_with("o2", json!({"ttl": 3600})))
        .await;
    assert_eq!(short["expires_at"], in_seconds(&world, 2));
    tenant.wait_attempt(&short, "retry").await;
    tenant.wait_attempt(&long, "retry").await;
    world.wechat().clear_faults();
    world.pass(Duration::from_secs(3));

    let expired = tenant.wait_ended(&short).await;
    assert_eq!(
        (&expired["status"], &expired["failure"]["code"]),
        (&json!("expired"), &json!("expired"))
    );
    assert_eq!(tenant.wait_ended(&long).await["status"], "sent");
    let sent = world.wechat().sent(APP);
    assert_eq!(sent.len(), 1, "never sent late: {sent:?}");
    assert_eq!(sent[0].touser, "o2");
}

async fn a_past_schedule_leaves_the_rest_of_the_ttl(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    for (ago, status) in [(59, "sent"), (60, "expired"), (600, "expired")] {
        let fields = json!({"send_at": in_seconds(&world, -ago), "ttl": 60});
        let message = tenant.send(APP, &message_with("o1", fields)).await;
        assert_eq!(message["expires_at"], in_seconds(&world, 60 - ago));
        assert_eq!(tenant.wait_ended(&message).await["status"], status, "{ago}");
    }
    assert_eq!(world.wechat().sent(APP).len(), 1);
}

async fn a_scheduled_message_waits_for_its_time(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let send_at = in_seconds(&world, 3600);

    let scheduled = tenant
        .send(
            APP,
            &message_with("o1", json!({"send_at": send_at, "ttl": 60})),
        )
        .await;
    assert_eq!(
        (&scheduled["status"], &scheduled["send_at"]),
        (&json!("scheduled"), &json!(send_at))
    );
    assert_eq!(
        scheduled["expires_at"],
        in_seconds(&world, 3660),
        "the ttl counts from send_at"
    );

    world.pass(Duration::from_secs(3590));
    // The message sent now proves that the gateway has read the queue since.
    let now = tenant.send_and_wait(APP, &message("o2")).await;
    assert_eq!(now["status"], "sent");
    assert_eq!(tenant.read(&scheduled).await["status"], "scheduled");

    world.pass(Duration::from_secs(11));
    let sent = tenant.wait_ended(&scheduled).await;
    assert_eq!(sent["status"], "sent", "{sent}");
    assert_eq!(world.wechat().sent(APP).len(), 2);
}

async fn an_invalid_schedule_is_refused(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    for (more, pointer) in [
        (
            json!({"send_at": in_seconds(&world, 31 * 86_400)}),
            "/send_at",
        ),
        (json!({"ttl": 7 * 86_400 + 1}), "/ttl"),
        (json!({"send_at": "tomorrow"}), "/send_at"),
        (json!({"ttl": -1}), "/ttl"),
    ] {
        let answer = tenant
            .try_send_and_wait(APP, &message_with("o1", more))
            .await;
        let problem = answer.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
}

async fn a_message_may_be_scheduled_for_30_days_ahead(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let send_at = in_seconds(&world, 30 * 86_400);
    let fields = json!({"send_at": send_at, "ttl": 60, "reference": "far", "metadata": {"n": 1}});
    let far = tenant.send(APP, &message_with("o1", fields)).await;
    assert_eq!(far["status"], "scheduled");
    world.pass(Duration::from_secs(30 * 86_400 + 1));
    let sent = tenant.wait_ended(&far).await;
    assert_eq!(
        (&sent["status"], &sent["reference"], &sent["metadata"]),
        (&json!("sent"), &json!("far"), &json!({"n": 1}))
    );
}

/// A pause of one app must not affect another app.
async fn a_repaired_app_sends_waiting_messages(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    tenant.app(OTHER).await;
    world
        .wechat()
        .change_app(APP, |app| app.state = AccountState::Suspended);

    let blocked = tenant.send(APP, &message("o1")).await;
    tenant.wait_attempt(&blocked, "app_blocked").await;
    let waiting = tenant.send(APP, &message("o2")).await;
    let neighbour = tenant.send_and_wait(OTHER, &message("o1")).await;
    assert_eq!(neighbour["status"], "sent");
    assert_eq!(
        tenant.read(&waiting).await["attempts"],
        json!([]),
        "a blocked app is left alone"
    );
    let pause = tenant
        .client
        .get(&format!("/v1/apps/{APP}"))
        .await
        .expect(200)["pause"]
        .clone();
    assert_eq!(pause["reason"], "suspended", "{pause}");

    world
        .wechat()
        .change_app(APP, |app| app.state = AccountState::Active);
    let until =
        chrono::DateTime::parse_from_rfc3339(pause["until"].as_str().expect("until")).unwrap();
    world.pass((until.to_utc() - world.now()).to_std().unwrap() + Duration::from_secs(2));
    for message in [&blocked, &waiting] {
        assert_eq!(tenant.wait_ended(message).await["status"], "sent");
    }
    let app = tenant
        .client
        .get(&format!("/v1/apps/{APP}"))
        .await
        .expect(200);
    assert_eq!(app["pause"], Value::Null);
}

/// Two hours of a message a minute: no send ever uses an old token.
async fn a_token_is_replaced_before_it_ends(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    for _ in 0..125 {
        let message = tenant.send_and_wait(APP, &message("o1")).await;
        assert_eq!(
            message["attempts"].as_array().map(Vec::len),
            Some(1),
            "{message}"
        );
        assert_eq!(message["status"], "sent", "{message}");
        world.pass(Duration::from_mins(1));
    }
    let stats = world.wechat().app_stats(APP);
    let fetches = stats.total("/cgi-bin/stable_token");
    assert!((2..=6).contains(&fetches), "{stats:?}");
}

/// The retention is ninety days after a message's end, not after its acceptance.
async fn messages_are_deleted_after_their_retention(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let path = |message: &Value| format!("/v1/messages/{}", message["id"].as_str().unwrap());
    let day = Duration::from_hours(24);
    let early = tenant.send_and_wait(APP, &message("o1")).await;
    let in_twenty_days = json!({"send_at": in_seconds(&world, 20 * 24 * 3600)});
    let late = tenant.send(APP, &message_with("o2", in_twenty_days)).await;
    world.pass(day * 20 + Duration::from_mins(1));
    assert_eq!(tenant.wait_ended(&late).await["status"], "sent");
    assert_eq!(tenant.client.get(&path(&early)).await.status, 200);

    world.pass(day * 71);
    let forgotten = async || {
        let answer = tenant.client.get(&path(&early)).await;
        (answer.status == 404).then_some(())
    };
    eventually("the first one is forgotten", forgotten).await;
    assert_eq!(tenant.client.get(&path(&late)).await.status, 200);
    let listed = tenant.client.get(&format!("/v1/apps/{APP}/messages")).await;
    assert_eq!(listed.expect(200)["data"].as_array().unwrap().len(), 1);
}
