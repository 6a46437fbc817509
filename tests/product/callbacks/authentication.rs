//! Authentication of callbacks: the check of the URL, refusals, and changes of the settings.

use std::time::Duration;

use futures::stream::{self, StreamExt};
use serde_json::{Value, json};
use simulator::{CallbackRequest, PushFormat, PushMode, PushSettings};

use super::{
    AES_KEY, APP, OTHER, TOKEN, arrived, assert_success, counted, hearing, letter, popup, post,
    post_to, pushes, settings,
};
use crate::world::{Mode, World, message};

both_modes!(
    the_url_is_verified_and_the_settings_for_wechat_are_shown,
    every_invalid_callback_gets_the_same_refusal,
    old_settings_are_valid_for_a_day,
    callbacks_over_the_rate_limit_have_to_be_repeated,
);

async fn the_url_is_verified_and_the_settings_for_wechat_are_shown(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    hearing(&world, &tenant, PushMode::Safe, PushFormat::Xml).await;

    let shown = tenant.client.get(&format!("/v1/apps/{APP}")).await;
    assert!(!shown.text.contains(TOKEN) && !shown.text.contains(AES_KEY));
    let url = format!("http://wxgate.test/callbacks/{APP}");
    assert_eq!(
        shown.expect(200)["callback"],
        json!({"url": url, "token_set": true, "aes_key_set": true})
    );

    let signed = letter(&world, &popup("o1")).query;
    let anonymous = world.anonymous();
    for (sent, echo) in [
        ("4375120948345356249", "4375120948345356249"),
        ("a%20%3Cb%3E%22%26%E5%A5%BD", "a <b>\"&好"),
        ("", ""),
    ] {
        let path = format!("/callbacks/{APP}?{signed}&echostr={sent}");
        let answer = anonymous.get(&path).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, echo));
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    for wrong in [
        format!("/callbacks/{APP}?{signed}"),
        format!("/callbacks/{APP}?{signed}&echostr=1&echostr=2"),
        format!(
            "/callbacks/{APP}?{}&echostr=1",
            signed.replace("nonce=", "nonce=1")
        ),
        format!("/callbacks/{APP}?echostr=1"),
        format!("/callbacks/{OTHER}?{signed}&echostr=1"),
    ] {
        anonymous.get(&wrong).await.problem(403, "bad_signature");
    }
}

/// The clock stands still, so the rate limit's bucket does not refill.
async fn callbacks_over_the_rate_limit_have_to_be_repeated(mode: Mode) {
    const MOST: usize = 2000;
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    hearing(&world, &tenant, PushMode::Safe, PushFormat::Json).await;
    let sent = tenant.send_and_wait(APP, &message("o1")).await;
    let anonymous = world.anonymous();
    let signed = letter(&world, &popup("o1")).query;
    let path = format!("/callbacks/{APP}?{signed}&echostr=1");
    let calls = (0..MOST).map(|_| anonymous.get(&path));
    let answered = stream::iter(calls).buffer_unordered(64);
    answered
        .for_each(async |answer| assert_eq!(answer.status, 200, "{answer:?}"))
        .await;
    let receipt = letter(&world, &arrived(&sent));
    let later = post(&world, &receipt).await;
    assert_eq!(later.header("retry-after"), Some("1"));
    later.problem(429, "rate_limited");
    let other = anonymous.get(&path.replace(APP, OTHER)).await;
    other.problem(403, "bad_signature");
    world.pass(Duration::from_secs(1));
    assert_success(&post(&world, &receipt).await);
    assert_eq!(tenant.read(&sent).await["status"], "delivered");
}

async fn every_invalid_callback_gets_the_same_refusal(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    hearing(&world, &tenant, PushMode::Safe, PushFormat::Json).await;
    tenant.app_with(OTHER, json!({})).await;
    let sent = tenant.send_and_wait(APP, &message("o1")).await;
    let good = letter(&world, &arrived(&sent));
    let with = |change: fn(&mut CallbackRequest)| {
        let mut letter = good.clone();
        change(&mut letter);
        letter
    };
    let plain = PushSettings {
        mode: PushMode::Plain,
        ..settings(&world, PushMode::Safe, PushFormat::Json)
    };
    pushes(&world, APP, plain);
    let talked_down = letter(&world, &arrived(&sent));
    let foreign = PushSettings {
        token: "another".into(),
        ..settings(&world, PushMode::Safe, PushFormat::Json)
    };
    pushes(&world, APP, foreign);
    let forged = letter(&world, &arrived(&sent));
    pushes(
        &world,
        OTHER,
        settings(&world, PushMode::Safe, PushFormat::Json),
    );
    let of_another_app = world.wechat().letter(OTHER, &arrived(&sent)).unwrap();

    let mut answers = Vec::new();
    for (what, appid, letter) in [
        ("an unknown app", "wx00000000000000ff", good.clone()),
        ("no appid", "nonsense", good.clone()),
        ("an app without a Token", OTHER, good.clone()),
        ("another Token", APP, forged),
        ("a plain push", APP, talked_down),
        ("another app's envelope", APP, of_another_app),
        (
            "another nonce",
            APP,
            with(|l| l.query = l.query.replace("nonce=", "nonce=9")),
        ),
        (
            "another time",
            APP,
            with(|l| l.query = l.query.replace("timestamp=1", "timestamp=2")),
        ),
        (
            "no signature",
            APP,
            with(|l| l.query = "encrypt_type=aes".into()),
        ),
        ("no query", APP, with(|l| l.query.clear())),
        (
            "a changed body",
            APP,
            with(|l| l.body = l.body.replace("\"Encrypt\":\"", "\"Encrypt\":\"A")),
        ),
        ("no body", APP, with(|l| l.body.clear())),
        (
            "another body",
            APP,
            with(|l| l.body = "<!DOCTYPE a>".into()),
        ),
    ] {
        let answer = post_to(&world, appid, &letter).await;
        let mut body = answer.problem(403, "bad_signature");
        body.as_object_mut().unwrap().remove("instance");
        answers.push((what, body));
    }
    for (what, body) in &answers {
        assert_eq!(body, &answers[0].1, "{what} is told from an unknown app");
    }
    let large = with(|l| l.body = format!("{{\"Encrypt\":\"{}\"}}", "A".repeat(64 * 1024)));
    post(&world, &large).await.problem(413, "payload_too_large");

    // An attacker repeats an intercepted callback five minutes later.
    world.pass(Duration::from_mins(5) + Duration::from_secs(1));
    post(&world, &good).await.problem(403, "bad_signature");
    assert_eq!(tenant.read(&sent).await["status"], "sent");
    // An old check of the URL changes nothing and reveals nothing.
    let check = format!("/callbacks/{APP}?{}&echostr=1", good.query);
    assert_eq!(world.anonymous().get(&check).await.text, "1");
    assert_eq!(
        counted(&world, "wxgate_callbacks_refused_total{reason=\"stale\"}").await,
        1
    );

    // WeChat's clock is ahead; four minutes are within the tolerance.
    pushes(
        &world,
        APP,
        settings(&world, PushMode::Safe, PushFormat::Json),
    );
    world.wechat().clock().advance(Duration::from_mins(4));
    let ahead = letter(&world, &arrived(&sent));
    world.wechat().clock().advance(Duration::from_mins(2));
    let too_far_ahead = letter(&world, &arrived(&sent));
    post(&world, &too_far_ahead)
        .await
        .problem(403, "bad_signature");
    assert_success(&post(&world, &ahead).await);
    assert_eq!(tenant.read(&sent).await["status"], "delivered");
}

async fn old_settings_are_valid_for_a_day(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    hearing(&world, &tenant, PushMode::Safe, PushFormat::Json).await;
    let safe = || settings(&world, PushMode::Safe, PushFormat::Json);
    let new_key = "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8S9t0U1v";
    let new = || PushSettings {
        token: "newToken".into(),
        aes_key: Some(new_key.into()),
        ..safe()
    };
    let newest = || PushSettings {
        token: "newestToken".into(),
        ..new()
    };
    let change = async |change: Value| {
        let path = format!("/v1/apps/{APP}");
        tenant.client.patch(&path, &change).await.expect(200);
    };
    let heard = async |push: PushSettings| {
        pushes(&world, APP, push);
        let answer = post(&world, &letter(&world, &popup("o1"))).await;
        let taken = answer.status == 200;
        if !taken {
            answer.problem(403, "bad_signature");
        }
        taken
    };

    let both = json!({"callback_token": "newToken", "callback_aes_key": new_key});
    change(both.clone()).await;
    assert!(heard(safe()).await && heard(new()).await);
    // Neither a mixture of old and new settings nor plain mode is accepted.
    let mixed = PushSettings {
        token: "newToken".into(),
        ..safe()
    };
    let plain = PushSettings {
        mode: PushMode::Plain,
        ..safe()
    };
    assert!(!heard(mixed).await && !heard(plain).await);

    world.pass(Duration::from_hours(23));
    // Repeating the same settings is no change, and a new name does not affect the callback settings.
    change(both).await;
    change(json!({"name": "another"})).await;
    assert!(heard(safe()).await && heard(new()).await);
    world.pass(Duration::from_hours(1));
    assert!(!heard(safe()).await && heard(new()).await);

    // After a change of the Token alone, the former pair stays valid.
    change(json!({"callback_token": "newestToken"})).await;
    assert!(heard(newest()).await && heard(new()).await);
    change(json!({"callback_aes_key": AES_KEY})).await;
    assert!(heard(newest()).await && !heard(new()).await);
}
