//! Connections that break: the gateway sends later what certainly was not sent, and never repeats what may have been
//! sent, unless the tenant asked for repeats.

use std::time::Duration;

use serde_json::json;
use simulator::{Effect, Fault};

use crate::world::{Mode, World, id, message, message_with, outcomes};

const APP: &str = "wx00000000000000a1";
const SUBSCRIBE: &str = "/cgi-bin/message/subscribe/send";

both_modes!(
    a_lost_answer_leaves_the_message_uncertain,
    a_lost_request_leaves_the_message_uncertain,
    a_missing_answer_leaves_the_message_uncertain,
    a_message_that_may_be_repeated_is_sent_again,
    a_refused_connection_delays_the_message,
    a_broken_proxy_delays_the_message,
    malformed_answers_are_parsed,
);

/// A fault of sends only; token fetches succeed.
fn send_fault(effect: Effect) -> Fault {
    Fault::next(1, effect).for_path(SUBSCRIBE)
}

/// Makes one send that ends like `effect`, then one that succeeds. Returns how many messages WeChat took from the first
/// send.
async fn uncertain_after(mode: Mode, effect: Effect) -> usize {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    world.wechat().add_fault(send_fault(effect));

    let lost = tenant.send_and_wait(APP, &message("o1")).await;

    assert_eq!(lost["status"], "uncertain", "{lost}");
    assert_eq!(lost["failure"]["code"], "unanswered");
    assert_eq!(
        (&lost["msgid"], &lost["attempts"][0]["errcode"]),
        (&json!(null), &json!(null))
    );
    assert_eq!(outcomes(&lost), ["unknown"]);
    let taken = world.wechat().sent(APP).len();
    // A message to the same user is sent behind the first one, so a repetition would have come before.
    let next = tenant.send_and_wait(APP, &message("o1")).await;
    assert_eq!(next["status"], "sent", "{next}");
    assert_eq!(
        world.wechat().sent(APP).len(),
        taken + 1,
        "nothing was repeated"
    );
    assert_eq!(tenant.read(&lost).await["status"], "uncertain");
    taken
}

async fn a_lost_answer_leaves_the_message_uncertain(mode: Mode) {
    assert_eq!(uncertain_after(mode, Effect::BreakAfter).await, 1);
}

async fn a_lost_request_leaves_the_message_uncertain(mode: Mode) {
    assert_eq!(uncertain_after(mode, Effect::BreakBefore).await, 0);
}

async fn a_missing_answer_leaves_the_message_uncertain(mode: Mode) {
    assert_eq!(uncertain_after(mode, Effect::Hang { acted: true }).await, 1);
}

async fn a_message_that_may_be_repeated_is_sent_again(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    world.wechat().add_fault(send_fault(Effect::BreakAfter));
    world.expect_copies();

    let message = message_with("o1", json!({"on_uncertain": "retry"}));
    let message = tenant.send_and_wait(APP, &message).await;

    assert_eq!(message["status"], "sent", "{message}");
    assert_eq!(outcomes(&message), ["unknown", "accepted"]);
    assert_eq!(world.wechat().sent(APP).len(), 2);
}

async fn a_refused_connection_delays_the_message(mode: Mode) {
    let mut world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    tenant.send_and_wait(APP, &message("o1")).await;
    world.wechat_goes_away().await;

    let delayed = tenant.send(APP, &message("o1")).await;
    let refused = tenant.wait_attempt(&delayed, "retry").await;
    let why = refused["attempts"][0]["errmsg"]
        .as_str()
        .unwrap_or_default();
    assert!(why.contains("connect"), "{refused}");
    assert!(!why.contains("access_token"), "no token in an error: {why}");

    world.wechat_comes_back().await;
    let sent = tenant.wait_ended(&delayed).await;
    assert_eq!(sent["status"], "sent", "{sent}");
    assert_eq!(world.wechat().sent(APP).len(), 1);
}

async fn a_broken_proxy_delays_the_message(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let unavailable = Effect::Status {
        status: 503,
        body: None,
    };
    world.wechat().add_fault(send_fault(unavailable));

    let delayed = tenant.send(APP, &message("o1")).await;
    let refused = tenant.wait_attempt(&delayed, "retry").await;
    assert_eq!(refused["status"], "queued");
    // The backoff of the first message is at least half a second, and the clock stands still.
    let other = tenant.send_and_wait(APP, &message("o2")).await;
    assert_eq!(other["status"], "sent");
    assert_eq!(
        tenant.read(&delayed).await["attempts"]
            .as_array()
            .map(Vec::len),
        Some(1),
        "{}",
        id(&delayed)
    );

    world.pass(Duration::from_secs(2));
    let sent = tenant.wait_ended(&delayed).await;
    assert_eq!(outcomes(&sent), ["retry", "accepted"]);
    assert_eq!(world.wechat().sent(APP).len(), 2);
}

async fn malformed_answers_are_parsed(mode: Mode) {
    use simulator::Shape::{ControlCharacters, StringErrcode, TextPlain};
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    for shape in [StringErrcode, TextPlain, ControlCharacters] {
        world
            .wechat()
            .add_fault(send_fault(Effect::OddAnswer { shape }));
        let message = tenant.send_and_wait(APP, &message("o1")).await;
        assert_eq!(message["status"], "sent", "{shape:?}: {message}");
    }
}
