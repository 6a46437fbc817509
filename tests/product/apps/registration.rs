//! Onboarding: tenants, keys and apps.

use serde_json::{Value, json};

use crate::world::{Mode, SECRET, World, message};

const APP: &str = "wx00000000000000a1";
const OTHER: &str = "wx00000000000000b2";

both_modes!(
    an_app_is_registered_read_changed_and_removed,
    a_wrong_secret_is_refused,
    an_appid_belongs_to_one_tenant,
    only_an_operator_may_skip_the_check_of_a_secret,
    a_new_secret_is_checked_before_the_replacement,
    a_secret_that_wechat_refuses_at_verification_is_unverified,
    no_answer_of_wechat_differs_from_a_refusal,
    tenants_are_created_changed_and_listed,
);

async fn an_app_is_registered_read_changed_and_removed(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    let new = json!({"appid": APP, "secret": SECRET, "name": "Shop", "callback_token": "tok123"});
    let created = tenant.client.post("/v1/apps", &new).await;
    assert_eq!(
        created.header("location"),
        Some(format!("/v1/apps/{APP}").as_str())
    );
    let app = created.expect(201);
    assert_eq!(app["tenant_id"], tenant.id.as_str());
    assert_eq!(
        (&app["kind"], &app["token_mode"], &app["daily_quota"]),
        (&json!("mini_program"), &json!("stable"), &json!(1_000_000))
    );
    assert!(app["verified_at"].is_string(), "{app}");

    let path = format!("/v1/apps/{APP}");
    let mut alone = tenant.client.get(&path).await.expect(200);
    let foreign = alone.as_object_mut().unwrap().remove("foreign_refresh");
    let callback = alone.as_object_mut().unwrap().remove("callback");
    assert_eq!((alone, foreign), (app, Some(Value::Null)));
    let url = format!("http://wxgate.test/callbacks/{APP}");
    assert_eq!(
        callback,
        Some(json!({"url": url, "token_set": true, "aes_key_set": false}))
    );
    let wanted = json!({"name": "Shop 2", "daily_quota": 7, "token_mode": "legacy", "callback_token": "tok456"});
    let changed = tenant.client.patch(&path, &wanted).await.expect(200);
    assert_eq!(
        (&changed["name"], &changed["daily_quota"]),
        (&json!("Shop 2"), &json!(7))
    );
    assert_eq!(changed["token_mode"], "legacy");
    tenant
        .client
        .post(&format!("{path}/verify"), &json!({}))
        .await
        .expect(200);
    let listed = tenant.client.get("/v1/apps").await;
    assert!(!listed.text.contains(SECRET), "a secret is never shown");
    let listed = listed.expect(200);
    assert_eq!(listed["data"][0]["name"], "Shop 2");

    tenant.client.delete(&path).await.expect(204);
    tenant.client.get(&path).await.problem(404, "not_found");
    assert_eq!(
        tenant.client.get("/v1/apps").await.expect(200)["data"],
        json!([])
    );
    tenant.app(APP).await;
}

async fn a_wrong_secret_is_refused(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    world
        .wechat()
        .change_app(APP, |app| app.secret = Some("another".into()));

    let new = json!({"appid": APP, "secret": SECRET});
    let answer = tenant.client.post("/v1/apps", &new).await;
    assert!(!answer.text.contains(SECRET), "a secret is never shown");
    let problem = answer.problem(422, "wechat_rejected");
    assert_eq!(problem["wechat"]["errcode"], 40125);
    assert!(problem["wechat"]["rid"].is_string(), "{problem}");
    tenant
        .client
        .get(&format!("/v1/apps/{APP}"))
        .await
        .problem(404, "not_found");

    world
        .wechat()
        .change_app(APP, |app| app.secret = Some(SECRET.into()));
    tenant.app(APP).await;
}

async fn an_appid_belongs_to_one_tenant(mode: Mode) {
    let world = World::start(mode).await;
    let (first, second) = (world.tenant("a").await, world.tenant("b").await);
    first.app(APP).await;
    let new = json!({"appid": APP, "secret": SECRET});
    first
        .client
        .post("/v1/apps", &new)
        .await
        .problem(409, "conflict");
    second
        .client
        .post("/v1/apps", &new)
        .await
        .problem(409, "conflict");
    second.app(OTHER).await;

    let appids = |listed: Value| -> Vec<Value> {
        listed["data"]
            .as_array()
            .expect("data")
            .iter()
            .map(|app| app["appid"].clone())
            .collect()
    };
    assert_eq!(
        appids(first.client.get("/v1/apps").await.expect(200)),
        [APP]
    );
    assert_eq!(
        appids(second.client.get("/v1/apps").await.expect(200)),
        [OTHER]
    );
    assert_eq!(
        appids(world.operator().get("/v1/apps").await.expect(200)),
        [OTHER, APP]
    );

    first
        .client
        .delete(&format!("/v1/apps/{APP}"))
        .await
        .expect(204);
    second.app(APP).await;
}

async fn only_an_operator_may_skip_the_check_of_a_secret(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    world
        .wechat()
        .change_app(APP, |app| app.secret = Some("another".into()));
    let mut new = json!({"appid": APP, "secret": SECRET, "verify": false});
    tenant
        .client
        .post("/v1/apps", &new)
        .await
        .problem(403, "insufficient_scope");

    let operator = world.operator();
    operator
        .post("/v1/apps", &new)
        .await
        .problem(422, "validation_failed");
    new["tenant_id"] = tenant.id.as_str().into();
    let app = operator.post("/v1/apps", &new).await.expect(201);
    assert_eq!(app["verified_at"], Value::Null);
    let path = format!("/v1/apps/{APP}");
    tenant.client.get(&path).await.expect(200);
    let refused = tenant
        .client
        .post(&format!("{path}/verify"), &json!({}))
        .await;
    assert_eq!(
        refused.problem(422, "wechat_rejected")["wechat"]["errcode"],
        40125
    );
}

async fn a_secret_that_wechat_refuses_at_verification_is_unverified(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let path = format!("/v1/apps/{APP}");
    let verify = format!("{path}/verify");
    let set = |secret: &str| {
        let secret = Some(secret.to_owned());
        world.wechat().change_app(APP, |app| app.secret = secret);
    };
    let is_proven = async || {
        let app = tenant.client.get(&path).await.expect(200);
        let listed = tenant.client.get("/v1/apps").await.expect(200);
        assert_eq!(listed["data"][0]["verified_at"], app["verified_at"]);
        let told = crate::world::run(world.wxgate(&["app", "list"]));
        let told = told.expect(0).stdout();
        let tells = told.contains(&format!(
            "the AppSecret is not verified: run `wxgate app verify {APP}`"
        ));
        assert_eq!(tells, app["verified_at"].is_null(), "{told}");
        app["verified_at"].is_string()
    };
    assert!(is_proven().await);
    set("another");
    let refused = tenant.client.post(&verify, &json!({})).await;
    refused.problem(422, "wechat_rejected");
    assert!(!is_proven().await);
    // The app's cached access token is still alive.
    tenant.send_and_wait(APP, &message("o1")).await;
    set(SECRET);
    tenant.client.post(&verify, &json!({})).await.expect(200);
    assert!(is_proven().await);
}

async fn a_new_secret_is_checked_before_the_replacement(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    tenant.send_and_wait(APP, &message("o1")).await;
    world
        .wechat()
        .change_app(APP, |app| app.secret = Some(SECRET.into()));
    let path = format!("/v1/apps/{APP}/secret");

    let wrong = tenant
        .client
        .put(&path, &json!({"secret": "wrong-secret"}))
        .await;
    assert_eq!(
        wrong.problem(422, "wechat_rejected")["wechat"]["errcode"],
        40125
    );
    world.wechat().kill_tokens(APP);
    let sent = tenant.send_and_wait(APP, &message("o1")).await;
    assert_eq!(sent["status"], "sent", "the old secret is kept: {sent}");

    world
        .wechat()
        .change_app(APP, |app| app.secret = Some("fresh-secret".into()));
    let right = tenant
        .client
        .put(&path, &json!({"secret": "fresh-secret"}))
        .await
        .expect(200);
    assert_eq!(right["pause"], Value::Null);
    world.wechat().kill_tokens(APP);
    let sent = tenant.send_and_wait(APP, &message("o1")).await;
    assert_eq!(sent["status"], "sent", "{sent}");
}

async fn no_answer_of_wechat_differs_from_a_refusal(mode: Mode) {
    let mut world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    world.wechat_goes_away().await;
    let new = json!({"appid": APP, "secret": SECRET});
    tenant
        .client
        .post("/v1/apps", &new)
        .await
        .problem(503, "wechat_unavailable");
    world.wechat_comes_back().await;
    tenant.app(APP).await;
}

async fn tenants_are_created_changed_and_listed(mode: Mode) {
    let world = World::start(mode).await;
    let operator = world.operator();
    for name in ["one", "two", "three"] {
        world.tenant(name).await;
    }
    let mut names = Vec::new();
    let mut path = "/v1/tenants?limit=2".to_owned();
    loop {
        let page = operator.get(&path).await.expect(200);
        names.extend(
            page["data"]
                .as_array()
                .expect("data")
                .iter()
                .map(|tenant| tenant["name"].clone()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("/v1/tenants?limit=2&cursor={cursor}");
    }
    assert_eq!(names, ["three", "two", "one"]);
    let wrong = json!({"name": "", "limits": {"requests_per_second": 0}});
    let problem = operator
        .post("/v1/tenants", &wrong)
        .await
        .problem(422, "validation_failed");
    let pointers: Vec<&Value> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| &error["pointer"])
        .collect();
    assert_eq!(pointers, ["/name", "/limits/requests_per_second"]);
    let unknown = "/v1/tenants/ten_01jq2xv1cde8sbw7mv9v6a5kzq";
    operator.get(unknown).await.problem(404, "not_found");
    operator
        .get("/v1/tenants/nonsense")
        .await
        .problem(404, "not_found");
}
