//! Every operation of the OpenAPI document is called by unauthorized callers: without a credential, with every kind of
//! token that the gateway must not accept, with each scope but the needed one, and as another tenant.
//!
//! The tables here and in [`operations`] name each operation. A new operation that is missing there fails the test, so
//! that its author thinks of unauthorized callers. [`OPEN`] and [`NAMES_NOTHING`] are the exceptions; both lists may
//! only shrink.

mod callers;
mod forgeries;
mod operations;
mod zero_characters;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use self::{callers::UnauthorizedCallers, operations::operations};
use crate::world::{Answer, Mode, SECRET, Tenant, World, id, message};

const APP: &str = "wx00000000000000a1";
const OTHER: &str = "wx00000000000000b2";

/// No server listens at this URL.
const HOOK: &str = "http://127.0.0.1:9/hook";

both_modes!(
    every_operation_refuses_unauthorized_callers,
    no_text_with_a_zero_character_causes_a_server_error
);

use self::zero_characters::no_text_with_a_zero_character_causes_a_server_error;

/// Operations that need no credential.
const OPEN: [&str; 13] = [
    "GET /.well-known/jwks.json",
    "GET /.well-known/oauth-authorization-server",
    "GET /callbacks/{appid}",
    "GET /cgi-bin/token",
    "GET /healthz",
    "GET /metrics",
    "GET /openapi.json",
    "GET /openapi/drop-in.json",
    "GET /readyz",
    "GET /sns/jscode2session",
    "POST /callbacks/{appid}",
    "POST /cgi-bin/stable_token",
    "POST /oauth/token",
];

/// Operations that name nothing of a tenant in the path: these operations show and make things of the caller.
const NAMES_NOTHING: [&str; 7] = [
    "GET /v1/apps",
    "GET /v1/audit",
    "POST /v1/apps",
    "GET /v1/keys",
    "POST /v1/keys",
    "GET /v1/webhooks",
    "POST /v1/webhooks",
];

/// Makes a thing of the tenant for every name in a path.
async fn things_of(world: &World, tenant: &Tenant, appid: &str) -> BTreeMap<&'static str, String> {
    tenant.app(appid).await;
    let message = tenant.send_and_wait(appid, &message("o1")).await;
    let key = world.key_of(&tenant.id, &["apps:read"]).await;
    let hook = json!({"url": HOOK, "events": ["*"]});
    let webhook = tenant.client.post("/v1/webhooks", &hook).await.expect(201);
    let test = format!("/v1/webhooks/{}/test", id(&webhook));
    let told = tenant.client.post(&test, &Value::Null).await.expect(202);
    let event = told["event_id"].as_str().expect("an event").to_owned();
    BTreeMap::from([
        ("webhook_id", id(&webhook).to_owned()),
        ("event_id", event),
        ("appid", appid.to_owned()),
        ("id", id(&message).to_owned()),
        ("key_id", key.key().client_id.clone()),
        ("tenant_id", tenant.id.clone()),
    ])
}

/// Well-formed ids that belong to no tenant.
fn things_of_nobody() -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("webhook_id", "whk_01jq2xv1cde8sbw7mv9v6a5kzq".to_owned()),
        ("event_id", "evt_01jq2xv1cde8sbw7mv9v6a5kzq".to_owned()),
        ("appid", "wx00000000000000ff".to_owned()),
        ("id", "msg_01jq2xv1cde8sbw7mv9v6a5kzq".to_owned()),
        ("key_id", "key_01jq2xv1cde8sbw7mv9v6a5kzq".to_owned()),
        ("tenant_id", "ten_01jq2xv1cde8sbw7mv9v6a5kzq".to_owned()),
    ])
}

/// An answer without the parts that differ between two requests for the same thing.
fn comparable(answer: Answer) -> Value {
    let mut body = answer.body;
    if let Some(members) = body.as_object_mut() {
        members.remove("instance");
    }
    json!([answer.status.as_u16(), body])
}

async fn every_operation_refuses_unauthorized_callers(mode: Mode) {
    let world = World::start(mode).await;
    let (owner, other_tenant) = (world.tenant("owner").await, world.tenant("other").await);
    let things = things_of(&world, &owner, APP).await;
    things_of(&world, &other_tenant, OTHER).await;
    let unauthorized = UnauthorizedCallers::gather(&world, &owner, &other_tenant).await;
    let before = snapshot(&world, &owner, &things).await;

    let (mut open, mut names_nothing) = (Vec::new(), Vec::new());
    for operation in operations(&world).await {
        if operation.is_wechats {
            unauthorized.try_as_wechats(&operation).await;
            continue;
        }
        let Some(scope) = &operation.scope else {
            open.push(operation.name());
            continue;
        };
        unauthorized.try_tokens(&operation, &things).await;
        unauthorized.try_scopes(&operation, scope, &things).await;
        if operation.is_operators() {
            continue;
        }
        if !operation.path.contains('{') {
            names_nothing.push(operation.name());
            continue;
        }
        let token = other_tenant.client.token().await;
        let call = |things| operation.call(&other_tenant.client, Some(&token), things);
        let (theirs, nobodys) = (call(&things).await, call(&things_of_nobody()).await);
        let name = operation.name();
        assert_eq!(theirs.status, 404, "{name}: {theirs:?}");
        assert_eq!(
            comparable(theirs),
            comparable(nobodys),
            "{name} tells that the thing exists"
        );
    }

    // A tenant cannot name another tenant in a body or a query either.
    for tenant in [&owner.id, &things_of_nobody()["tenant_id"]] {
        let new = json!({"appid": "wx00000000000000c3", "secret": SECRET, "tenant_id": tenant});
        let refused = other_tenant.client.post("/v1/apps", &new).await;
        refused.problem(422, "validation_failed");
        let path = format!("/v1/audit?tenant_id={tenant}");
        let refused = other_tenant.client.get(&path).await;
        refused.problem(400, "invalid_request");
    }

    let sorted = |mut names: Vec<String>| {
        names.sort_unstable();
        names
    };
    let mut allowed = NAMES_NOTHING;
    allowed.sort_unstable();
    assert_eq!(sorted(open), OPEN, "what is open to everybody");
    assert_eq!(
        sorted(names_nothing),
        allowed,
        "what names nothing in its path"
    );
    assert_eq!(
        snapshot(&world, &owner, &things).await,
        before,
        "an unauthorized caller changed something"
    );
    let mut seen = String::new();
    for list in [
        "/v1/apps",
        "/v1/keys",
        "/v1/webhooks",
        "/v1/audit?limit=200",
    ] {
        seen += &other_tenant.client.get(list).await.text;
    }
    for thing in things.values() {
        assert!(!seen.contains(thing.as_str()), "a list shows {thing}");
    }
}

/// Everything of the owner that an unauthorized caller might have changed.
async fn snapshot(world: &World, owner: &Tenant, things: &BTreeMap<&'static str, String>) -> Value {
    let client = &owner.client;
    let keys = client.get("/v1/keys?limit=200").await.expect(200);
    let key = keys["data"]
        .as_array()
        .expect("data")
        .iter()
        .find(|key| key["client_id"] == things["key_id"].as_str());
    let webhooks = client.get("/v1/webhooks").await.expect(200);
    let webhooks: Vec<Value> = webhooks["data"]
        .as_array()
        .expect("data")
        .iter()
        .map(|one| {
            json!([
                one["id"],
                one["url"],
                one["status"],
                one["previous_secret_until"]
            ])
        })
        .collect();
    let calls = world.wechat().stats().calls;
    let passed_on: Vec<_> = calls
        .keys()
        .filter(|path| path.ends_with("any/call"))
        .collect();
    json!({
        "passed_on": passed_on,
        "tenants": world.operator().get("/v1/tenants").await.expect(200),
        "grants": client.get(&format!("/v1/apps/{APP}/grants?openid=o1")).await.expect(200),
        "webhooks": webhooks,
        "apps": client.get("/v1/apps").await.expect(200),
        "messages": client.get(&format!("/v1/apps/{APP}/messages")).await.expect(200),
        "revoked": key.expect("the key")["revoked_at"],
    })
}
