//! Apps of which WeChat asks less than WeChat documents: values that break the rules of their types are sent with a
//! warning.

use serde_json::json;

use crate::{
    drop_in::{post, wechat_token},
    world::{Mode, World, message_with},
};

const APP: &str = "wx00000000000000a1";
const SUBSCRIBE: &str = "/cgi-bin/message/subscribe/send";

both_modes!(an_app_with_lenient_value_rules_is_warned_and_sends);

async fn an_app_with_lenient_value_rules_is_warned_and_sends(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let (app, messages) = (
        format!("/v1/apps/{APP}"),
        format!("/v1/apps/{APP}/messages"),
    );
    // The simulator counts an emoji as one character, the gateway as two; WeChat does not document which is right.
    let broken = |openid: &str| {
        message_with(
            openid,
            json!({"data": {"thing1": {"value": "😀".repeat(11)}}}),
        )
    };
    let shown = tenant.client.get(&app).await.expect(200);
    assert_eq!(shown["value_rules"], "strict");
    let problem = tenant.client.post(&messages, &broken("o1")).await;
    let problem = problem.problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["pointer"], "/data/thing1/value");

    let lenient = json!({"value_rules": "warn"});
    let changed = tenant.client.patch(&app, &lenient).await.expect(200);
    assert_eq!(changed["value_rules"], "warn");
    let accepted = tenant.send(APP, &broken("o1")).await;
    let warning = accepted["warnings"][0].as_str().expect("a warning");
    assert!(
        warning.starts_with("/data/thing1/value is sent unchanged, but must be at most 20"),
        "{warning}"
    );
    tenant.wait_for(&accepted, "sent").await;
    let batch = json!({"messages": [broken("o2")]});
    let batch = tenant
        .client
        .post(&format!("{messages}/batch"), &batch)
        .await
        .expect(200);
    let item = &batch["data"][0];
    assert_eq!(
        (&item["status"], &item["message"]["warnings"][0]),
        (&json!(202), &json!(warning))
    );
    let token = wechat_token(&tenant.client, APP).await;
    let sent = post(&tenant.client, SUBSCRIBE, &token, &broken("o3")).await;
    assert_eq!(sent["errcode"], 0, "{sent}");
    let empty = message_with("o4", json!({"data": {"thing1": {"value": "\u{200b}"}}}));
    let problem = tenant.client.post(&messages, &empty).await;
    problem.problem(422, "validation_failed");
    let wrong = tenant
        .client
        .patch(&app, &json!({"value_rules": "none"}))
        .await;
    let problem = wrong.problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["pointer"], "/value_rules");
}
