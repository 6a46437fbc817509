//! Connections: accepted, bounded in time, ended gracefully.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// How long a new connection may be silent, or leave open which protocol it speaks.
const FIRST_BYTES: Duration = Duration::from_secs(10);
/// How long a request may take to send its head. Idle connections end with it too, so it is longer than the
/// minute after which load balancers close theirs: they must be the ones to hang up.
const HEAD: Duration = Duration::from_secs(75);
/// How HTTP/2 peers that went away are noticed.
const PING: Duration = Duration::from_secs(30);
/// The wait after the system refused a connection, most likely for want of file descriptors.
const BREATH: Duration = Duration::from_millis(50);
/// What an HTTP/2 connection begins with.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A listening server. Dropping it closes the listener and tells its connections to end.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    /// Told to all connections: answer what is under way, then close.
    goodbye: DropGuard,
    /// Told to all connections: close.
    abort: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// Serves `router` on `listener` from now on, in the background.
    pub(crate) fn start(listener: TcpListener, address: SocketAddr, router: Router) -> Self {
        let (goodbye, abort, tasks) = (
            CancellationToken::new(),
            CancellationToken::new(),
            TaskTracker::new(),
        );
        let doors = Doors {
            builder: builder(),
            router,
            goodbye: goodbye.clone(),
            abort: abort.clone(),
            tasks: tasks.clone(),
        };
        tasks.spawn(doors.accept(listener));
        tasks.close();
        Self {
            address,
            goodbye: goodbye.drop_guard(),
            abort,
            tasks,
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nothing more and waits for the requests under way, but not longer than `patience`. Returns whether
    /// all were answered.
    pub(crate) async fn stop(self, patience: Duration) -> bool {
        drop(self.goodbye);
        let answered = tokio::time::timeout(patience, self.tasks.wait())
            .await
            .is_ok();
        self.abort.cancel();
        self.tasks.wait().await;
        answered
    }
}

fn builder() -> Arc<Builder<TokioExecutor>> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    Arc::new(builder)
}

struct Doors {
    builder: Arc<Builder<TokioExecutor>>,
    router: Router,
    goodbye: CancellationToken,
    abort: CancellationToken,
    tasks: TaskTracker,
}

impl Doors {
    async fn accept(self, listener: TcpListener) {
        while let Some(accepted) = self.goodbye.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, _)) => {
                    let talk = self.talk(stream);
                    self.tasks
                        .spawn(self.abort.clone().run_until_cancelled_owned(talk));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; if this goes on, raise the limit of open files");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }

    /// One connection, from its first byte to its end.
    fn talk(&self, stream: TcpStream) -> impl Future<Output = ()> + use<> {
        let (builder, goodbye) = (self.builder.clone(), self.goodbye.clone());
        let service = TowerToHyperService::new(self.router.clone());
        async move {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection keeps Nagle's delay");
            }
            let spoken = tokio::time::timeout(FIRST_BYTES, first_bytes(&stream));
            if !matches!(goodbye.run_until_cancelled(spoken).await, Some(Ok(true))) {
                return;
            }
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = goodbye.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(error, "a connection broke");
            }
        }
    }
}

/// Waits until the protocol is known, which the server below would do without a limit. False: the peer hung up.
async fn first_bytes(stream: &TcpStream) -> bool {
    let mut start = [0; HTTP2.len()];
    loop {
        match stream.peek(&mut start).await {
            Ok(0) | Err(_) => return false,
            Ok(read) if read == HTTP2.len() || !HTTP2.starts_with(&start[..read]) => return true,
            // What is there stays readable: look again a little later.
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn start(router: Router) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Server::start(listener, address, router)
    }

    async fn ask(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_stop_lets_requests_finish_and_does_not_wait_for_idle_or_silent_connections() {
        let (entered, mut seen) = tokio::sync::mpsc::channel::<()>(1);
        let (leave, left) = tokio::sync::watch::channel(false);
        let slow = async move || {
            entered.send(()).await.unwrap();
            left.clone().wait_for(|left| *left).await.unwrap();
            "done"
        };
        let server = start(Router::new().route("/", get(slow))).await;
        let address = server.address();
        let _silent = TcpStream::connect(address).await.unwrap();
        let asking = tokio::task::JoinSet::from_iter([ask(address)]);
        seen.recv().await.unwrap();
        let stop = server.stop(Duration::from_secs(30));
        let finish = async {
            tokio::task::yield_now().await;
            leave.send(true).unwrap();
        };
        let (answered, ()) = tokio::join!(stop, finish);
        assert!(answered);
        assert!(asking.join_all().await[0].ends_with("done"));
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_stop_does_not_wait_for_ever() {
        let server = start(Router::new().route("/", get(std::future::pending::<()>))).await;
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!server.stop(Duration::from_millis(20)).await);
    }
}
