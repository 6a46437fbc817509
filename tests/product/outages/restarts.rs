//! Gateways that stop, start again, or lose Redis.

use std::time::Duration;

use futures::future::join_all;
use serde_json::json;

use crate::world::{Mode, World, eventually, message};

const APP: &str = "wx00000000000000a1";
const OTHER: &str = "wx00000000000000b2";

both_modes!(a_graceful_restart_loses_and_repeats_nothing);

async fn a_graceful_restart_loses_and_repeats_nothing(mode: Mode) {
    let mut world = World::start(mode).await;
    let (tenant, other) = (world.tenant("a").await, world.tenant("b").await);
    tenant.app(APP).await;
    other.app(OTHER).await;
    let kept = other.send_and_wait(OTHER, &message("o1")).await;
    world.wechat().set_latency(Duration::from_millis(300));
    // Few users, so that most messages wait behind another: messages are queued or in flight when the gateway stops.
    join_all((0..40).map(|number| {
        let tenant = tenant.clone();
        async move {
            tenant
                .send(APP, &message(&format!("o{}", number % 8)))
                .await
        }
    }))
    .await;

    world.stop_replica().await;
    let taken = world.wechat().sent(APP).len();
    assert!(taken < 40, "nothing was left to be sent after the restart");
    world.wechat().set_latency(Duration::ZERO);
    world.add_replica(false).await;

    let (tenant, other) = (world.at(0, &tenant), world.at(0, &other));
    tenant.wait_count(APP, "sent", 40).await;
    assert_eq!(world.wechat().sent(APP).len(), 40);
    assert_eq!(other.read(&kept).await, kept);
    let quota = tenant
        .client
        .get(&format!("/v1/apps/{APP}/quota"))
        .await
        .expect(200);
    assert_eq!(quota["used"], 40);
}

/// Correctness never depends on Redis.
mod sending_goes_on_without_redis {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::sending_goes_on_without_redis().await;
    }
}

async fn sending_goes_on_without_redis() {
    let world = World::plan(Mode::Production).replicas(2).start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    tenant.send_and_wait(APP, &message("o1")).await;
    let elsewhere = world.at(1, &tenant);

    world.redis().kill();
    for number in 0..5 {
        let sent = tenant
            .send_and_wait(APP, &message(&format!("a{number}")))
            .await;
        assert_eq!(sent["status"], "sent", "{sent}");
        let sent = elsewhere
            .send_and_wait(APP, &message(&format!("b{number}")))
            .await;
        assert_eq!(sent["status"], "sent", "{sent}");
    }
    tenant.app(OTHER).await;
    assert_eq!(
        tenant.send_and_wait(OTHER, &message("o1")).await["status"],
        "sent"
    );

    world.redis().restart();
    let sent = elsewhere.send_and_wait(APP, &message("o1")).await;
    assert_eq!(sent["status"], "sent", "{sent}");
    assert_eq!(world.wechat().sent(APP).len(), 12);
    tenant
        .client
        .post(&format!("/v1/apps/{APP}/verify"), &json!({}))
        .await
        .expect(200);
}

/// A request waits at the replica that accepted the request, whichever replica sends the message.
mod a_wait_ends_when_another_replica_sends {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::a_wait_ends_when_another_replica_sends().await;
    }
}

async fn a_wait_ends_when_another_replica_sends() {
    let world = World::plan(Mode::Production).replicas(2).start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let tenants = [world.at(0, &tenant), world.at(1, &tenant)];
    // Once each replica has sent some messages, wake-ups from the other replica have ended some of the waits.
    eventually("both gateways have sent", || async {
        let sends = (0..20).map(|number| {
            let tenant = tenants[number % 2].clone();
            async move {
                let message = message(&format!("o{number}"));
                tenant.send_and_wait(APP, &message).await
            }
        });
        for sent in join_all(sends).await {
            assert_eq!(sent["status"], "sent", "{sent}");
        }
        let both = has_sent(&world, 0).await && has_sent(&world, 1).await;
        both.then_some(())
    })
    .await;
}

async fn has_sent(world: &World, replica: usize) -> bool {
    let gateway = world.anonymous().at(world.url(replica));
    let metrics = gateway.get("/metrics").await.text;
    metrics.contains("wxgate_messages_ended_total{status=\"sent\"}")
}
