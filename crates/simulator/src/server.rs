//! The HTTP server, with connections that can be reset and answers that can be delayed.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::calls::{self, Ending, ParsedCall};
use crate::control::Control;
use crate::control_api;
use crate::endpoint::CallEndpoint;
use crate::faults::Shape;
use crate::world::World;

/// The greatest body in bytes. Larger bodies answer 47001.
const BODY_LIMIT: usize = 4 << 20;
const WECHAT_JSON: &str = "application/json; encoding=utf-8";

/// Serves until `stop` is cancelled and the open calls are answered.
pub(crate) async fn serve(
    listener: TcpListener,
    world: Arc<World>,
    stop: CancellationToken,
) -> io::Result<()> {
    let site = Site {
        control: Control::new(Arc::clone(&world)),
        world,
        stop: stop.clone(),
    };
    let router = Router::new().fallback(answer).with_state(site);
    axum::serve(
        ResettableListener(listener),
        router.into_make_service_with_connect_info::<Peer>(),
    )
    .with_graceful_shutdown(stop.cancelled_owned())
    .await
}

#[derive(Clone)]
struct Site {
    world: Arc<World>,
    control: Control,
    stop: CancellationToken,
}

async fn answer(
    State(site): State<Site>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    // A body above the limit is replaced by one that is not JSON.
    let body = to_bytes(body, BODY_LIMIT)
        .await
        .unwrap_or_else(|_| "?".into());
    let path = parts.uri.path();
    let query = parts.uri.query().unwrap_or("");
    if path == control_api::PREFIX {
        let page = control_api::PAGE.to_owned();
        return respond(StatusCode::OK, "text/plain; charset=utf-8", page);
    }
    if path.starts_with(control_api::PREFIX) {
        let (status, json) = control_api::answer(&site.control, &parts.method, path, query, &body);
        return respond(status, "application/json", json);
    }
    let served = calls::serve(
        &site.world,
        &ParsedCall {
            endpoint: CallEndpoint::of_path(path),
            path,
            is_get: parts.method == Method::GET,
            query,
            body: &body,
            ip: peer.address.ip().to_canonical(),
            now: site.world.clock.now_ms(),
        },
    );
    if !served.delay.is_zero() {
        wait(served.delay, &site.stop).await;
    }
    drop(served.busy);
    match served.ending {
        Ending::Odd(json, Shape::TextPlain) => respond(StatusCode::OK, "text/plain", json),
        Ending::Json(json) | Ending::Odd(json, _) => respond(StatusCode::OK, WECHAT_JSON, json),
        Ending::Html(status, page) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            respond(status, "text/html", page)
        }
        Ending::Break => peer.cut(),
        Ending::Hang => {
            site.stop.cancelled().await;
            peer.cut()
        }
    }
}

async fn wait(delay: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        () = stop.cancelled() => {}
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The listening socket.
struct ResettableListener(TcpListener);

impl Listener for ResettableListener {
    type Io = ResettableStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (ResettableStream, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok((stream, address)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "a simulated connection keeps Nagle's delay");
                    }
                    let severed = Arc::default();
                    return (ResettableStream { stream, severed }, address);
                }
                Err(error) => {
                    tracing::warn!(%error, "the simulator cannot accept a connection; raise the open-file limit");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// The client's address, and the switch that resets the client's connection.
#[derive(Clone)]
struct Peer {
    address: SocketAddr,
    severed: Arc<AtomicBool>,
}

impl Peer {
    /// Resets the connection. The connection then refuses to write the returned response.
    fn cut(&self) -> Response {
        self.severed.store(true, Ordering::Release);
        Response::new(Body::empty())
    }
}

impl Connected<IncomingStream<'_, ResettableListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, ResettableListener>) -> Self {
        Self {
            address: *stream.remote_addr(),
            severed: Arc::clone(&stream.io().severed),
        }
    }
}

/// A connection. Once `severed`, a connection writes nothing more and closes with a reset, so that no client can take
/// the bytes received so far for an answer.
struct ResettableStream {
    stream: TcpStream,
    severed: Arc<AtomicBool>,
}

impl ResettableStream {
    fn check(&self) -> io::Result<()> {
        if self.severed.load(Ordering::Acquire) {
            // Without this the kernel would close the connection with FIN; on a failure the break is only gentler.
            let _ = self.stream.set_zero_linger();
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl AsyncRead for ResettableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for ResettableStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
