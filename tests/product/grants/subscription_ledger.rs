//! The subscription ledger.

use serde_json::json;
use simulator::{PushEvent, PushFormat, PushMode};

use super::{
    APP, calls, collect, form_id, grants_of, path, remaining, strict_wechat, subscription,
};
use crate::{
    callbacks::{assert_success, hearing, letter, post},
    world::{Mode, TEMPLATE, World, message, message_with},
};

const SUBSCRIBE: &str = "/cgi-bin/message/subscribe/send";

both_modes!(
    a_popup_and_the_tenants_report_of_it_count_once,
    a_strict_app_sends_nothing_without_a_grant,
    a_refusal_of_wechat_removes_the_grants_of_the_user,
    reach_is_reported_for_a_list_of_users,
);

async fn a_popup_and_the_tenants_report_of_it_count_once(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    hearing(&world, &tenant, PushMode::Safe, PushFormat::Json).await;
    let popup = |openid: &str| PushEvent::Popup {
        openid: openid.into(),
        choices: vec![(TEMPLATE.into(), "accept".into())],
    };
    collect(&tenant, &[subscription("o1", 1)]).await;
    let told = letter(&world, &popup("o1"));
    for _ in 0..2 {
        assert_success(&post(&world, &told).await);
    }
    assert_eq!(remaining(&tenant, "o1").await, 1);
    let grant = grants_of(&tenant, "o1").await.remove(0);
    assert!(grant["reported_at"].is_string() && grant["confirmed_at"].is_string());

    assert_success(&post(&world, &letter(&world, &popup("o2"))).await);
    assert_eq!(
        remaining(&tenant, "o2").await,
        1,
        "trusted without a report"
    );
    collect(&tenant, &[subscription("o2", 1)]).await;
    assert_eq!(remaining(&tenant, "o2").await, 1);

    let sent = tenant.send_and_wait(APP, &message("o2")).await;
    assert_eq!(sent["status"], "sent");
    assert_eq!(remaining(&tenant, "o2").await, 0, "what is sent is counted");
    let change = PushEvent::Change {
        openid: "o1".into(),
        choices: vec![(TEMPLATE.into(), "reject".into())],
    };
    assert_success(&post(&world, &letter(&world, &change)).await);
    assert_eq!(remaining(&tenant, "o1").await, 0);
}

async fn a_strict_app_sends_nothing_without_a_grant(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant
        .app_with(APP, json!({"grant_policy": "strict"}))
        .await;
    strict_wechat(&world);
    world.wechat().grant(APP, "o1", TEMPLATE, 9);
    collect(&tenant, &[subscription("o1", 1)]).await;
    let sent = tenant.send_and_wait(APP, &message("o1")).await;
    assert_eq!(sent["status"], "sent", "{sent}");
    let unsent = tenant.send_and_wait(APP, &message("o1")).await;
    assert_eq!(
        (&unsent["status"], &unsent["failure"]["code"]),
        (&json!("failed"), &json!("no_grant"))
    );
    assert_eq!(unsent["attempts"], json!([]));
    assert_eq!(calls(&world, SUBSCRIBE), 1);

    let observe = json!({"grant_policy": "observe"});
    let tried = tenant
        .send_and_wait(APP, &message_with("o1", observe.clone()))
        .await;
    assert_eq!(
        (&tried["status"], &tried["grant_policy"]),
        (&json!("sent"), &json!("observe"))
    );
    let own = format!("/v1/apps/{APP}");
    let app = tenant.client.patch(&own, &observe).await.expect(200);
    assert_eq!(app["grant_policy"], "observe");
    let strict = message_with("o1", json!({"grant_policy": "strict"}));
    let unsent = tenant.send_and_wait(APP, &strict).await;
    assert_eq!(unsent["failure"]["code"], "no_grant");
    assert_eq!(calls(&world, SUBSCRIBE), 2);
}

async fn a_refusal_of_wechat_removes_the_grants_of_the_user(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    strict_wechat(&world);
    // The ledger has five accepted messages; WeChat knows of none.
    collect(&tenant, &[subscription("o1", 5)]).await;
    let refused = tenant.send_and_wait(APP, &message("o1")).await;
    assert_eq!(refused["failure"]["code"], "no_grant");
    assert_eq!(refused["attempts"][0]["errcode"], 43101);
    assert_eq!(remaining(&tenant, "o1").await, 0);
}

async fn reach_is_reported_for_a_list_of_users(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let grants = [
        subscription("o1", 2),
        subscription("o2", 1),
        form_id("o3", "f3"),
    ];
    collect(&tenant, &grants).await;
    let openids: Vec<String> = (0..10_000).map(|number| format!("o{number}")).collect();
    let ask = async |channel: &str| {
        let body = json!({"channel": channel, "template_id": TEMPLATE, "openids": openids});
        tenant.client.post(&path("reach"), &body).await
    };
    let by_ledger = ask("subscribe").await.expect(200);
    let expected = json!({"users": 10_000, "reachable": 2, "revoked": 0, "unknown": 9_998});
    assert_eq!(by_ledger, expected);
    let by_pool = ask("template").await.expect(200);
    let expected = json!({"users": 10_000, "reachable": 1, "revoked": 0, "unknown": 9_999});
    assert_eq!(by_pool, expected);
    ask("official").await.problem(422, "validation_failed");
}
