//! Refusals that end: read-only, no rights, locked tables, and other errors of PostgreSQL.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::{APP, Scene, metric};
use crate::world::{Mode, World, eventually, finish, message_with};

macro_rules! production {
    ($($scenario:ident),* $(,)?) => {$(
        mod $scenario {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn production() {
                super::$scenario().await;
            }
        }
    )*};
}

production!(
    a_read_only_database_loses_no_answer,
    a_session_that_was_born_read_only_is_replaced,
    rights_that_are_taken_away_lose_no_answer,
    a_locked_table_loses_no_answer,
    a_frozen_database_loses_no_answer,
    a_restarted_database_loses_no_answer,
    whatever_the_database_says_no_answer_is_lost,
);

/// What a managed PostgreSQL does in a failover or on a nearly full disk (25006). Reads go on.
async fn a_read_only_database_loses_no_answer() {
    let scene = Scene::start(false).await;
    let postgres = scene.world.postgres();
    postgres.set("default_transaction_read_only", "on");
    scene.is_refused().await;
    let read = scene.replicas[1].read(&scene.messages[0]).await;
    assert_eq!(read["status"], "sending", "{read}");
    scene.outlasts_the_leases().await;
    postgres.reset("default_transaction_read_only");
    scene.heals().await;
}

/// A session keeps a setting of the database from the session's start to its end, even if the setting changes.
async fn a_session_that_was_born_read_only_is_replaced() {
    let scene = Scene::start(false).await;
    let name = scene.world.execute("SELECT current_database()");
    let alter = |what: &str| {
        let postgres = scene.world.postgres();
        postgres.execute(
            &postgres.url("postgres"),
            &format!("ALTER DATABASE {name} {what}"),
        );
    };
    alter("SET default_transaction_read_only = on");
    scene
        .world
        .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'wxgate'");
    scene.is_refused().await;
    scene.outlasts_the_leases().await;
    alter("RESET default_transaction_read_only");
    scene.heals().await;
}

/// SQLSTATE 42501.
async fn rights_that_are_taken_away_lose_no_answer() {
    let scene = Scene::start(false).await;
    scene
        .world
        .execute("REVOKE INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public FROM wxgate");
    scene.is_refused().await;
    scene.outlasts_the_leases().await;
    scene
        .world
        .execute("GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO wxgate");
    scene.heals().await;
}

/// SQLSTATE 55P03, as an ALTER TABLE of another session causes it.
async fn a_locked_table_loses_no_answer() {
    let scene = Scene::start(false).await;
    let postgres = scene.world.postgres();
    let name = scene.world.execute("SELECT current_database()");
    postgres.set("lock_timeout", "200ms");
    let lock = postgres.lock_table(&postgres.url(&name), "message");
    scene.is_refused().await;
    scene.outlasts_the_leases().await;
    drop(lock);
    scene.heals().await;
}

/// Connections stay open, and the database answers nothing.
async fn a_frozen_database_loses_no_answer() {
    let scene = Scene::start(false).await;
    scene.world.postgres().freeze();
    for replica in &scene.replicas {
        eventually("it is not ready", || async {
            let ready = finish(replica.client.bare(Method::GET, "/readyz")).await;
            (ready.status == 503).then_some(())
        })
        .await;
        let up = metric(replica, "wxgate_database_up").await;
        assert_eq!(up, Some(0));
    }
    scene.world.pass(Duration::from_mins(3));
    scene.world.postgres().thaw();
    scene.heals().await;
}

async fn a_restarted_database_loses_no_answer() {
    let scene = Scene::start(false).await;
    scene.world.postgres().stop();
    scene.is_refused().await;
    scene.world.pass(Duration::from_mins(3));
    scene.world.postgres().restart();
    scene.heals().await;
}

/// SQLSTATEs that no list of outages names. Tests in `store` cover the other ones, one by one.
const STATES: [&str; 8] = [
    "0A000", "25P03", "26000", "42501", "54000", "58030", "F0000", "XX001",
];

/// The statement that records an answer fails with each of these states in turn.
async fn whatever_the_database_says_no_answer_is_lost() {
    let world = World::plan(Mode::Production).breakable().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    // A sequence keeps its increments when a transaction rolls back.
    world.execute("CREATE SEQUENCE refusals; GRANT USAGE ON SEQUENCE refusals TO PUBLIC");
    for state in STATES {
        world.execute(&format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('refusals'); RAISE EXCEPTION 'refused' USING ERRCODE = '{state}'; END $$; \
             CREATE TRIGGER refuse BEFORE UPDATE ON message FOR EACH ROW WHEN (OLD.status = 'sending') EXECUTE FUNCTION refuse()"
        ));
        let kept = tenant.send(APP, &message_with(state, json!({}))).await;
        eventually("its answer waits", || async {
            (metric(&tenant, "wxgate_answers_waiting").await == Some(1)).then_some(())
        })
        .await;
        // The database has refused the record at least once.
        eventually("the replica is not ready", || async {
            let ready = tenant.client.get("/readyz").await;
            (ready.status == 503).then_some(())
        })
        .await;
        // The gateway accepts the message, and no worker claims the message while an answer waits.
        let next = tenant
            .send(APP, &message_with(&format!("next-{state}"), json!({})))
            .await;
        let refusals = || {
            world
                .execute("SELECT last_value FROM refusals")
                .parse::<u64>()
        };
        let since = refusals().unwrap();
        eventually("the answer was refused three more times", || async {
            (refusals().unwrap() >= since + 3).then_some(())
        })
        .await;
        assert_eq!(tenant.read(&next).await["status"], "queued", "{state}");
        world.execute("DROP FUNCTION refuse CASCADE");
        for message in [&kept, &next] {
            let ended = tenant.wait_ended(message).await;
            assert_eq!(ended["status"], "sent", "{state}: {ended}");
        }
    }
}
