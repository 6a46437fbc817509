//! Many faults of WeChat at once: busy answers, broken proxies and cut connections.

use std::time::Duration;

use serde_json::Value;
use simulator::{Effect, Fault};

use crate::world::{Load, Mode, Tenant, World, outcomes, reckon};

const APP: &str = "wx00000000000000a1";
const SUBSCRIBE: &str = "/cgi-bin/message/subscribe/send";
const MESSAGES: usize = 400;
/// Shorter than a lease, so that no in-flight message loses its lease when the clock advances.
const STEP: Duration = Duration::from_secs(50);
/// This number of steps is longer than the longest backoff, ten minutes.
const BACKOFF: usize = 13;
/// Far more attempts than any of the messages needs.
const MOST_ROUNDS: usize = 40;

both_modes!(every_message_ends_once_whatever_wechat_does);

/// Sends 400 messages. Of the sends, 30 % are answered -1, 5 % are answered HTTP 503, and 2 % are taken and then cut.
/// The clock advances over all backoffs at once, when every message that has not ended has been attempted again.
async fn every_message_ends_once_whatever_wechat_does(mode: Mode) {
    let replicas = if mode == Mode::Production { 3 } else { 1 };
    let world = World::plan(mode).by_hand().replicas(replicas).start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let wechat = world.wechat();
    let busy = Effect::Errcode {
        errcode: -1,
        errmsg: None,
    };
    let unavailable = Effect::Status {
        status: 503,
        body: None,
    };
    for (part, effect) in [(0.3, busy), (0.05, unavailable), (0.02, Effect::BreakAfter)] {
        wechat.add_fault(Fault::sometimes(part, effect).for_path(SUBSCRIBE));
    }

    let accepted = Load::new(&world, &tenant, APP, MESSAGES).run().await;
    let mut round = 1;
    while !all_ended(&tenant, round).await {
        assert!(round < MOST_ROUNDS, "messages that never end");
        for _ in 0..BACKOFF {
            tenant.wait_count(APP, "sending", 0).await;
            world.pass(STEP);
        }
        round += 1;
    }

    let tenant = world.at(0, &tenant);
    let stats = wechat.app_stats(APP);
    let (cut, proxied) = (stats.broken["break_after"], stats.broken["status_503"]);
    let refused = stats.count(SUBSCRIBE, -1);
    eprintln!("{round} rounds: {refused} times -1, {proxied} times 503, {cut} cut");
    let uncertain = reckon(&world, &tenant, APP, &accepted.messages).await;
    assert_eq!(
        u64::try_from(uncertain),
        Ok(cut),
        "what was cut is uncertain and nothing else"
    );
    assert_eq!(
        usize::try_from(stats.accepted),
        Ok(MESSAGES),
        "WeChat has all of them"
    );
}

/// Waits until each message has ended or has had `round` attempts. Returns whether all have ended.
async fn all_ended(tenant: &Tenant, round: usize) -> bool {
    let what = format!("each message has ended or was tried {round} times");
    let is_open =
        |message: &&Value| message["status"] == "queued" || message["status"] == "sending";
    let rests =
        |message: &&Value| message["status"] == "queued" && outcomes(message).len() >= round;
    let look = || async {
        let all = tenant.all(APP).await;
        let open: Vec<&Value> = all.iter().filter(is_open).collect();
        open.iter().all(rests).then_some(open.is_empty())
    };
    tenant.client.time().eventually(&what, look).await
}
