//! A database that answers and refuses: what callers get meanwhile, and that the gateway loses no answer of WeChat.

mod full_disk;
mod hot_standby;
mod refused_content;
mod temporary_refusals;

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Mode, Tenant, World, eventually, finish, message, message_with, until};

const APP: &str = "wx00000000000000a1";
/// The number of messages of each kind that are in flight when the database begins to refuse.
const EACH: usize = 10;
/// The delay of WeChat's answers: the database must have begun to refuse before the answers arrive.
const LATENCY: Duration = Duration::from_secs(4);

/// Three replicas on a database of their own, with messages in flight.
struct Scene {
    world: World,
    replicas: Vec<Tenant>,
    messages: Vec<Value>,
}

impl Scene {
    /// Starts ten messages with `on_uncertain` "hold" and ten with "retry". WeChat has taken all of them and answered
    /// none.
    async fn start(is_switched: bool) -> Self {
        let plan = World::plan(Mode::Production).by_hand().replicas(3);
        let plan = plan.wechat_timeout(LATENCY * 4);
        let plan = if is_switched {
            plan.switched()
        } else {
            plan.breakable()
        };
        let world = plan.start().await;
        let tenant = world.tenant("a").await;
        tenant.app(APP).await;
        let replicas: Vec<_> = (0..3).map(|replica| world.at(replica, &tenant)).collect();
        for (number, replica) in replicas.iter().enumerate() {
            // Each replica has the app's token, and its caller's token.
            let first = message_with(&format!("first{number}"), json!({}));
            replica.send_and_wait(APP, &first).await;
        }
        let mut scene = Self {
            world,
            replicas,
            messages: Vec::new(),
        };
        scene.world.wechat().set_latency(LATENCY);
        scene.messages = scene.send().await;
        scene
    }

    /// Sends twenty messages and waits until WeChat has them.
    async fn send(&self) -> Vec<Value> {
        let before = self.world.wechat().sent(APP).len();
        let posts = (0..2 * EACH).map(|number| async move {
            let wanted = if number % 2 == 0 { "hold" } else { "retry" };
            let more = json!({"on_uncertain": wanted});
            let message = message_with(&format!("o{before}-{number}"), more);
            self.replicas[number % 3].send(APP, &message).await
        });
        let messages = join_all(posts).await;
        until("WeChat has them", || {
            self.world.wechat().sent(APP).len() == before + messages.len()
        })
        .await;
        messages
    }

    /// Asserts that every replica reports the refusals to callers, balancer and operators, and keeps the answers.
    async fn is_refused(&self) {
        for replica in &self.replicas {
            eventually("a caller hears 503", || async {
                let path = format!("/v1/apps/{APP}/messages");
                let answer = replica.client.post(&path, &message("nobody")).await;
                let is_refused = answer.status != 202;
                is_refused.then(|| answer.problem(503, "overloaded"))
            })
            .await;
            eventually("it is not ready", || async {
                let ready = finish(replica.client.bare(Method::GET, "/readyz")).await;
                (ready.status == 503).then_some(())
            })
            .await;
            eventually("the metrics say it", || async {
                (metric(replica, "wxgate_database_up").await == Some(0)).then_some(())
            })
            .await;
        }
        eventually("all answers wait", || async {
            let waiting = self
                .replicas
                .iter()
                .map(|replica| metric(replica, "wxgate_answers_waiting"));
            let waiting: usize = join_all(waiting).await.into_iter().flatten().sum();
            (waiting >= self.messages.len()).then_some(())
        })
        .await;
    }

    /// Waits until the refusal has lasted longer than the leases. The database uses real time, the leases the clock set
    /// by hand.
    async fn outlasts_the_leases(&self) {
        eventually("the database has taken no write for some seconds", || async {
            let age = "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::BIGINT - beat_at > 3500 FROM heartbeat";
            (self.world.execute(age) == "t").then_some(())
        })
        .await;
        self.world.pass(Duration::from_mins(3));
    }

    /// The database takes writes again: every answer is recorded unchanged, no message was sent twice, and every
    /// replica serves without an error.
    async fn heals(&self) {
        self.world.wechat().set_latency(Duration::ZERO);
        for replica in &self.replicas {
            eventually("it is ready", || async {
                let ready = finish(replica.client.bare(Method::GET, "/readyz")).await;
                (ready.status == 200).then_some(())
            })
            .await;
        }
        for message in &self.messages {
            let ended = self.replicas[0].wait_ended(message).await;
            assert_eq!(ended["status"], "sent", "{ended}");
            let attempts = ended["attempts"].as_array().expect("attempts");
            assert_eq!(attempts.len(), 1, "sent once: {ended}");
            assert_eq!(attempts[0]["outcome"], "accepted", "{ended}");
        }
        for round in 0..20 {
            let posts = self
                .replicas
                .iter()
                .enumerate()
                .map(|(number, replica)| async move {
                    let openid = format!("after{round}-{number}");
                    replica.send(APP, &message_with(&openid, json!({}))).await
                });
            join_all(posts).await;
        }
        let duplicates = self.world.wechat().duplicates(APP);
        assert!(duplicates.markers.is_empty(), "{:?}", duplicates.markers);
        let waiting = metric(&self.replicas[0], "wxgate_answers_waiting").await;
        assert_eq!(waiting, Some(0));
        self.replicas[0].wait_count(APP, "sending", 0).await;
        self.replicas[0].wait_count(APP, "queued", 0).await;
    }
}

/// The value of a metric of a replica; `None` if there is no such metric.
async fn metric(replica: &Tenant, name: &str) -> Option<usize> {
    let request = replica.client.bare(Method::GET, "/metrics");
    let metrics = finish(request).await.text;
    let mut lines = metrics.lines();
    lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}
