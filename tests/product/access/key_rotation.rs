//! Keys that are rotated while the gateways run.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use domain::seal::MasterKey;
use serde_json::Value;

use crate::{
    drop_in::wechat_token,
    world::{Mode, World, finish, message, run},
};

const APP: &str = "wx00000000000000a1";

both_modes!(
    rotating_a_signing_key_refuses_no_valid_token,
    tokens_of_a_revoked_signing_key_are_invalid_at_once,
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

async fn rotating_a_signing_key_refuses_no_valid_token(mode: Mode) {
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
                finish(request).await.expect(200);
            }
        }
    };
    // The key is old enough: the first replica that gets a request makes the next key.
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

async fn tokens_of_a_revoked_signing_key_are_invalid_at_once(mode: Mode) {
    let replicas = if mode == Mode::Production { 2 } else { 1 };
    let world = World::plan(mode).by_hand().replicas(replicas).start().await;
    let tenant = world.tenant("tea").await;
    tenant.app(APP).await;
    let clients: Vec<_> = (0..replicas)
        .map(|replica| world.at(replica, &tenant).client)
        .collect();
    // Each replica has signed a token with the old key, and has verified a token of the other replica.
    let mut stolen = Vec::new();
    for client in &clients {
        let bearer = client.fetch_token(None).await.expect(200)["access_token"].clone();
        let bearer = bearer.as_str().expect("a token").to_owned();
        stolen.push((bearer, wechat_token(client, APP).await));
    }
    let statuses = async || {
        let mut statuses = Vec::new();
        for (bearer, wechat) in &stolen {
            for client in &clients {
                let request = client.bare(reqwest::Method::GET, "/v1/apps");
                let answer = finish(request.bearer_auth(bearer)).await;
                let path = format!("/wxaapi/newtmpl/gettemplate?access_token={wechat}");
                let passed = finish(client.bare(reqwest::Method::GET, &path)).await;
                statuses.push((answer.status.as_u16(), passed.body["errcode"].clone()));
            }
        }
        statuses
    };
    let before = published(&world).await;
    assert!(statuses().await.iter().all(|one| *one == (200, 0.into())));

    let rotate = ["signing-key", "rotate", "--revoke-old", "--json"];
    let next = run(world.wxgate(&rotate)).expect(0).json();
    world.pass(Duration::from_secs(5));
    // For tokens that were issued a moment ago, SDKs get -1 (try again), so that no SDK fetches another token at once.
    let refused = statuses().await;
    assert!(
        refused.iter().all(|one| *one == (401, (-1).into())),
        "{refused:?}"
    );
    let after = published(&world).await;
    assert_eq!(after.len(), 1, "{after:?}");
    assert_eq!(after[0]["kid"], next["kid"]);
    assert_ne!(after, before);

    for client in &clients {
        let fresh = client.fetch_token(None).await.expect(200);
        let fresh = fresh["access_token"].as_str().expect("a token");
        for other in &clients {
            let request = other.bare(reqwest::Method::GET, "/v1/apps");
            finish(request.bearer_auth(fresh)).await.expect(200);
        }
    }
    let log = world
        .operator()
        .get("/v1/audit?action=signing_key.replace")
        .await
        .expect(200);
    assert_eq!(log["data"][0]["target"], next["kid"], "{log}");
    assert_eq!(log["data"][0]["actor"], "cli");
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
    // These rotations would end with the only key that opens the secrets destroyed.
    for (previous, words) in [
        (None, "WXGATE_MASTER_KEY_PREVIOUS is not set"),
        (Some(old), "are the same key"),
        (Some(new), "check whether the two keys are swapped"),
    ] {
        let told = rotate(old, previous).expect(1).stderr();
        let names_the_key = told.contains(&MasterKey::from_bytes(old).id().to_string());
        assert!(told.contains(words) && names_the_key, "{told}");
    }
    let done = rotate(new, Some(old)).expect(0).json();
    assert_eq!(done["resealed"], 3, "{done}");
    assert_eq!(done["places"]["app_secrets"], 1);
    let again = rotate(new, Some(old)).expect(0).json();
    assert_eq!(again["resealed"], 0, "{again}");
    let told = rotate(old, Some(old)).expect(1).stderr();
    assert!(told.contains("WXGATE_MASTER_KEY"), "{told}");
    // The way back uses the same command.
    let back = rotate(old, Some(new)).expect(0).json();
    assert_eq!(back["resealed"], 3, "{back}");
    // A second rotation with a previous key that seals nothing is reported as swapped keys.
    let told = rotate(old, Some([11; 32])).expect(1).stderr();
    assert!(
        told.contains("check whether the two keys are swapped"),
        "{told}"
    );

    // The gateway, restarted with its first master key, opens all secrets.
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
