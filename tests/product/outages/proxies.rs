//! Proxies between the gateway and WeChat.

use futures::future::join_all;
use serde_json::json;
use simulator::{Effect, Fault};

use crate::world::{Mode, World, message_with, outcomes};

const APP: &str = "wx00000000000000a1";

both_modes!(
    a_proxy_that_may_have_passed_a_message_on_does_not_repeat_it,
    a_proxy_that_did_not_pass_a_message_on_delays_it,
    a_second_copy_is_sent_where_that_was_asked_for,
);

/// Statuses of a proxy that has no answer to pass back. The proxy may or may not have forwarded the request.
const UNKNOWN: [u16; 6] = [500, 501, 502, 504, 520, 524];

async fn a_proxy_that_may_have_passed_a_message_on_does_not_repeat_it(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let effects = UNKNOWN.into_iter().flat_map(|status| {
        let kept = Effect::Status { status, body: None };
        [Effect::StatusAfter { status }, kept]
    });
    let sends = effects.enumerate().map(|(number, effect)| {
        let openid = format!("o{number}");
        world
            .wechat()
            .add_fault(Fault::next(1, effect.clone()).for_user(&*openid));
        let tenant = &tenant;
        async move {
            let message = message_with(&openid, json!({}));
            (effect, tenant.send_and_wait(APP, &message).await)
        }
    });
    for (effect, message) in join_all(sends).await {
        assert_eq!(message["status"], "uncertain", "{effect:?}: {message}");
        assert_eq!(outcomes(&message), ["unknown"], "{effect:?}");
        let said = message["attempts"][0]["errmsg"].as_str();
        assert!(
            said.is_some_and(|said| said.starts_with("HTTP 5")),
            "{message}"
        );
    }
    assert_eq!(world.wechat().sent(APP).len(), UNKNOWN.len(), "each once");
}

async fn a_proxy_that_did_not_pass_a_message_on_delays_it(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let statuses = [503, 429, 403, 302].into_iter();
    let sends = statuses.map(|status| {
        let openid = format!("o{status}");
        let kept = Effect::Status { status, body: None };
        world
            .wechat()
            .add_fault(Fault::next(1, kept).for_user(&*openid));
        let tenant = &tenant;
        async move {
            let message = message_with(&openid, json!({}));
            tenant.send_and_wait(APP, &message).await
        }
    });
    for message in join_all(sends).await {
        assert_eq!(message["status"], "sent", "{message}");
        assert_eq!(outcomes(&message), ["retry", "accepted"], "{message}");
    }
}

async fn a_second_copy_is_sent_where_that_was_asked_for(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    world.expect_copies();
    let lost = Effect::StatusAfter { status: 502 };
    world
        .wechat()
        .add_fault(Fault::next(1, lost).for_user("o1"));
    let message = message_with("o1", json!({"on_uncertain": "retry"}));
    let message = tenant.send_and_wait(APP, &message).await;
    assert_eq!(outcomes(&message), ["unknown", "accepted"], "{message}");
    assert_eq!(world.wechat().sent(APP).len(), 2);
}
