//! The daily quota with replicas that compete for the quota.

use std::time::Duration;

use futures::future::join_all;
use serde_json::json;

use crate::world::{Load, Mode, World, message, reckon};

const APP: &str = "wx00000000000000a1";
const OTHER: &str = "wx00000000000000b2";
const QUOTA: usize = 3_000;
/// Manual clocks begin at 10:00 in Shanghai; this duration leads to an hour before midnight.
const LATE: Duration = Duration::from_hours(13);
const OVER_MIDNIGHT: Duration = Duration::from_hours(2);
const LATE_AGAIN: Duration = Duration::from_hours(22);

mod three_replicas_send_exactly_the_quota_a_day {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::three_replicas_send_exactly_the_quota_a_day().await;
    }
}

/// 9,000 messages under a quota of 3,000 a day take three days.
async fn three_replicas_send_exactly_the_quota_a_day() {
    let world = World::plan(Mode::Production)
        .by_hand()
        .replicas(3)
        .start()
        .await;
    let tenant = world.tenant("a").await;
    tenant.app_with(APP, json!({"daily_quota": QUOTA})).await;
    tenant.app(OTHER).await;
    let fields = json!({"priority": "high", "ttl": 7 * 86_400});

    let load = Load::new(&world, &tenant, APP, 3 * QUOTA).with(fields);
    let accepted = load.run().await;
    let mut until_late = LATE;
    for day in 1..=3 {
        until_taken(&world, day * QUOTA).await;
        // Wait for the records too: otherwise the leases would end when the clock advances.
        tenant.wait_count(APP, "sending", 0).await;
        world.pass(until_late);
        // Each replica sends a message of another app: so each has looked at the queue and claimed nothing of the
        // first.
        let neighbours = (0..3).map(|replica| {
            let elsewhere = world.at(replica, &tenant);
            async move {
                let openid = format!("o{day}-{replica}");
                elsewhere.send_and_wait(OTHER, &message(&openid)).await
            }
        });
        for neighbour in join_all(neighbours).await {
            assert_eq!(neighbour["status"], "sent", "{neighbour}");
        }
        assert_eq!(world.wechat().sent(APP).len(), day * QUOTA, "day {day}");
        for replica in 0..3 {
            let path = format!("/v1/apps/{APP}/quota");
            let quota = world.at(replica, &tenant).client.get(&path).await;
            let quota = quota.expect(200);
            assert_eq!(
                (&quota["used"], &quota["remaining"]),
                (&json!(QUOTA), &json!(0))
            );
        }
        world.pass(OVER_MIDNIGHT);
        until_late = LATE_AGAIN;
    }

    let tenant = world.at(0, &tenant);
    assert_eq!(reckon(&world, &tenant, APP, &accepted.messages).await, 0);
}

async fn until_taken(world: &World, wanted: usize) {
    // There is no limit for the whole: the wait continues as long as WeChat takes more messages.
    let mut taken = 0;
    while taken < wanted {
        let what = format!("WeChat has taken more than {taken} of {wanted} messages");
        let look = || async {
            let now = world.wechat().sent(APP).len();
            (now > taken).then_some(now)
        };
        taken = world.anonymous().time().eventually(&what, look).await;
    }
}
