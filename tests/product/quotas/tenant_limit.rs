//! The daily limit of a tenant's submitted messages.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Answer, Mode, Tenant, World, finish, id, message, message_with};

const APP: &str = "wx00000000000000a1";

both_modes!(
    the_limit_holds_to_the_last_message_of_the_day,
    a_batch_is_accepted_up_to_the_limit,
    only_messages_that_will_be_sent_count,
    a_limit_is_changed_at_once,
);

async fn limited(world: &World, messages_per_day: u64) -> Tenant {
    let limits = json!({"requests_per_second": 100_000, "messages_per_day": messages_per_day});
    let tenant = world.tenant_with("a", limits).await;
    tenant.app(APP).await;
    tenant
}

async fn send(tenant: &Tenant, number: usize) -> Answer {
    let path = format!("/v1/apps/{APP}/messages");
    let message = message(&format!("o{number}"));
    tenant.client.post(&path, &message).await
}

/// Asserts a refusal that lasts until midnight in Shanghai.
#[track_caller]
fn used_up(answer: Answer, retry_after: &str) {
    assert_eq!(
        answer.header("retry-after"),
        Some(retry_after),
        "{answer:?}"
    );
    let refused = answer.problem(429, "quota_exhausted");
    let detail = refused["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("tenant's limit of"), "{detail}");
}

async fn the_limit_holds_to_the_last_message_of_the_day(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = limited(&world, 20).await;
    // Concurrent requests, so that some share a transaction.
    let answers = join_all((0..30).map(|number| send(&tenant, number))).await;
    let (taken, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status == 202);
    assert_eq!((taken.len(), refused.len()), (20, 10));
    for answer in refused {
        used_up(answer, "50400");
    }
    tenant.wait_count(APP, "sent", 20).await;

    world.pass(Duration::from_secs(14 * 3600 + 5));
    for number in 0..20 {
        send(&tenant, number).await.expect(202);
    }
    assert_eq!(send(&tenant, 20).await.status, 429);
    tenant.wait_count(APP, "sent", 40).await;
}

async fn a_batch_is_accepted_up_to_the_limit(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = limited(&world, 3).await;
    let messages: Vec<_> = (0..4).map(|n| message(&format!("o{n}"))).collect();
    let body = json!({ "messages": messages });
    let path = format!("/v1/apps/{APP}/messages/batch");
    let answered = tenant.client.post(&path, &body).await.expect(200);
    let statuses: Vec<_> = (0..4)
        .map(|n| answered["data"][n]["status"].clone())
        .collect();
    assert_eq!(statuses, [202, 202, 202, 429].map(Value::from));
    let error = &answered["data"][3]["error"];
    assert_eq!(error["code"], "quota_exhausted");
    used_up(send(&tenant, 9).await, "50400");
}

async fn only_messages_that_will_be_sent_count(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = limited(&world, 2).await;
    let keyed = message("o1");
    for _ in 0..3 {
        tenant.send_keyed(APP, "one", &keyed).await.expect(202);
        let path = format!("/v1/apps/{APP}/messages");
        let dry = message_with("o2", json!({"dry_run": true}));
        tenant.client.post(&path, &dry).await.expect(200);
        let wrong = message_with("o2", json!({"ttl": 0}));
        tenant.client.post(&path, &wrong).await.expect(422);
    }
    let far = (world.now() + chrono::Duration::hours(1)).to_rfc3339();
    let scheduled = tenant
        .send(APP, &message_with("o3", json!({"send_at": far})))
        .await;
    used_up(send(&tenant, 4).await, "50400");

    // A canceled message still counts as submitted; a retry by hand counts once more.
    let change = async |verb: &str| {
        let path = format!("/v1/messages/{}/{verb}", id(&scheduled));
        finish(tenant.client.request(Method::POST, &path).await).await
    };
    change("cancel").await.expect(200);
    used_up(change("retry").await, "50400");
    world.pass(Duration::from_secs(14 * 3600 + 5));
    change("retry").await.expect(202);
    send(&tenant, 5).await.expect(202);
    assert_eq!(send(&tenant, 6).await.status, 429);
}

async fn a_limit_is_changed_at_once(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = limited(&world, 1).await;
    send(&tenant, 1).await.expect(202);
    used_up(send(&tenant, 2).await, "50400");
    let path = format!("/v1/tenants/{}", tenant.id);
    let change = async |limit: Value| {
        let changes = json!({"limits": {"messages_per_day": limit}});
        world.operator().patch(&path, &changes).await.expect(200)
    };
    change(json!(2)).await;
    send(&tenant, 3).await.expect(202);
    used_up(send(&tenant, 4).await, "50400");
    change(Value::Null).await;
    send(&tenant, 5).await.expect(202);
}

mod at_three_replicas {
    use super::{Mode, World, join_all, limited, send};

    /// Only production mode has more than one replica.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_limit_is_one() {
        let world = World::plan(Mode::Production).replicas(3).start().await;
        let tenant = limited(&world, 30).await;
        let tenants = [0, 1, 2].map(|replica| world.at(replica, &tenant));
        let sends = (0..60).map(|number| send(&tenants[number % 3], number));
        let answers = join_all(sends).await;
        let taken = answers.iter().filter(|answer| answer.status == 202);
        assert_eq!(taken.count(), 30);
    }
}
