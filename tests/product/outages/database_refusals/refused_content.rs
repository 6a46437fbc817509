//! Records that the database refuses because of their content. Refused records delay no other record, and the
//! gateway keeps such records until the database takes them.

use std::time::Duration;

use serde_json::json;
use simulator::{Effect, Fault};

use super::{APP, metric};
use crate::world::{Mode, World, eventually, message_with};

const SUBSCRIBE: &str = "/cgi-bin/message/subscribe/send";

both_modes!(an_answer_with_unusual_characters_is_recorded);

mod a_refused_record_delays_no_other_record {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::a_refused_record_delays_no_other_record().await;
    }
}

mod refused_texts_are_left_out_of_the_record {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::refused_texts_are_left_out_of_the_record().await;
    }
}

/// The gateway writes WeChat's error texts into text columns, and PostgreSQL takes no U+0000 there.
async fn an_answer_with_unusual_characters_is_recorded(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let odd = |errcode| Effect::Errcode {
        errcode,
        errmsg: Some("odd \u{0} words \u{1F600}\u{FFFF}".into()),
    };
    for (errcode, status) in [(40003, "failed"), (45011, "queued"), (48001, "queued")] {
        world
            .wechat()
            .add_fault(Fault::next(1, odd(errcode)).for_path(SUBSCRIBE));
        let openid = format!("o{errcode}");
        let sent = tenant.send(APP, &message_with(&openid, json!({}))).await;
        let tried = eventually("it is recorded", || async {
            let now = tenant.read(&sent).await;
            (now["attempts"][0]["errcode"] == errcode).then_some(now)
        })
        .await;
        assert_eq!(tried["status"], status, "{tried}");
        tenant
            .client
            .post(&format!("/v1/apps/{APP}/verify"), &json!({}))
            .await
            .expect(200);
    }
}

/// Refuses every record of a message to a user whose id begins with `poison`, as a constraint does.
const REFUSE: &str = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '23514'; END $$; \
     CREATE TRIGGER refuse BEFORE UPDATE ON message FOR EACH ROW WHEN (OLD.status = 'sending' AND NEW.status <> 'sending' AND NEW.touser LIKE 'poison%') EXECUTE FUNCTION refuse()";

/// The database refuses three of sixty records for longer than their leases, while replicas run that would handle ended
/// leases.
async fn a_refused_record_delays_no_other_record() {
    let plan = World::plan(Mode::Production).by_hand().replicas(2);
    let world = plan.breakable().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    world.execute(REFUSE);
    world.wechat().set_latency(Duration::from_millis(300));
    let (mut poison, mut plain) = (Vec::new(), Vec::new());
    for number in 0..60 {
        let is_poison = number % 20 == 7;
        let openid = format!("{}{number}", if is_poison { "poison" } else { "o" });
        let more = json!({"on_uncertain": "retry"});
        let sent = tenant.send(APP, &message_with(&openid, more)).await;
        if is_poison { &mut poison } else { &mut plain }.push(sent);
    }
    for message in &plain {
        let ended = tenant.wait_ended(message).await;
        assert_eq!(ended["status"], "sent", "{ended}");
    }
    // Nothing else waits for the refused records: the replica accepts and sends new messages.
    eventually("it is ready", || async {
        let ready = tenant.client.get("/readyz").await;
        (ready.status == 200).then_some(())
    })
    .await;
    let later = tenant
        .send_and_wait(APP, &message_with("later", json!({})))
        .await;
    assert_eq!(later["status"], "sent", "{later}");
    for _ in 0..12 {
        world.pass(Duration::from_secs(20));
        let later = tenant
            .send_and_wait(APP, &message_with("later", json!({})))
            .await;
        assert_eq!(later["status"], "sent", "{later}");
    }
    for message in &poison {
        assert_eq!(tenant.read(message).await["status"], "sending");
    }
    let waiting = metric(&tenant, "wxgate_answers_waiting")
        .await
        .unwrap_or_default()
        + metric(&world.at(1, &tenant), "wxgate_answers_waiting")
            .await
            .unwrap_or_default();
    assert_eq!(waiting, poison.len());

    world.execute("DROP FUNCTION refuse CASCADE");
    for message in &poison {
        let ended = tenant.wait_ended(message).await;
        assert_eq!(ended["status"], "sent", "{ended}");
        assert_eq!(
            ended["attempts"].as_array().map(Vec::len),
            Some(1),
            "{ended}"
        );
    }
}

/// The gateway writes a record without its texts when the texts are the cause of a refusal.
async fn refused_texts_are_left_out_of_the_record() {
    let world = World::plan(Mode::Production).breakable().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    world.execute(
        "ALTER TABLE message ADD CONSTRAINT no_unicorns CHECK (attempts NOT LIKE '%unicorn%' AND COALESCE(failure_detail, '') NOT LIKE '%unicorn%')",
    );
    let unicorn = Effect::Errcode {
        errcode: 40003,
        errmsg: Some("a unicorn".into()),
    };
    world
        .wechat()
        .add_fault(Fault::next(1, unicorn).for_path(SUBSCRIBE));
    let ended = tenant
        .send_and_wait(APP, &message_with("o1", json!({})))
        .await;
    assert_eq!(ended["status"], "failed", "{ended}");
    assert_eq!(ended["attempts"][0]["errcode"], 40003, "{ended}");
    assert_eq!(
        ended["attempts"][0]["errmsg"],
        serde_json::Value::Null,
        "{ended}"
    );
}
