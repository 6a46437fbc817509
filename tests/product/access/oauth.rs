//! Access tokens: fetched, narrowed, refused.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Client, Key, World, eventually, finish};

both_modes!(
    a_key_fetches_tokens_by_basic_and_in_the_form,
    a_wrong_secret_is_refused,
    a_token_can_have_fewer_scopes_than_its_key,
    other_grant_types_are_refused,
    a_key_never_creates_a_key_with_more_scopes,
    a_key_never_creates_a_key_that_expires_later,
    a_revoked_key_is_refused_within_five_seconds,
    a_suspended_tenant_is_refused_until_resumed,
    discovery_lists_the_endpoints,
);

async fn token(client: &Client, form: &[(&str, &str)]) -> crate::world::Answer {
    finish(client.bare(Method::POST, "/oauth/token").form(form)).await
}

async fn a_key_fetches_tokens_by_basic_and_in_the_form(mode: crate::world::Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    let Key {
        client_id,
        client_secret,
    } = tenant.client.key().clone();

    let basic = tenant.client.fetch_token(None).await;
    assert_eq!(basic.header("cache-control"), Some("no-store"), "{basic:?}");
    let basic = basic.expect(200);
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", client_id.as_str()),
        ("client_secret", client_secret.as_str()),
    ];
    let posted = token(&world.anonymous(), &form).await.expect(200);

    for answer in [basic, posted] {
        assert_eq!(answer["token_type"], "Bearer");
        assert_eq!(answer["expires_in"], 900);
        let jwt = answer["access_token"].as_str().expect("an access_token");
        let request = world
            .anonymous()
            .bare(Method::GET, "/v1/apps")
            .bearer_auth(jwt);
        finish(request).await.expect(200);
    }
}

async fn a_wrong_secret_is_refused(mode: crate::world::Mode) {
    let world = World::start(mode).await;
    let key = world.tenant("a").await.client.key().clone();
    let other = world.tenant("b").await.client.key().clone();
    let mut spoiled = key.client_secret.clone();
    let last = if spoiled.pop() == Some('x') { 'y' } else { 'x' };
    spoiled.push(last);

    for (client_id, client_secret) in [
        (key.client_id.clone(), spoiled),
        (key.client_id.clone(), "nonsense".to_owned()),
        (key.client_id.clone(), other.client_secret),
        (other.client_id, key.client_secret),
    ] {
        let client = world.anonymous().with_key(Key {
            client_id,
            client_secret,
        });
        let answer = client.fetch_token(None).await;
        assert!(
            answer
                .header("www-authenticate")
                .is_some_and(|text| text.starts_with("Basic"))
        );
        assert_eq!(answer.expect(401)["error"], "invalid_client");
    }
    let request = world
        .anonymous()
        .bare(Method::GET, "/v1/apps")
        .bearer_auth("no.jwt.atall");
    let answer = finish(request).await;
    let challenge = answer
        .header("www-authenticate")
        .unwrap_or_default()
        .to_owned();
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    answer.problem(401, "unauthorized");
}

async fn a_token_can_have_fewer_scopes_than_its_key(mode: crate::world::Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;

    let narrow = tenant
        .client
        .fetch_token(Some("apps:read"))
        .await
        .expect(200);
    assert_eq!(narrow["scope"], "apps:read");
    let jwt = narrow["access_token"].as_str().expect("an access_token");
    let client = world.anonymous();
    finish(client.bare(Method::GET, "/v1/apps").bearer_auth(jwt))
        .await
        .expect(200);
    let new = json!({"appid": "wx00000000000000a1", "secret": "s"});
    let answer = finish(
        client
            .bare(Method::POST, "/v1/apps")
            .bearer_auth(jwt)
            .json(&new),
    )
    .await;
    let challenge = answer
        .header("www-authenticate")
        .unwrap_or_default()
        .to_owned();
    assert!(challenge.contains("scope=\"apps:write\""), "{challenge}");
    answer.problem(403, "insufficient_scope");

    for beyond in ["operator", "apps:read operator", "unheard:of"] {
        let answer = tenant.client.fetch_token(Some(beyond)).await;
        assert_eq!(answer.expect(400)["error"], "invalid_scope", "{beyond}");
    }
}

async fn other_grant_types_are_refused(mode: crate::world::Mode) {
    let world = World::start(mode).await;
    let nobody = world.anonymous();
    let refused = |answer: crate::world::Answer| answer.expect(400)["error"].clone();
    assert_eq!(
        refused(token(&nobody, &[("grant_type", "password")]).await),
        "unsupported_grant_type"
    );
    assert_eq!(
        refused(token(&nobody, &[("client_id", "x")]).await),
        "invalid_request"
    );
    let request = nobody.bare(Method::POST, "/oauth/token").json(&json!({}));
    assert_eq!(refused(finish(request).await), "invalid_request");
}

async fn a_key_never_creates_a_key_with_more_scopes(mode: crate::world::Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    let keeper = world.key_of(&tenant.id, &["keys:write", "apps:read"]).await;

    let weak = json!({"name": "reader", "scopes": ["apps:read"]});
    let created = keeper.post("/v1/keys", &weak).await.expect(201);
    assert_eq!(created["scopes"], json!(["apps:read"]));
    assert_eq!(created["tenant_id"], tenant.id.as_str());
    let reader = world.anonymous().with_key(Key::of(&created));
    reader.get("/v1/apps").await.expect(200);
    reader
        .get("/v1/keys")
        .await
        .problem(403, "insufficient_scope");

    let strong = json!({"name": "sender", "scopes": ["apps:read", "messages:send"]});
    keeper
        .post("/v1/keys", &strong)
        .await
        .problem(403, "insufficient_scope");
    let operator = json!({"name": "root", "scopes": ["operator"]});
    let answer = tenant.client.post("/v1/keys", &operator).await;
    assert!([403, 422].contains(&answer.status.as_u16()), "{answer:?}");

    let listed = keeper.get("/v1/keys").await.expect(200);
    let names: Vec<&Value> = listed["data"]
        .as_array()
        .expect("data")
        .iter()
        .map(|key| &key["name"])
        .collect();
    assert_eq!(names, ["reader", "test", "test"]);
    assert!(
        !listed.to_string().contains("client_secret"),
        "a secret is shown once only"
    );
}

async fn a_key_never_creates_a_key_that_expires_later(mode: crate::world::Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    let end = world.now() + chrono::Duration::hours(1);
    let new = |scope: &str, expires_at: Option<String>| json!({"name": "k", "scopes": [scope], "expires_at": expires_at});
    let maker = new("keys:write", Some(end.to_rfc3339()));
    let maker = tenant.client.post("/v1/keys", &maker).await.expect(201);
    let client = world.anonymous().with_key(Key::of(&maker));
    let answer = client.post("/v1/keys", &new("keys:write", None)).await;
    assert_eq!(answer.expect(201)["expires_at"], maker["expires_at"]);
    let later = (end + chrono::Duration::seconds(1)).to_rfc3339();
    let refused = client
        .post("/v1/keys", &new("keys:write", Some(later)))
        .await;
    let problem = refused.problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["pointer"], "/expires_at");
}

async fn a_revoked_key_is_refused_within_five_seconds(mode: crate::world::Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    let doomed = world.key_of(&tenant.id, &["apps:read"]).await;
    doomed.get("/v1/apps").await.expect(200);

    let path = format!("/v1/keys/{}", doomed.key().client_id);
    tenant.client.delete(&path).await.expect(204);
    tenant.client.delete(&path).await.expect(204);

    eventually("the revoked key is refused", || async {
        (doomed.get("/v1/apps").await.status == 401).then_some(())
    })
    .await;
    assert_eq!(
        doomed.fetch_token(None).await.expect(401)["error"],
        "invalid_client"
    );
    tenant.client.get("/v1/apps").await.expect(200);
}

async fn a_suspended_tenant_is_refused_until_resumed(mode: crate::world::Mode) {
    let world = World::start(mode).await;
    let (suspended, other) = (world.tenant("a").await, world.tenant("b").await);
    suspended.client.get("/v1/apps").await.expect(200);
    let path = format!("/v1/tenants/{}", suspended.id);
    let standing = |status: u16| {
        let client = suspended.client.clone();
        async move {
            eventually(&format!("the tenant is answered {status}"), || async {
                (client.get("/v1/apps").await.status == status).then_some(())
            })
            .await;
        }
    };

    world
        .operator()
        .patch(&path, &json!({"status": "suspended"}))
        .await
        .expect(200);
    standing(401).await;
    other.client.get("/v1/apps").await.expect(200);

    let changed = world
        .operator()
        .patch(&path, &json!({"status": "active"}))
        .await
        .expect(200);
    assert_eq!(changed["status"], "active");
    standing(200).await;
}

async fn discovery_lists_the_endpoints(mode: crate::world::Mode) {
    let world = World::start(mode).await;
    let nobody = world.anonymous();
    let metadata = nobody
        .get("/.well-known/oauth-authorization-server")
        .await
        .expect(200);
    let endpoint = metadata["token_endpoint"].as_str().unwrap_or_default();
    assert!(endpoint.ends_with("/oauth/token"), "{metadata}");
    let keys = nobody.get("/.well-known/jwks.json").await.expect(200);
    assert_eq!(keys["keys"][0]["kty"], "OKP");
    assert_eq!(
        keys["keys"][0]["d"],
        Value::Null,
        "the private half stays at home"
    );
}
