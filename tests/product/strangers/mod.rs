//! Every operation of the OpenAPI document is tried by a stranger: without a credential, with every scope but the
//! one it wants, and as another tenant.
//!
//! The tables below know each operation. A new one that is missing here fails the test, so that nobody forgets to
//! think of strangers. [`OPEN`] and [`NAMES_NOTHING`] are the exceptions; they may only shrink.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::drop_in::wechat_token;
use crate::world::{Answer, Client, Mode, SCOPES, SECRET, Tenant, World, finish, id, message};

const APP: &str = "wx00000000000000a1";
const OTHER: &str = "wx00000000000000b2";

/// Where nobody listens.
const HOOK: &str = "http://127.0.0.1:9/hook";

both_modes!(every_operation_is_closed_to_strangers);

/// What everybody may call.
const OPEN: [&str; 11] = [
    "GET /.well-known/jwks.json",
    "GET /.well-known/oauth-authorization-server",
    "GET /callbacks/{appid}",
    "GET /cgi-bin/token",
    "GET /healthz",
    "GET /metrics",
    "GET /openapi.json",
    "GET /readyz",
    "POST /callbacks/{appid}",
    "POST /cgi-bin/stable_token",
    "POST /oauth/token",
];

/// What names nothing of a tenant in its path: it shows and makes things of the caller's own.
const NAMES_NOTHING: [&str; 7] = [
    "GET /v1/apps",
    "GET /v1/audit",
    "POST /v1/apps",
    "GET /v1/keys",
    "POST /v1/keys",
    "GET /v1/webhooks",
    "POST /v1/webhooks",
];

/// A body that the operation takes from somebody who may call it.
fn body(operation: &str) -> Option<Value> {
    let body = match operation {
        "POST /v1/tenants" | "PATCH /v1/tenants/{tenant_id}" | "PATCH /v1/apps/{appid}" => {
            json!({"name": "stranger"})
        }
        "POST /v1/keys" | "POST /v1/tenants/{tenant_id}/keys" => {
            json!({"name": "stranger", "scopes": ["apps:read"]})
        }
        "POST /v1/apps" => json!({"appid": "wx00000000000000c3", "secret": SECRET}),
        "PUT /v1/apps/{appid}/secret" => json!({"secret": "strangers-secret"}),
        "POST /v1/apps/{appid}/messages" => message("o1"),
        "POST /v1/apps/{appid}/messages/batch" => json!({"messages": [message("o1")]}),
        "POST /v1/apps/{appid}/grants" => {
            json!({"grants": [{"kind": "form_id", "openid": "o1", "value": "f1"}]})
        }
        "POST /v1/apps/{appid}/reach" => json!({"template_id": "t", "openids": ["o1"]}),
        "POST /v1/webhooks" => json!({"url": HOOK, "events": ["*"]}),
        "PATCH /v1/webhooks/{webhook_id}" => json!({"status": "disabled"}),
        "POST /v1/webhooks/{webhook_id}/redeliver" => json!({"since": "2020-01-01T00:00:00Z"}),
        _ => return None,
    };
    Some(body)
}

/// A query without which the operation cannot be read.
fn query(operation: &str) -> &'static str {
    match operation {
        "GET /v1/apps/{appid}/grants" => "?openid=o1",
        _ => "",
    }
}

struct Operation {
    method: Method,
    path: String,
    scope: Option<String>,
    /// Whether it speaks as WeChat does: its token stands in the query and names the app.
    is_wechats: bool,
    body: Option<Value>,
}

impl Operation {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    fn is_operators(&self) -> bool {
        self.scope.as_deref() == Some("operator")
    }

    /// Calls it with these things in its path.
    async fn call(&self, client: &Client, things: &BTreeMap<&str, String>) -> Answer {
        let mut path = self.path.clone();
        for (name, thing) in things {
            path = path.replace(&format!("{{{name}}}"), thing);
        }
        assert!(
            !path.contains('{'),
            "{}: say in strangers.rs what stands in its path",
            self.name()
        );
        path.push_str(query(&self.name()));
        let mut request = client.request(self.method.clone(), &path).await;
        if let Some(body) = &self.body {
            request = request.json(body);
        }
        finish(request).await
    }
}

async fn operations(world: &World) -> Vec<Operation> {
    let document = world.anonymous().get("/openapi.json").await.expect(200);
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let method: Method = method.to_ascii_uppercase().parse().expect("a method");
            let name = format!("{method} {path}");
            let scope = operation["security"][0]["oauth2"][0]
                .as_str()
                .map(str::to_owned);
            let is_wechats = !operation["security"][0]["wechat"].is_null();
            let body = body(&name);
            let wants_body = operation.get("requestBody").is_some() && scope.is_some();
            assert!(
                !wants_body || body.is_some(),
                "{name}: add a body for it to strangers.rs"
            );
            operations.push(Operation {
                method,
                path: path.clone(),
                scope,
                is_wechats,
                body,
            });
        }
    }
    operations
}

/// What a tenant has: something for every name that stands in a path.
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

/// Well-formed, and nobody's.
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

/// An answer without what differs between two requests for the same thing.
fn comparable(answer: Answer) -> Value {
    let mut body = answer.body;
    if let Some(members) = body.as_object_mut() {
        members.remove("instance");
    }
    json!([answer.status.as_u16(), body])
}

async fn every_operation_is_closed_to_strangers(mode: Mode) {
    let world = World::start(mode).await;
    let (owner, stranger) = (world.tenant("owner").await, world.tenant("stranger").await);
    let things = things_of(&world, &owner, APP).await;
    things_of(&world, &stranger, OTHER).await;
    let before = snapshot(&owner, &things).await;

    let unable_at_wechat = wechat_token(&world.key_of(&owner.id, &["apps:read"]).await, APP).await;

    let (mut open, mut names_nothing) = (Vec::new(), Vec::new());
    for operation in operations(&world).await {
        let name = operation.name();
        if operation.is_wechats {
            closed_as_wechat_would(&operation, &world, &unable_at_wechat).await;
            continue;
        }
        let Some(scope) = &operation.scope else {
            open.push(name);
            continue;
        };
        let anonymous = operation.call(&world.anonymous(), &things).await;
        assert!(
            anonymous.header("www-authenticate").is_some(),
            "{name}: {anonymous:?}"
        );
        anonymous.problem(401, "unauthorized");

        let others: Vec<&str> = SCOPES.into_iter().filter(|other| other != scope).collect();
        let unable = world.key_of(&owner.id, &others).await;
        operation
            .call(&unable, &things)
            .await
            .problem(403, "insufficient_scope");

        if operation.is_operators() {
            continue;
        }
        if !operation.path.contains('{') {
            names_nothing.push(name);
            continue;
        }
        let theirs = operation.call(&stranger.client, &things).await;
        let nobodys = operation.call(&stranger.client, &things_of_nobody()).await;
        assert_eq!(theirs.status, 404, "{name}: {theirs:?}");
        assert_eq!(
            comparable(theirs),
            comparable(nobodys),
            "{name} tells that the thing exists"
        );
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
        snapshot(&owner, &things).await,
        before,
        "a stranger changed something"
    );
    let mut seen = String::new();
    for list in ["/v1/apps", "/v1/keys", "/v1/audit?limit=200"] {
        seen += &stranger.client.get(list).await.text;
    }
    for thing in things.values() {
        assert!(!seen.contains(thing.as_str()), "a list shows {thing}");
    }
}

/// A call of WeChat's refuses in WeChat's words: no token, a token of `/v1`, a key that may not. A token names its app
/// and nothing else is named, so nobody can reach another tenant's.
async fn closed_as_wechat_would(operation: &Operation, world: &World, unable: &str) {
    let bearer = world.operator().token().await;
    for (query, errcode) in [
        (String::new(), 41001),
        (format!("?access_token={bearer}"), 40001),
        (format!("?access_token={unable}"), 48001),
    ] {
        let path = operation.path.replace("{path}", "any/call") + &query;
        let request = world.anonymous().bare(operation.method.clone(), &path);
        let answer = finish(request.json(&message("o1"))).await;
        let name = operation.name();
        assert_eq!(answer.expect(200)["errcode"], errcode, "{name}");
    }
}

/// Everything of the owner that a stranger might have changed.
async fn snapshot(owner: &Tenant, things: &BTreeMap<&'static str, String>) -> Value {
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
    json!({
        "webhooks": webhooks,
        "apps": client.get("/v1/apps").await.expect(200),
        "messages": client.get(&format!("/v1/apps/{APP}/messages")).await.expect(200),
        "revoked": key.expect("the key")["revoked_at"],
    })
}
