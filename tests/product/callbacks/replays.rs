//! Replays of intercepted callbacks: later, with exchanged parts of the signed text, or with another body.

use std::{fmt::Write as _, time::Duration};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::Value;
use simulator::{CallbackRequest, PushEvent, PushFormat, PushMode};

use super::{
    APP, TOKEN, arrived, assert_success, counted, hearing, letter, popup, post, post_to, pushes,
    settings,
};
use crate::world::{Mode, World, eventually, message};

const DAY: Duration = Duration::from_hours(24);

both_modes!(
    a_day_old_callback_is_refused_with_exchanged_parts_of_the_signed_text,
    a_time_stamp_has_one_form,
    an_event_has_the_time_of_its_signature,
    an_intercepted_signature_permits_no_other_event,
);

/// Signs a callback with this timestamp and nonce, as WeChat does.
fn signed(letter: &CallbackRequest, timestamp: &str, nonce: &str) -> CallbackRequest {
    let sign = |more: Option<&str>| {
        let mut parts: Vec<&str> = [TOKEN, timestamp, nonce].into_iter().chain(more).collect();
        parts.sort_unstable();
        let sum = digest(&SHA1_FOR_LEGACY_USE_ONLY, parts.concat().as_bytes());
        sum.as_ref().iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    };
    let body: Value = serde_json::from_str(&letter.body).expect("JSON");
    let escaped = |text: &str| text.replace('+', "%2B").replace(' ', "%20");
    let mut query = format!(
        "signature={}&timestamp={}&nonce={}",
        sign(None),
        escaped(timestamp),
        escaped(nonce)
    );
    if let Some(ciphertext) = body["Encrypt"].as_str() {
        let signature = sign(Some(ciphertext));
        let _ = write!(query, "&encrypt_type=aes&msg_signature={signature}");
    }
    CallbackRequest {
        query,
        ..letter.clone()
    }
}

fn now(world: &World) -> i64 {
    world.now().timestamp()
}

/// A callback of an event that happens `seconds` after the present time. The clock stands still.
fn happened(world: &World, event: &PushEvent, seconds: i64) -> CallbackRequest {
    let clock = world.wechat();
    let clock = clock.clock();
    let millis = world.now().timestamp_millis();
    clock.pin(millis + seconds * 1000);
    let letter = letter(world, event);
    clock.pin(millis);
    letter
}

async fn a_day_old_callback_is_refused_with_exchanged_parts_of_the_signed_text(mode: Mode) {
    for push_mode in [PushMode::Plain, PushMode::Safe] {
        let world = World::plan(mode).by_hand().start().await;
        let tenant = world.tenant("a").await;
        hearing(&world, &tenant, push_mode, PushFormat::Json).await;
        let sent = tenant.send_and_wait(APP, &message("o1")).await;
        let (then, later) = (now(&world).to_string(), (now(&world) + 86_400).to_string());
        // WeChat signs this callback, an attacker intercepts it, and the gateway never gets the original.
        let overheard = signed(&letter(&world, &arrived(&sent)), &then, &later);
        world.pass(DAY);
        post(&world, &overheard).await.problem(403, "bad_signature");
        let exchanged = CallbackRequest {
            query: overheard.query.replace(
                &format!("timestamp={then}&nonce={later}"),
                &format!("timestamp={later}&nonce={then}"),
            ),
            ..overheard.clone()
        };
        assert_ne!(exchanged.query, overheard.query);
        post(&world, &exchanged).await.problem(403, "bad_signature");
        // The signature of a plain callback does not cover the body, so an attacker can write another body.
        let fresh = CallbackRequest {
            body: overheard.body.replace(&then, &later),
            ..exchanged
        };
        post(&world, &fresh).await.problem(403, "bad_signature");
        assert_eq!(tenant.read(&sent).await["status"], "sent", "{push_mode:?}");
        // The same event is accepted in a callback that WeChat signs now.
        let good = letter(&world, &arrived(&sent));
        assert_success(&post(&world, &good).await);
        assert_eq!(tenant.read(&sent).await["status"], "delivered");
    }
}

async fn a_time_stamp_has_one_form(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let tenant = world.tenant("a").await;
    hearing(&world, &tenant, PushMode::Plain, PushFormat::Json).await;
    let sent = tenant.send_and_wait(APP, &message("o1")).await;
    let (receipt, now) = (letter(&world, &arrived(&sent)), now(&world));
    for (timestamp, nonce) in [
        (format!("+{now}"), "1"),
        (format!("0{now}"), "1"),
        (format!("000{now}"), "1"),
        (format!(" {now}"), "1"),
        (format!("{now} "), "1"),
        (format!("{now}.0"), "1"),
        (format!("-{now}"), "1"),
        (now.to_string(), ""),
        (now.to_string(), " "),
        (now.to_string(), "a b"),
        (now.to_string(), &"9".repeat(65)),
    ] {
        let wrong = signed(&receipt, &timestamp, nonce);
        let refused = post(&world, &wrong).await;
        assert_eq!(refused.status, 403, "{timestamp:?} {nonce:?}: {refused:?}");
    }
    assert_eq!(tenant.read(&sent).await["status"], "sent");
    // A check of the URL is answered with any form of the timestamp.
    let check = signed(&receipt, &format!("0{now}"), "a-b").query;
    let check = format!("/callbacks/{APP}?{check}&echostr=7");
    assert_eq!(world.anonymous().get(&check).await.text, "7");
    let good = signed(&receipt, &now.to_string(), "aB1");
    assert_success(&post(&world, &good).await);
    assert_eq!(tenant.read(&sent).await["status"], "delivered");
}

async fn an_event_has_the_time_of_its_signature(mode: Mode) {
    for push_mode in [PushMode::Plain, PushMode::Safe] {
        let world = World::plan(mode).by_hand().start().await;
        let tenant = world.tenant("a").await;
        hearing(&world, &tenant, push_mode, PushFormat::Json).await;
        let sent = tenant.send_and_wait(APP, &message("o1")).await;
        let signed_now = |letter: &CallbackRequest, nonce: &str| {
            let now = now(&world).to_string();
            signed(letter, &now, nonce)
        };
        let far = [-86_400, -3_600, -301, 301, 3_600, 86_400, 3_153_600_000];
        for seconds in far {
            for event in [arrived(&sent), popup("o1")] {
                let letter = happened(&world, &event, seconds);
                let refused = post(&world, &signed_now(&letter, "abc")).await;
                assert_eq!(refused.status, 403, "{seconds} s: {refused:?}");
            }
        }
        assert_eq!(tenant.read(&sent).await["status"], "sent");
        let untimely = "wxgate_callbacks_refused_total{reason=\"untimely\"}";
        assert_eq!(counted(&world, untimely).await, 14);
        for (seconds, nonce) in [(-299, "d"), (299, "e")] {
            let letter = happened(&world, &arrived(&sent), seconds);
            assert_success(&post(&world, &signed_now(&letter, nonce)).await);
        }
        assert_eq!(tenant.read(&sent).await["status"], "delivered");
    }
}

async fn an_intercepted_signature_permits_no_other_event(mode: Mode) {
    let replicas = if mode == Mode::Production { 2 } else { 1 };
    let world = World::plan(mode).by_hand().replicas(replicas).start().await;
    let tenant = world.tenant("a").await;
    hearing(&world, &tenant, PushMode::Plain, PushFormat::Json).await;
    let mut sent = Vec::new();
    for openid in ["o1", "o2", "o3"] {
        sent.push(tenant.send_and_wait(APP, &message(openid)).await);
    }
    let first = letter(&world, &arrived(&sent[0]));
    assert_success(&post(&world, &first).await);
    let forged = |number: usize| CallbackRequest {
        query: first.query.clone(),
        ..letter(&world, &arrived(&sent[number]))
    };
    for replica in 0..replicas {
        let path = format!("/callbacks/{APP}?{}", first.query);
        let client = world.anonymous().at(world.url(replica));
        for body in [forged(1).body, forged(2).body, "{}".to_owned()] {
            let request = client.bare(reqwest::Method::POST, &path).body(body);
            let refused = crate::world::finish(request).await;
            refused.problem(403, "bad_signature");
        }
        // WeChat repeats the same callback.
        let request = client
            .bare(reqwest::Method::POST, &path)
            .body(first.body.clone());
        assert_success(&crate::world::finish(request).await);
    }
    assert_eq!(tenant.read(&sent[0]).await["status"], "delivered");
    for message in &sent[1..] {
        assert_eq!(tenant.read(message).await["status"], "sent");
    }
    let repeated =
        "wxgate_callbacks_total{event=\"subscribe_msg_sent_event\",outcome=\"repeated\"}";
    assert_eq!(counted(&world, repeated).await, 1);
    // The signature does not prove a callback for another app.
    post_to(&world, "wx00000000000000b2", &first)
        .await
        .problem(403, "bad_signature");
    // A callback with a new signature is accepted.
    assert_success(&post(&world, &letter(&world, &arrived(&sent[1]))).await);
    assert_eq!(tenant.read(&sent[1]).await["status"], "delivered");
}

/// Production mode only: only a separate database server can stop.
mod an_unanswered_callback_is_accepted_when_repeated {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::an_unanswered_callback_is_accepted_when_repeated().await;
    }
}

async fn an_unanswered_callback_is_accepted_when_repeated() {
    for push_mode in [PushMode::Plain, PushMode::Safe] {
        let world = World::plan(Mode::Production).breakable().start().await;
        let tenant = world.tenant("a").await;
        hearing(&world, &tenant, push_mode, PushFormat::Json).await;
        let sent = tenant.send_and_wait(APP, &message("o1")).await;
        // This callback makes the replica cache the app's keys before the database stops.
        pushes(&world, APP, settings(&world, push_mode, PushFormat::Json));
        assert_success(&post(&world, &letter(&world, &popup("o1"))).await);
        let receipt = letter(&world, &arrived(&sent));
        world.postgres().kill();
        for _ in 0..2 {
            post(&world, &receipt).await.problem(503, "overloaded");
        }
        world.postgres().restart();
        eventually("it is ready again", || async {
            let ready = world.anonymous().get("/readyz").await;
            (ready.status == 200).then_some(())
        })
        .await;
        for _ in 0..2 {
            assert_success(&post(&world, &receipt).await);
        }
        assert_eq!(tenant.read(&sent).await["status"], "delivered");
    }
}
