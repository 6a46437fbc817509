//! The number of users that an app can write to, with many grants.

use std::time::Duration;

use serde_json::{Value, json};

use super::{APP, collect, form_id, path};
use crate::world::{Mode, Tenant, World, eventually};

/// The largest number of ids that a request counts immediately.
const FEW: usize = 10_000;

both_modes!(many_grants_are_counted_after_the_answer);

async fn summary(tenant: &Tenant) -> Value {
    let path = path("grants/summary");
    tenant.client.get(&path).await.expect(200)
}

/// Waits for the summary with this number of users.
async fn counted(what: &str, tenant: &Tenant, users: usize) -> Value {
    let wanted = json!(users);
    eventually(what, || async {
        let summary = summary(tenant).await;
        (summary["form_ids"]["users"] == wanted).then_some(summary)
    })
    .await
}

/// The clock stands still, so a count stays valid until the test advances the clock.
async fn many_grants_are_counted_after_the_answer(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let add = async |from: usize, to: usize| {
        let ids: Vec<Value> = (from..to)
            .map(|number| form_id(&format!("o{number}"), &format!("f{number}")))
            .collect();
        for some in ids.chunks(1000) {
            collect(&tenant, some).await;
        }
    };
    add(0, FEW).await;
    let first = summary(&tenant).await;
    assert_eq!(first["form_ids"]["users"], json!(FEW), "counted now");
    add(FEW, FEW + 1).await;
    let many = counted("a count of all", &tenant, FEW + 1).await;
    add(FEW + 1, FEW + 2).await;
    assert_eq!(summary(&tenant).await, many, "it is kept");

    world.pass(Duration::from_mins(10));
    assert_eq!(summary(&tenant).await, many, "answered at once");
    let newer = counted("the count is made anew", &tenant, FEW + 2).await;
    assert!(newer["as_of"].as_str() > many["as_of"].as_str(), "{newer}");
}
