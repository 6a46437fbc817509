//! Replicas that start and stop while callers continue.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{Arc, Mutex, PoisonError},
};

use domain::{app::AppId, message::Request};
use futures::stream::{self, StreamExt};
use serde_json::{Map, Value, json};

use super::{
    TEMPLATE, Tenant, World,
    program::wxgate,
    replica::{Place, Replica},
};

/// The number of messages that are submitted concurrently, without HTTP.
const AT_ONCE: usize = 512;

/// The URLs of the world's replicas at this moment. Clones share one list.
#[derive(Clone, Default)]
pub(super) struct Roster(Arc<Mutex<Vec<String>>>);

impl Roster {
    /// Replaces the list with the URLs of these replicas.
    pub(super) fn enter(&self, replicas: &[Replica]) {
        let urls = replicas.iter().map(|replica| replica.url().to_owned());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = urls.collect();
    }

    /// The URL of one listed replica; consecutive values of `turn` rotate over the replicas.
    pub(super) fn pick(&self, turn: usize) -> Option<String> {
        let urls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        urls.get(turn % urls.len().max(1)).cloned()
    }
}

impl World {
    /// Ends the longest-running gateway with `kill -9`. The roster keeps the URL until the next replica is added, so
    /// callers notice the kill by failed requests.
    pub(crate) fn kill_oldest(&mut self) {
        self.replicas.remove(0).kill();
    }

    /// Sends SIGTERM to the longest-running gateway, which runs in a separate process. Returns the exit code.
    pub(crate) async fn terminate_oldest(&mut self) -> Option<i32> {
        self.replicas.remove(0).wait_terminated().await
    }

    /// Starts a gateway process with a clock `seconds` off, and waits until the process answers, ready or not.
    pub(crate) async fn add_replica_off(&mut self, seconds: i32) {
        self.set_clock(seconds);
        let place = Place {
            clock: Some(self.clock_file()),
            ..self.place()
        };
        self.replicas.push(Replica::process(&place).await);
        self.roster.enter(&self.replicas);
    }

    /// Sets the offset of the gateways that [`World::add_replica_off`] started.
    pub(crate) fn set_clock(&self, seconds: i32) {
        let whole = self.folder().join("clock.new");
        std::fs::write(&whole, format!("{seconds:+}\n")).expect("a file");
        std::fs::rename(whole, self.clock_file()).expect("a file");
    }

    fn clock_file(&self) -> PathBuf {
        self.folder().join("clock")
    }

    /// The log of the gateway with this number, which runs in a separate process.
    pub(crate) fn said(&self, replica: usize) -> String {
        self.replicas[replica].said()
    }

    /// Runs SQL on the database of production mode.
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.postgres().sql(&self.home.database_url, sql)
    }

    /// Runs this SQL in an open transaction, which holds the locks until the guard is dropped.
    pub(crate) fn hold(&self, sql: &str) -> Held {
        Held(self.postgres().hold(&self.home.database_url, sql))
    }

    /// The folder for the logs of gateways in separate processes, and for the database in embedded mode.
    pub(crate) fn folder(&self) -> &Path {
        self.home.folder()
    }

    /// A dump of the production mode database, as SQL.
    pub(crate) fn database_dump(&self) -> String {
        self.home.postgres().dump(&self.home.direct_url)
    }

    /// A `wxgate` command with these arguments, for this database and this WeChat.
    pub(crate) fn wxgate(&self, arguments: &[&str]) -> Command {
        let mut command = wxgate(self.home.folder());
        self.place().tell(&mut command);
        command.args(arguments);
        command
    }

    /// Submits `count` messages of the tenant's app, each to a different user, directly to the first gateway's engine.
    /// A backlog does not need HTTP.
    pub(crate) async fn hand_in(&self, tenant: &Tenant, appid: &str, count: usize) {
        let delivery = self.replicas[0].gateway().delivery();
        let tenant = tenant.id.parse().expect("a tenant's id");
        let appid = AppId::parse(appid).expect("an appid");
        let hand_in = |number: usize| {
            let request = Request {
                touser: format!("backlog{number}"),
                template_id: TEMPLATE.to_owned(),
                data: Some(data()),
                ..Request::default()
            };
            let draft = request.check(self.now()).expect("a good message");
            delivery.submit(tenant, &appid, draft, None)
        };
        let mut accepted = stream::iter(0..count)
            .map(hand_in)
            .buffer_unordered(AT_ONCE);
        while let Some(accepted) = accepted.next().await {
            accepted.expect("an accepted message");
        }
    }

    /// Stops all gateways in good order.
    pub(crate) async fn stop_all(&mut self) {
        while !self.replicas.is_empty() {
            self.stop_replica().await;
        }
    }
}

/// Locks in the database, held by another program.
pub(crate) struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn data() -> Map<String, Value> {
    Map::from_iter([("thing1".to_owned(), json!({"value": "保温杯"}))])
}
