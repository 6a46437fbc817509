//! Another system that fetches access tokens with an app's AppSecret.

use std::time::Duration;

use futures::{
    future::join,
    stream::{self, StreamExt},
};
use serde_json::{Value, json};
use store::NewAuditLine;

use crate::{
    tokens::fetching::token_audit,
    world::{Mode, SECRET, Tenant, World, eventually, message, until},
};

const APP: &str = "wx00000000000000a1";

both_modes!(a_foreign_fetch_in_the_middle_of_two_thousand_sends);

/// Every status except `sent`.
const NOT_SENT: [&str; 9] = [
    "scheduled",
    "queued",
    "sending",
    "delivered",
    "undelivered",
    "failed",
    "expired",
    "canceled",
    "uncertain",
];

async fn read(tenant: &Tenant, path: &str) -> Value {
    let path = format!("/v1/apps/{APP}{path}");
    tenant.client.get(&path).await.expect(200)
}

/// Every message is sent once, with one refresh, and the foreign refresh is shown, also while Redis stalls.
async fn a_foreign_fetch_in_the_middle_of_two_thousand_sends(mode: Mode) {
    const SENDS: usize = 2_000;
    const SLOW: Duration = Duration::from_secs(3);
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant
        .app_with(APP, json!({"secret": SECRET, "token_mode": "legacy"}))
        .await;
    let wechat = world.wechat();
    // With this latency, hundreds of sends are with WeChat at the moment of the foreign fetch.
    wechat.set_latency(Duration::from_millis(100));

    let send = async {
        let sends = (0..SENDS).map(|number| {
            let tenant = &tenant;
            async move { tenant.send(APP, &message(&format!("o{number}"))).await }
        });
        stream::iter(sends).buffered(200).collect::<Vec<_>>().await
    };
    let meddle = async {
        until("some are sent", || wechat.sent(APP).len() >= 100).await;
        if mode == Mode::Production {
            world.redis().stall(SLOW);
        }
        // The first foreign fetch leaves the gateway's token five minutes; the second ends the token.
        wechat.foreign_fetch(APP);
        wechat.foreign_fetch(APP);
    };
    join(send, meddle).await;

    for step in 1..=10 {
        until("more are sent", || {
            wechat.sent(APP).len() >= SENDS * step / 10
        })
        .await;
    }
    for status in NOT_SENT {
        eventually(status, || async {
            let there = read(&tenant, &format!("/messages?status={status}&limit=1")).await;
            (there["data"] == json!([])).then_some(())
        })
        .await;
    }
    assert_eq!(wechat.sent(APP).len(), SENDS);
    assert_eq!(wechat.duplicates(APP).max_per_openid, 1);
    let fetches = wechat.app_stats(APP).total("/cgi-bin/token");
    assert_eq!(fetches, 2, "the first, and one refresh");

    // While Redis stalls, replicas cannot ask each other: the foreign refresh is recognised when Redis answers.
    let state = eventually("the foreign refresh is shown", || async {
        let state = read(&tenant, "/token").await;
        (!state["foreign_refresh"].is_null()).then_some(state)
    })
    .await;
    let foreign = &state["foreign_refresh"];
    assert_eq!(foreign["count_today"], 1, "{state}");
    assert!(
        foreign["advice"]
            .as_str()
            .is_some_and(|advice| advice.contains("stable")),
        "{state}"
    );
    let app = read(&tenant, "").await;
    assert_eq!(app["foreign_refresh"], *foreign, "{app}");
    let told = eventually("an audit line", || async {
        let lines = token_audit(&world, &tenant).await;
        let is_told = |line: &&NewAuditLine| line.action == "access_token.foreign_refresh";
        Some(lines.iter().filter(is_told).count()).filter(|told| *told > 0)
    });
    assert_eq!(told.await, 1);
}
