//! Revoking a key also revokes the keys that were created with the key.

use serde_json::{Value, json};

use crate::world::{Client, Key, Mode, World, eventually, run};

both_modes!(
    revoking_a_key_revokes_the_keys_created_with_the_key,
    an_exchanged_key_may_leave_its_derived_keys_valid,
    the_number_of_keys_of_a_tenant_is_limited,
);

/// A client with a new key, created by `maker`.
async fn made_by(maker: &Client, scopes: &[&str]) -> Client {
    let new = json!({"name": "made", "scopes": scopes});
    let created = maker.post("/v1/keys", &new).await.expect(201);
    maker.with_key(Key::of(&created))
}

fn id(client: &Client) -> String {
    client.key().client_id.clone()
}

/// Waits until each of these gateways refuses the key's token. Stops asking a gateway after the first refusal: the
/// gateways count bad tokens per address.
async fn refused_at(world: &World, replicas: usize, client: &Client) {
    for replica in 0..replicas {
        let client = client.at(world.url(replica));
        eventually("it is refused everywhere", || async {
            let answer = client.get("/v1/apps").await;
            match answer.status.as_u16() {
                200 => None,
                _ => Some(answer.problem(401, "unauthorized")),
            }
        })
        .await;
    }
}

async fn log_of(client: &Client) -> Vec<(String, Value)> {
    let log = client.get("/v1/audit?action=key.revoke").await.expect(200);
    let lines = log["data"].as_array().expect("data").iter();
    lines
        .map(|line| {
            let target = line["target"].as_str().expect("a target").to_owned();
            (target, line["actor"].clone())
        })
        .collect()
}

async fn revoking_a_key_revokes_the_keys_created_with_the_key(mode: Mode) {
    let replicas = if mode == Mode::Production { 2 } else { 1 };
    let world = World::plan(mode).replicas(replicas).start().await;
    let tenant = world.tenant("a").await;
    let scopes = ["keys:write", "apps:read", "audit:read"];
    let root = world.key_of(&tenant.id, &scopes).await;
    let other = world.key_of(&tenant.id, &scopes).await;
    let child = made_by(&root, &scopes).await;
    let grandchild = made_by(&child, &scopes).await;
    let last = made_by(&grandchild, &["apps:read"]).await;
    // Before the revocation, every key works at every replica.
    let lost = [&child, &grandchild, &last];
    for client in [&root, &other].into_iter().chain(lost) {
        for replica in 0..replicas {
            client
                .at(world.url(replica))
                .get("/v1/apps")
                .await
                .expect(200);
        }
    }
    let listed = other.get("/v1/keys").await.expect(200);
    let maker = |client: &Client| {
        let keys = listed["data"].as_array().expect("data");
        let key = keys.iter().find(|key| key["client_id"] == id(client));
        key.expect("the key")["created_by"].clone()
    };
    assert_eq!(maker(&last), id(&grandchild).as_str());
    assert_eq!(maker(&child), id(&root).as_str());
    assert_eq!(maker(&root), "operator");

    let path = format!("/v1/keys/{}", id(&root));
    other.delete(&path).await.expect(204);
    for client in lost {
        // The refusal is immediate at the replica that revoked the key, and follows within 5 seconds elsewhere.
        client.get("/v1/apps").await.problem(401, "unauthorized");
        refused_at(&world, replicas, client).await;
        client.fetch_token(None).await.expect(401);
    }
    other.get("/v1/apps").await.expect(200);
    let revoked = log_of(&other).await;
    assert_eq!(revoked.len(), 4, "a line each: {revoked:?}");
    for client in [&root].into_iter().chain(lost) {
        let line = (id(client), json!(id(&other)));
        assert!(revoked.contains(&line), "{line:?} in {revoked:?}");
    }
    other.delete(&path).await.expect(204);
    assert_eq!(log_of(&other).await.len(), 4, "again is no change");

    // Revoking an operator's key also revokes the keys that this key created for tenants.
    let operator = world.operator();
    let new = json!({"name": "second", "scopes": ["operator", "keys:write"]});
    let created = operator.post("/v1/keys", &new).await.expect(201);
    let second = operator.with_key(Key::of(&created));
    let of_tenant = json!({"name": "made", "scopes": ["apps:read"]});
    let keys = format!("/v1/tenants/{}/keys", tenant.id);
    let created = second.post(&keys, &of_tenant).await.expect(201);
    let made = world.anonymous().with_key(Key::of(&created));
    made.get("/v1/apps").await.expect(200);
    let path = format!("/v1/keys/{}", id(&second));
    operator.delete(&path).await.expect(204);
    made.get("/v1/apps").await.problem(401, "unauthorized");
    let line = (id(&made), json!("operator"));
    assert!(log_of(&other).await.contains(&line));
}

async fn an_exchanged_key_may_leave_its_derived_keys_valid(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    let scopes = ["keys:write", "apps:read"];
    let root = world.key_of(&tenant.id, &scopes).await;
    let old = made_by(&root, &scopes).await;
    let new = made_by(&old, &scopes).await;
    let path = format!("/v1/keys/{}", id(&old));
    let nonsense = format!("{path}?keep_descendants=perhaps");
    new.delete(&nonsense).await.problem(400, "invalid_request");
    let keeping = format!("{path}?keep_descendants=true");
    new.delete(&keeping).await.expect(204);
    old.get("/v1/apps").await.problem(401, "unauthorized");
    new.get("/v1/apps").await.expect(200);
    // The maker of the exchanged key now counts as the maker of the new key.
    let revoked = run(world.wxgate(&["key", "revoke", &id(&root), "--json"])).expect(0);
    assert_eq!(
        revoked.json(),
        json!({"client_id": id(&root), "revoked": true, "descendants": [id(&new)]})
    );
    refused_at(&world, 1, &new).await;
}

async fn the_number_of_keys_of_a_tenant_is_limited(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    let new = json!({"name": "one more", "scopes": ["apps:read"]});
    let mut made = vec![id(&tenant.client)];
    while made.len() < 100 {
        let created = tenant.client.post("/v1/keys", &new).await.expect(201);
        made.push(created["client_id"].as_str().expect("an id").to_owned());
    }
    let operators = format!("/v1/tenants/{}/keys", tenant.id);
    for (client, path) in [
        (&tenant.client, "/v1/keys"),
        (&world.operator(), &operators),
    ] {
        let refused = client.post(path, &new).await.problem(409, "conflict");
        let detail = refused["detail"].as_str().expect("words");
        assert!(
            detail.contains("100 active keys") && detail.contains("revoke"),
            "{detail}"
        );
    }
    let line = [
        "key",
        "create",
        "--tenant",
        &tenant.id,
        "--scope",
        "apps:read",
    ];
    let refused = run(world.wxgate(&line)).expect(1);
    assert!(
        refused.stderr().contains("100 active keys"),
        "{}",
        refused.stderr()
    );
    // Each tenant has a separate limit.
    world.tenant("b").await;
    let path = format!("/v1/keys/{}", made[99]);
    tenant.client.delete(&path).await.expect(204);
    tenant.client.post("/v1/keys", &new).await.expect(201);
    tenant
        .client
        .post("/v1/keys", &new)
        .await
        .problem(409, "conflict");
}
