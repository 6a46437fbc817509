//! Single messages of one tenant beside the backlog of another tenant.

use std::{
    fmt,
    time::{Duration, Instant},
};

use futures::future::join_all;
use serde_json::json;

use crate::world::{Mode, Tenant, World, message};

const BUSY: &str = "wx00000000000000a1";
const QUIET: &str = "wx00000000000000b2";
const BACKLOG: usize = 5_000;
const ROUNDS: usize = 10;
/// The messages of one round.
const SINGLES: usize = 5;
/// The time that WeChat takes for each answer.
const LATENCY: Duration = Duration::from_millis(30);
/// A release build on a quiet machine needs a small fraction of this time; a debug build beside other tests needs more.
const PATIENCE: Duration = Duration::from_secs(2);

both_modes!(a_backlog_delays_no_other_tenant);

/// 5,000 messages of one tenant wait while another tenant sends fifty messages, five at a time. Each replica has 32
/// sending slots, so that the backlog occupies all slots all the time.
async fn a_backlog_delays_no_other_tenant(mode: Mode) {
    let replicas = if mode == Mode::Production { 3 } else { 1 };
    let world = World::plan(mode).replicas(replicas).slots(32).start().await;
    let (busy, quiet) = (world.tenant("busy").await, world.tenant("quiet").await);
    quiet.app(QUIET).await;
    let wechat = world.wechat();
    wechat.set_latency(LATENCY);
    let alone = single_sends(&world, &quiet, replicas, "alone").await;
    let new = json!({"appid": BUSY, "secret": "s", "tenant_id": busy.id, "verify": false});
    world.operator().post("/v1/apps", &new).await.expect(201);
    wechat.change_app(BUSY, |app| app.secret = Some("another".into()));
    let first = busy.send(BUSY, &message("first")).await;
    busy.wait_attempt(&first, "app_blocked").await;
    world.hand_in(&busy, BUSY, BACKLOG).await;

    // The new secret ends the app's pause: all messages of the app are due at once.
    let secret = json!({"secret": "another"});
    let path = format!("/v1/apps/{BUSY}/secret");
    busy.client.put(&path, &secret).await.expect(200);
    busy.wait_ended(&first).await;
    let beside = single_sends(&world, &quiet, replicas, "beside").await;

    let taken = wechat.sent(BUSY).len();
    assert!(taken < BACKLOG, "there was no backlog any more");
    eprintln!("{mode:?}: {alone}; beside a backlog of which {taken} were sent: {beside}");
    assert!(beside.p99 < PATIENCE, "{beside}");
}

/// The time from the request to the answer that the message is sent.
struct Times {
    median: Duration,
    p99: Duration,
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:?}, p99 {:?}", self.median, self.p99)
    }
}

async fn single_sends(world: &World, tenant: &Tenant, replicas: usize, openid: &str) -> Times {
    let callers: Vec<_> = (0..replicas).map(|at| world.at(at, tenant)).collect();
    for caller in &callers {
        caller.client.token().await;
    }
    let mut times = Vec::with_capacity(ROUNDS * SINGLES);
    for round in 0..ROUNDS {
        let sends = (0..SINGLES).map(|number| {
            let caller = &callers[number % replicas];
            async move {
                let message = message(&format!("{openid}{round}-{number}"));
                let asked = Instant::now();
                let sent = caller.send_and_wait(QUIET, &message).await;
                assert_eq!(sent["status"], "sent", "{sent}");
                asked.elapsed()
            }
        });
        times.extend(join_all(sends).await);
    }
    times.sort();
    Times {
        median: times[times.len() / 2],
        p99: times[times.len() * 99 / 100],
    }
}
