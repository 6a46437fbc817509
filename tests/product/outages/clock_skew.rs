//! Machines with different clocks: replicas use the clock of the database for shared decisions.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::world::{Mode, Tenant, World, eventually, message_with, until};

const APP: &str = "wx00000000000000a1";

/// Real programs in production mode, each with its own clock. An embedded gateway has no other clock to differ from.
macro_rules! production {
    ($($scenario:ident($off:expr) = $scene:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $scenario() {
            $scene($off).await;
        }
    )*};
}

production!(
    a_replica_that_is_20_s_ahead_goes_by_the_databases_clock(20) = goes_by_the_databases_clock,
    a_replica_that_is_20_s_behind_goes_by_the_databases_clock(-20) = goes_by_the_databases_clock,
    a_replica_that_is_120_s_ahead_takes_no_work(120) = takes_no_work,
    a_replica_that_is_120_s_behind_takes_no_work(-120) = takes_no_work,
);

/// Starts a right replica and one with a clock `off` seconds off. Returns the tenant at each replica.
async fn two(off: i32) -> (World, Tenant, Tenant) {
    let mut world = World::plan(Mode::Production).own_process().start().await;
    world.add_replica_off(off).await;
    let right = world.tenant("a").await;
    right.app(APP).await;
    let wrong = world.at(1, &right);
    (world, right, wrong)
}

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().expect("a time").parse().expect("a time")
}

/// Twenty messages at both replicas are due in 2 s: no message is early, and none is late by the clock's offset.
async fn scheduled_messages_are_in_time(world: &World, replicas: [&Tenant; 2]) {
    let due = world.now() + TimeDelta::seconds(2);
    let mut sent = Vec::new();
    for number in 0..20 {
        let fields = json!({"send_at": due.to_rfc3339(), "ttl": 15});
        let scheduled = message_with(&format!("s{number}"), fields);
        sent.push(replicas[number % 2].send(APP, &scheduled).await);
    }
    for message in &sent {
        let ended = replicas[0].wait_ended(message).await;
        assert_eq!(ended["status"], "sent", "{ended}");
        let started = time(&ended["attempts"][0]["started_at"]);
        assert!((started - due).abs() < TimeDelta::seconds(15), "{ended}");
    }
    let taken = world.wechat().sent(APP);
    for taken in taken.iter().filter(|taken| taken.touser.starts_with('s')) {
        let early = due.timestamp_millis() - taken.at;
        assert!(early < 100, "{early} ms early: {taken:?}");
    }
}

fn metric(text: &str) -> f64 {
    let line = text
        .lines()
        .find(|line| line.starts_with("wxgate_clock_offset_seconds "));
    let value = line.expect("the metric").split(' ').nth(1);
    value.expect("a value").parse().expect("a number")
}

async fn goes_by_the_databases_clock(off: i32) {
    let (world, right, wrong) = two(off).await;
    eventually("it is ready", || async {
        let ready = wrong.client.get("/readyz").await;
        (ready.status == 200).then_some(())
    })
    .await;
    scheduled_messages_are_in_time(&world, [&right, &wrong]).await;
    let shown = metric(&wrong.client.get("/metrics").await.text);
    assert!((shown - f64::from(off)).abs() < 1.0, "{shown}");
    assert!(metric(&right.client.get("/metrics").await.text).abs() < 1.0);
    let side = if off < 0 { "behind" } else { "ahead of" };
    let told = format!("s {side} the database's");
    assert!(world.said(1).contains(&told), "{}", world.said(1));
    assert!(
        !world.said(0).contains("this machine's clock"),
        "{}",
        world.said(0)
    );
    // Tokens of one replica are valid at the other replica, from the issue to the expiry.
    for (from, to) in [(&right, &wrong), (&wrong, &right)] {
        let token = from.client.token().await;
        let path = format!("/v1/apps/{APP}");
        let asked = to
            .client
            .bare(reqwest::Method::GET, &path)
            .bearer_auth(token);
        assert_eq!(crate::world::finish(asked).await.status, 200);
    }
}

async fn takes_no_work(off: i32) {
    let (world, right, wrong) = two(off).await;
    let unready = wrong.client.get("/readyz").await;
    let told = unready.problem(503, "overloaded")["detail"].to_string();
    let side = if off < 0 { "behind" } else { "ahead of" };
    assert!(told.contains(side) && told.contains("NTP"), "{told}");
    let shown = metric(&wrong.client.get("/metrics").await.text);
    assert!((shown - f64::from(off)).abs() < 1.0, "{shown}");
    until("it says so", || {
        world.said(1).contains("this replica takes no work")
    })
    .await;

    // WeChat answers after 3 s: a sweeper with a clock two minutes ahead would release these messages as lost.
    world
        .wechat()
        .change_app(APP, |app| app.latency_ms = Some(3000));
    let retry = json!({"on_uncertain": "retry"});
    let mut sent = Vec::new();
    for number in 0..10 {
        let tenant = [&right, &wrong][number % 2];
        sent.push(
            tenant
                .send(APP, &message_with(&format!("r{number}"), retry.clone()))
                .await,
        );
    }
    for message in &sent {
        let ended = right.wait_ended(message).await;
        assert_eq!(ended["status"], "sent", "{ended}");
        assert_eq!(
            ended["attempts"].as_array().map(Vec::len),
            Some(1),
            "{ended}"
        );
    }
    assert_eq!(world.wechat().sent(APP).len(), 10, "each once");
    world.wechat().change_app(APP, |app| app.latency_ms = None);
    scheduled_messages_are_in_time(&world, [&right, &wrong]).await;

    world.set_clock(0);
    eventually("it is right again", || async {
        let ready = wrong.client.get("/readyz").await;
        (ready.status == 200).then_some(())
    })
    .await;
    until("it says so", || {
        world.said(1).contains("agrees with the database's again")
    })
    .await;
    world.set_clock(off);
    eventually("its clock was set while it ran", || async {
        let ready = wrong.client.get("/readyz").await;
        (ready.status == 503).then_some(())
    })
    .await;
}
