//! The servers beneath the gateways fail while callers call and messages are sent.

use std::time::Duration;

use futures::future::join_all;

use crate::world::{Load, Mode, World, message, reckon, until};

const APP: &str = "wx00000000000000a1";

mod a_database_that_fails_loses_and_repeats_nothing {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::a_database_that_fails_loses_and_repeats_nothing().await;
    }
}

const SLOTS: usize = 32;

async fn until_taken(world: &World, wanted: usize) {
    until(&format!("WeChat has taken {wanted} messages"), || {
        world.wechat().sent(APP).len() >= wanted
    })
    .await;
}

/// 400 messages at three replicas with 32 sending slots each; PostgreSQL fails, and stays away until each replica has
/// refused a request.
async fn a_database_that_fails_loses_and_repeats_nothing() {
    let mut world = World::plan(Mode::Production)
        .by_hand()
        .breakable()
        .replicas(3)
        .slots(SLOTS)
        .start()
        .await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let replicas: Vec<_> = (0..3).map(|replica| world.at(replica, &tenant)).collect();
    for replica in &replicas {
        replica.client.token().await;
    }
    world.wechat().set_latency(Duration::from_millis(50));

    let load = Load::new(&world, &tenant, APP, 400).ahead(150);
    let failures = async {
        until_taken(&world, 150).await;
        world.postgres().fail();
        let path = format!("/v1/apps/{APP}/messages");
        let refused = message("nobody");
        let posts = replicas
            .iter()
            .map(|replica| replica.client.post(&path, &refused));
        // That 503 comes with Retry-After holds for every answer: see `Answer::check_manners`.
        for answer in join_all(posts).await {
            answer.problem(503, "overloaded");
        }
        let ready = world.anonymous().get("/readyz").await;
        assert_eq!(ready.status, 503, "{ready:?}");
        world.postgres().restart();
    };
    let (accepted, ()) = futures::join!(load.run(), failures);
    tenant.wait_count(APP, "queued", 0).await;
    // A claim whose commit went through and whose answer was lost is nobody's until its lease ends.
    world.stop_all().await;
    world.pass(Duration::from_mins(2));
    world.add_replica(false).await;
    let tenant = world.at(0, &tenant);
    tenant.wait_count(APP, "sending", 0).await;

    let uncertain = reckon(&world, &tenant, APP, &accepted.messages).await;
    eprintln!(
        "{uncertain} uncertain; {} requests refused",
        accepted.refused
    );
    assert_eq!(accepted.unanswered, 0, "every request has an answer");
    assert!(uncertain <= replicas.len() * SLOTS, "{uncertain} uncertain");
}
