//! Templates that WeChat lists only after their app was registered, and exhausted quotas of token fetches.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use simulator::{Effect, Fault, GrantRule, ListedTemplate};

use crate::{
    drop_in::{post, wechat_token},
    world::{Mode, SECRET, TEMPLATE, Tenant, World, message_with},
};

const APP: &str = "wx00000000000000a1";
const SUBSCRIBE: &str = "/cgi-bin/message/subscribe/send";

both_modes!(
    a_template_that_is_added_after_onboarding_is_known_within_a_minute,
    verify_copies_the_templates_again,
    a_spent_token_quota_is_reported_as_quota,
    a_listed_template_that_wechat_refuses_has_its_own_explanation,
);

/// Makes WeChat list one template of the app, which wants one accepted subscription for each message.
fn add_template(world: &World) {
    world.wechat().change_app(APP, |app| {
        app.grants = GrantRule::Counted;
        app.templates = vec![ListedTemplate::one_time(TEMPLATE, &["thing1", "phrase2"])];
    });
}

/// A message that lacks a keyword of the template.
fn incomplete() -> Value {
    message_with("o1", json!({"data": {"thing1": {"value": "保温杯"}}}))
}

async fn listed(tenant: &Tenant) -> usize {
    let path = format!("/v1/apps/{APP}/templates");
    let page = tenant.client.get(&path).await.expect(200);
    page["data"].as_array().expect("data").len()
}

async fn a_template_that_is_added_after_onboarding_is_known_within_a_minute(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    assert_eq!(listed(&tenant).await, 0);
    add_template(&world);
    world.wechat().grant(APP, "o1", TEMPLATE, 1);
    world.pass(Duration::from_mins(1));

    let path = format!("/v1/apps/{APP}/messages");
    let problem = tenant.client.post(&path, &incomplete()).await;
    let problem = problem.problem(422, "validation_failed");
    assert_eq!(
        problem["errors"][0]["pointer"], "/data/phrase2",
        "{problem}"
    );
    assert_eq!(listed(&tenant).await, 1);
    let token = wechat_token(&tenant.client, APP).await;
    let refused = post(&tenant.client, SUBSCRIBE, &token, &incomplete()).await;
    assert_eq!(refused["errcode"], 47003, "{refused}");
    assert!(world.wechat().sent(APP).is_empty());

    let whole = json!({"data": {"thing1": {"value": "保温杯"}, "phrase2": {"value": "已发货"}}});
    let sent = tenant.send_and_wait(APP, &message_with("o1", whole)).await;
    assert_eq!(sent["status"], "sent", "the grant is still there: {sent}");
}

async fn verify_copies_the_templates_again(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    assert_eq!(listed(&tenant).await, 0);
    add_template(&world);
    let path = format!("/v1/apps/{APP}/verify");
    tenant.client.post(&path, &Value::Null).await.expect(200);
    let time = tenant.client.time();
    time.eventually("the template is known", || async {
        (listed(&tenant).await == 1).then_some(())
    })
    .await;
}

async fn a_spent_token_quota_is_reported_as_quota(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    let new = json!({"appid": APP, "secret": SECRET});
    for (errcode, code) in [(45009, "quota_exhausted"), (45011, "rate_limited")] {
        let spent = Effect::Errcode {
            errcode,
            errmsg: None,
        };
        let fault = Fault::always(spent);
        let fault = world.wechat().add_fault(fault);
        let answer = tenant
            .client
            .call(Method::POST, "/v1/apps", Some(&new))
            .await;
        assert!(answer.headers.contains_key("retry-after"));
        let problem = answer.problem(429, code);
        assert_eq!(problem["wechat"]["errcode"], errcode, "{problem}");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(
            detail.contains("token fetches") && detail.contains(&errcode.to_string()),
            "{detail}"
        );
        world.wechat().remove_fault(fault);
        world.pass(Duration::from_mins(31));
    }
}

async fn a_listed_template_that_wechat_refuses_has_its_own_explanation(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    let refused = async |openid: &str| {
        let refusal = Effect::Errcode {
            errcode: 40037,
            errmsg: None,
        };
        let fault = Fault::next(1, refusal).for_path(SUBSCRIBE);
        world.wechat().add_fault(fault);
        let data = json!({"data": {"thing1": {"value": "x"}, "phrase2": {"value": "已发货"}}});
        let failed = tenant.send_and_wait(APP, &message_with(openid, data)).await;
        assert_eq!(failed["failure"]["code"], "invalid_template", "{failed}");
        failed["failure"]["detail"]
            .as_str()
            .expect("a detail")
            .to_owned()
    };
    tenant.app(APP).await;
    let unknown = refused("o1").await;
    assert!(
        unknown.starts_with("the template is not in this account"),
        "{unknown}"
    );
    world.wechat().change_app(APP, |app| {
        app.templates = vec![ListedTemplate::one_time(TEMPLATE, &["thing1", "phrase2"])];
    });
    let sync = format!("/v1/apps/{APP}/templates/sync");
    tenant.client.post(&sync, &Value::Null).await.expect(200);
    let listed = refused("o2").await;
    assert!(
        listed.starts_with("WeChat lists this template") && listed.contains("40037"),
        "{listed}"
    );
}
