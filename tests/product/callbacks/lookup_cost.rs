//! The cost of callbacks without a valid signature, and how soon changed settings apply.

use serde_json::json;
use simulator::{PushFormat, PushMode, PushSettings};

use super::{
    APP, OTHER, TOKEN, assert_success, counted, hearing, letter, popup, post, post_to, pushes,
    settings,
};
use crate::world::{Mode, World, eventually};

/// Production mode only: a stopped database proves that a callback needs no lookup.
mod an_unsigned_callback_costs_no_database_query {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::an_unsigned_callback_costs_no_database_query().await;
    }
}

async fn an_unsigned_callback_costs_no_database_query() {
    let world = World::plan(Mode::Production)
        .by_hand()
        .breakable()
        .start()
        .await;
    let tenant = world.tenant("a").await;
    hearing(&world, &tenant, PushMode::Safe, PushFormat::Json).await;
    let good = letter(&world, &popup("o1"));
    let mut bogus = good.clone();
    bogus.query = bogus.query.replace("nonce=", "nonce=9");
    post(&world, &bogus).await.problem(403, "bad_signature");

    // Callbacks for many unknown apps: the gateway looks up only a few apps.
    let unknown = |number: u32| format!("wx{number:016x}");
    let mut answers = Vec::new();
    for number in 0..60 {
        answers.push(
            post_to(&world, &unknown(number), &bogus)
                .await
                .status
                .as_u16(),
        );
    }
    let looked_up = answers.iter().filter(|status| **status == 403).count();
    assert!((1..=20).contains(&looked_up), "{answers:?}");
    assert!(
        answers[looked_up..].iter().all(|status| *status == 429),
        "{answers:?}"
    );
    assert_eq!(
        counted(&world, "wxgate_callback_lookups_total").await,
        1 + u64::try_from(looked_up).unwrap()
    );

    world.postgres().kill();
    for _ in 0..40 {
        post(&world, &bogus).await.problem(403, "bad_signature");
    }
    for number in 100..140 {
        let answer = post_to(&world, &unknown(number), &bogus).await;
        answer.problem(429, "rate_limited");
    }
    // A callback with a valid signature needs the database.
    post(&world, &good).await.problem(503, "overloaded");
    world.postgres().restart();
    eventually("it is ready again", || async {
        let ready = world.anonymous().get("/readyz").await;
        (ready.status == 200).then_some(())
    })
    .await;
    // The callback is accepted although many bad callbacks came from the same address.
    assert_success(&post(&world, &good).await);
    // From another address, a callback may name an app that this replica does not know yet.
    let elsewhere = world.anonymous().calling_from([127, 0, 0, 9]);
    let path = format!("/callbacks/{OTHER}?{}", bogus.query);
    let request = elsewhere.bare(reqwest::Method::POST, &path).body("{}");
    let answer = crate::world::finish(request).await;
    answer.problem(403, "bad_signature");
}

both_modes!(changed_settings_apply_at_once);

/// The clock stands still, so no cached entry expires by age.
async fn changed_settings_apply_at_once(mode: Mode) {
    let replicas = if mode == Mode::Production { 2 } else { 1 };
    let world = World::plan(mode).by_hand().replicas(replicas).start().await;
    let tenant = world.tenant("a").await;
    let last = replicas - 1;
    let heard = async |push: &PushSettings, replica: usize| {
        pushes(&world, APP, push.clone());
        let letter = letter(&world, &popup("o1"));
        let path = format!("/callbacks/{APP}?{}", letter.query);
        let client = world.anonymous().at(world.url(replica));
        let request = client.bare(reqwest::Method::POST, &path).body(letter.body);
        crate::world::finish(request).await.status.as_u16()
    };
    let first = settings(&world, PushMode::Plain, PushFormat::Json);
    for replica in 0..replicas {
        assert_eq!(heard(&first, replica).await, 403, "there is no such app");
    }
    tenant.app_with(APP, json!({"callback_token": TOKEN})).await;
    assert_eq!(heard(&first, 0).await, 200, "where it was registered");
    let everywhere = async |push: &PushSettings, wanted: u16, what: &str| {
        eventually(what, || async {
            (heard(push, last).await == wanted).then_some(())
        })
        .await;
    };
    everywhere(&first, 200, "it is known everywhere").await;

    let second = PushSettings {
        token: "another".into(),
        ..first.clone()
    };
    assert_eq!(heard(&second, 0).await, 403);
    let path = format!("/v1/apps/{APP}");
    let change = json!({"callback_token": "another"});
    tenant.client.patch(&path, &change).await.expect(200);
    assert_eq!(heard(&second, 0).await, 200, "where it was changed");
    everywhere(&second, 200, "the new Token is known everywhere").await;

    tenant.client.delete(&path).await.expect(204);
    assert_eq!(heard(&second, 0).await, 403, "where it was removed");
    everywhere(&second, 403, "it is gone everywhere").await;
}
