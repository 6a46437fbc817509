//! Keys that are exchanged while the gateways go on.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::world::{Mode, World, message, run};

const APP: &str = "wx00000000000000a1";

both_modes!(
    a_signing_key_is_rotated_and_nobody_is_refused,
    a_master_key_is_exchanged
);

async fn published(world: &World) -> Vec<Value> {
    let keys = world
        .anonymous()
        .get("/.well-known/jwks.json")
        .await
        .expect(200);
    keys["keys"].as_array().expect("keys").clone()
}

async fn a_signing_key_is_rotated_and_nobody_is_refused(mode: Mode) {
    let replicas = if mode == Mode::Production { 2 } else { 1 };
    let world = World::plan(mode).by_hand().replicas(replicas).start().await;
    let tenant = world.tenant("tea").await;
    let clients: Vec<_> = (0..replicas)
        .map(|replica| world.at(replica, &tenant).client)
        .collect();
    let first = published(&world).await;
    let fetch = async || {
        let mut tokens = Vec::new();
        for client in &clients {
            let answer = client.fetch_token(None).await.expect(200);
            tokens.push(answer["access_token"].as_str().expect("a token").to_owned());
        }
        tokens
    };
    let accepted = async |tokens: &[String]| {
        for token in tokens {
            for client in &clients {
                let request = client
                    .bare(reqwest::Method::GET, "/v1/apps")
                    .bearer_auth(token);
                crate::world::finish(request).await.expect(200);
            }
        }
    };
    // The key is old enough: whoever is asked first makes its successor.
    world.pass(Duration::from_hours(24 * 90));
    let before = fetch().await;
    world.pass(Duration::from_mins(1));
    accepted(&before).await;
    let both = published(&world).await;
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(both.contains(&first[0]));

    let mut alive = before;
    for _ in 0..4 {
        world.pass(Duration::from_mins(4));
        let fresh = fetch().await;
        accepted(&alive).await;
        accepted(&fresh).await;
        alive = fresh;
    }
    world.pass(Duration::from_hours(4));
    accepted(&fetch().await).await;
    let last = published(&world).await;
    assert_eq!(last.len(), 1, "{last:?}");
    assert_ne!(last, first);
}

async fn a_master_key_is_exchanged(mode: Mode) {
    let mut world = World::plan(mode).own_process().start().await;
    let tenant = world.tenant("tea").await;
    tenant.app(APP).await;
    let sent = tenant.send_and_wait(APP, &message("o1")).await;
    assert_eq!(sent["status"], "sent");

    let (old, new) = ([7; 32], [9; 32]);
    let base64 = |key: [u8; 32]| BASE64_STANDARD.encode(key);
    let rotate = |key: [u8; 32], previous: Option<[u8; 32]>| {
        let mut command = world.wxgate(&["master-key", "rotate", "--json"]);
        command.env("WXGATE_MASTER_KEY", base64(key));
        if let Some(previous) = previous {
            command.env("WXGATE_MASTER_KEY_PREVIOUS", base64(previous));
        }
        run(command)
    };
    let told = rotate(new, None).expect(1).stderr();
    assert!(told.contains("WXGATE_MASTER_KEY"), "{told}");
    let done = rotate(new, Some(old)).expect(0).json();
    assert_eq!(done["resealed"], 3, "{done}");
    assert_eq!(done["places"]["app_secrets"], 1);
    let again = rotate(new, Some(old)).expect(0).json();
    assert_eq!(again["resealed"], 0, "{again}");
    // The way back is the same way.
    let back = rotate(old, Some(new)).expect(0).json();
    assert_eq!(back["resealed"], 3, "{back}");

    // The gateway, started anew with the key that it had, opens all of it.
    world.stop_replica().await;
    world.add_replica(true).await;
    let tenant = world.at(0, &tenant);
    tenant.client.fetch_token(None).await.expect(200);
    let verify = format!("/v1/apps/{APP}/verify");
    tenant
        .client
        .post(&verify, &serde_json::json!({}))
        .await
        .expect(200);
}
