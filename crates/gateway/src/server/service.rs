//! Requests as the routes see them: with the client's address, with a limit on simultaneous requests until one is
//! proven, and with a body that has a time limit.
//!
//! Before an answer is sent, the server reads the rest of the body that the route has left, if the rest is small.
//! Otherwise HTTP/1.1 has to close the connection: the answer announces the close, and the connection is [closed in
//! stages](super::lingering_close).

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    BoxError, Router,
    body::{Body, HttpBody},
    extract::Request,
    http::{HeaderValue, StatusCode, Version, header, request::Parts, uri::Authority},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use tenancy::{ClientAddress, Network, ProvenMarker, UnprovenLimitReached};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::{
    FIELDS, ServerOptions,
    bodies::{RequestBody, ResponseBody, SharedBody},
    client_limits::{ClientLimits, TakenUnits},
    connection::Connection,
};

/// The memory of one header field in addition to its bytes.
const FIELD: usize = 64;

/// The service that handles the requests of one connection.
#[derive(Clone)]
pub(super) struct ConnectionService {
    pub(super) router: Router,
    pub(super) doorway: Arc<ServerOptions>,
    /// The bytes of all unproven requests.
    pub(super) unproven: Arc<ClientLimits>,
    pub(super) connection: Arc<Connection>,
    /// Cancelled when clients should connect to another replica.
    pub(super) farewell: CancellationToken,
}

impl<B> Service<Request<B>> for ConnectionService
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
        Box::pin(self.clone().answer(request))
    }
}

impl ConnectionService {
    async fn answer<B>(mut self, request: Request<B>) -> Result<Response, Infallible>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let version = head.version;
        let work = self.connection.activity.work();
        let body = (!body.is_end_stream()).then(|| SharedBody::new(body));
        let (mut response, place) = self.respond(head, body.clone()).await;
        let is_left = match body {
            Some(body) => !body.read_rest().await,
            None => false,
        };
        if !is_left {
            self.connection.finish();
        }
        // HTTP/2 resets one stream only, and announces the closing of the listener by GOAWAY.
        if version <= Version::HTTP_11 && (is_left || self.farewell.is_cancelled()) {
            let headers = response.headers_mut();
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        drop(work);
        let answer = self.connection.activity.answer();
        Ok(response.map(|body| Body::new(ResponseBody::new(body, answer, place))))
    }

    /// The answer to a request, and the request permit that the request holds until the client has taken the answer.
    async fn respond<B>(
        &mut self,
        head: Parts,
        body: Option<SharedBody<B>>,
    ) -> (Response, Option<OwnedSemaphorePermit>)
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        // The same limit as in HTTP/1, whose parser has room for a fixed number of fields.
        if head.headers.len() > FIELDS {
            let refused = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            return (refused.into_response(), None);
        }
        if !names_one_host(&head) {
            return (api::not_one_host(), None);
        }
        let client = self
            .doorway
            .proxies
            .client(self.connection.peer, &head.headers);
        let held = Arc::new(self.unproven.share(Network::of(client)));
        let patience = self.doorway.patience;
        let room = async {
            held.take(weight(&head))?;
            self.connection.place(patience.silence).await
        };
        let place = match room.await {
            Ok(place) => place,
            Err(UnprovenLimitReached) => return (api::overloaded(), None),
        };
        let body = body.map_or_else(Body::empty, |body| {
            Body::new(RequestBody::new(body, patience.body, held.clone()))
        });
        let mut request = Request::from_parts(head, body);
        request.extensions_mut().insert(ClientAddress(client));
        request.extensions_mut().insert(self.proof(held));
        let Ok(response) = self.router.call(request).await;
        (response, place)
    }

    /// The proof that a route reports when a request shows a valid credential.
    fn proof(&self, held: Arc<TakenUnits>) -> ProvenMarker {
        let connection = self.connection.clone();
        ProvenMarker::new(move || {
            held.free();
            connection.prove();
        })
    }
}

/// Whether a request names its host exactly once. HTTP/1.0 may omit the host, and HTTP/2 names the host in
/// `:authority`.
fn names_one_host(head: &Parts) -> bool {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => head.version != Version::HTTP_11,
        (Some(host), None) => host.is_empty() || Authority::try_from(host.as_bytes()).is_ok(),
        (Some(_), Some(_)) => false,
    }
}

/// The approximate memory of a request's head, in bytes.
fn weight(head: &Parts) -> usize {
    let fields = head.headers.iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD);
    let target = head
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    target + fields.sum::<usize>()
}
