//! Requests as the routes see them: with the client's address, and a body that comes in time or not at all.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use api::SlowBody;
use axum::{
    BoxError, Router,
    body::{Body, HttpBody},
    extract::Request,
    response::Response,
    routing::future::RouteFuture,
};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tenancy::ClientAddress;
use tokio::time::Sleep;
use tower::Service;

use super::Doorway;

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
    type Future = RouteFuture<Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let patience = self.doorway.patience.body;
        let mut request = request.map(|body| {
            if body.is_end_stream() {
                Body::empty()
            } else {
                Body::new(Timed {
                    body,
                    deadline: Box::pin(tokio::time::sleep(patience)),
                })
            }
        });
        let client = self.doorway.proxies.client(self.peer, request.headers());
        request.extensions_mut().insert(ClientAddress(client));
        self.router.call(request)
    }
}

/// A body that breaks off when its time is over.
struct Timed<B> {
    body: B,
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
        let frame = Pin::new(&mut self.body).poll_frame(context);
        frame.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
