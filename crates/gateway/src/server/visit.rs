//! Requests as the routes see them: with the client's address, and a body that comes in time or not at all.
//!
//! What a route leaves unread of a body is read before its answer goes out, as far as it is little: HTTP/1.1 has to close
//! the connection otherwise, and a client that sends its next request on it, because it was told to keep it, finds it gone.

use std::{
    convert::Infallible,
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use api::SlowBody;
use axum::{
    BoxError, Router,
    body::{Body, HttpBody},
    extract::Request,
    response::Response,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use tenancy::ClientAddress;
use tokio::time::Sleep;
use tower::Service;

use super::Doorway;

/// How much of a body is read that a route has left, and for how long.
const REST: usize = 64 << 10;
const REST_PATIENCE: Duration = Duration::from_secs(1);

/// The requests of one connection.
#[derive(Clone)]
pub(super) struct Visits {
    pub(super) router: Router,
    pub(super) doorway: Arc<Doorway>,
    pub(super) peer: SocketAddr,
}

impl<B> Service<Request<B>> for Visits
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let patience = self.doorway.patience.body;
        let (head, body) = request.into_parts();
        let body = (!body.is_end_stream()).then(|| Shared(Arc::new(Mutex::new(body))));
        let seen = match &body {
            None => Body::empty(),
            Some(body) => Body::new(Timed {
                body: body.clone(),
                deadline: Box::pin(tokio::time::sleep(patience)),
            }),
        };
        let mut request = Request::from_parts(head, seen);
        let client = self.doorway.proxies.client(self.peer, request.headers());
        request.extensions_mut().insert(ClientAddress(client));
        let answered = self.router.call(request);
        Box::pin(async move {
            let response = answered.await;
            if let Some(body) = body {
                // Where this takes too long the connection is closed, as it would have been.
                let _ = tokio::time::timeout(REST_PATIENCE, body.read_rest()).await;
            }
            response
        })
    }
}

/// A body that can still be read when its route has done with it.
struct Shared<B>(Arc<Mutex<B>>);

impl<B> Clone for Shared<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> Shared<B> {
    fn lock(&self) -> MutexGuard<'_, B> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_frame(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut *self.lock()).poll_frame(context)
    }

    async fn read_rest(&self) {
        let much = |size: u64| usize::try_from(size).is_ok_and(|size| size > REST);
        if self.lock().is_end_stream() || much(self.lock().size_hint().lower()) {
            return;
        }
        let mut read = 0;
        poll_fn(|context| {
            loop {
                match ready!(self.poll_frame(context)) {
                    Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                    Some(Err(_)) | None => return Poll::Ready(()),
                }
                if read > REST {
                    return Poll::Ready(());
                }
            }
        })
        .await;
    }
}

/// A body that breaks off when its time is over.
struct Timed<B> {
    body: Shared<B>,
    deadline: Pin<Box<Sleep>>,
}

impl<B> HttpBody for Timed<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(SlowBody.into())));
        }
        let frame = self.body.poll_frame(context);
        frame.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.lock().size_hint()
    }
}
