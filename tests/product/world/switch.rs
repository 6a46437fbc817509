//! A TCP proxy with a target that can change, to test failovers of a server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::{Plan, World};

/// A TCP port of 127.0.0.1 that forwards all connections to another port. Dropping the switch stops the proxy.
pub(crate) struct Switch {
    port: u16,
    target: Arc<AtomicU16>,
    /// A change of this value ends all connections.
    turns: watch::Sender<()>,
    _server: JoinSet<()>,
}

impl Switch {
    /// Starts a switch that leads to `target`.
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let target = Arc::new(AtomicU16::new(target));
        let turns = watch::Sender::new(());
        let mut server = JoinSet::new();
        server.spawn(serve(listener, target.clone(), turns.clone()));
        Self {
            port,
            target,
            turns,
            _server: server,
        }
    }

    /// The port on which the switch listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Cuts all connections and leads new connections to `target`.
    pub(crate) fn lead_to(&self, target: u16) {
        self.target.store(target, Ordering::SeqCst);
        self.turns.send_replace(());
    }
}

impl Plan {
    /// The time limit for an answer of WeChat to a gateway in this process.
    pub(crate) fn wechat_timeout(mut self, timeout: Duration) -> Self {
        self.wechat_timeout = Some(timeout);
        self
    }
}

impl World {
    /// The switch between the gateways of a switched world and PostgreSQL.
    pub(crate) fn switch(&self) -> &Switch {
        let switch = self.home.switch.as_ref();
        switch.expect("a switch: Plan::switched")
    }

    /// The URL of the database in PostgreSQL itself, without a switch.
    pub(crate) fn direct_url(&self) -> &str {
        &self.home.direct_url
    }

    /// Runs SQL as the superuser in the database of a world with its own PostgreSQL server. Returns the output.
    pub(crate) fn execute(&self, sql: &str) -> String {
        let postgres = self.postgres();
        let name = self.direct_url().rsplit('/').next().unwrap_or_default();
        postgres.execute(&postgres.url(name), sql)
    }
}

async fn serve(listener: TcpListener, target: Arc<AtomicU16>, turns: watch::Sender<()>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((mut near, _)) = listener.accept().await else {
            continue;
        };
        let mut turn = turns.subscribe();
        let target = target.load(Ordering::SeqCst);
        connections.spawn(async move {
            if let Ok(mut far) = TcpStream::connect(("127.0.0.1", target)).await {
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                    _ = turn.changed() => {}
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}
