//! The layers that every answer passes, whatever the route: the request's id, the problem's body, panics, the size of
//! bodies, default headers.
//!
//! From outside to inside: [compression](crate::transport) → [`frame`] → other origins →
//! [`measure`](crate::metrics::measure) → panics → routes. Pages for people have only the outer layers and
//! [`measure`](crate::metrics::measure): pages word their own refusals.

use std::any::Any;

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, MatchedPath, Request},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, StatusCode, Uri, header};
use store::{Actor, Origin};
use tenancy::{ClientAddress, UnprovenLimitReached};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;

use crate::{
    body_limits::{MAX_BODY, UNPROVEN, is_pass_through},
    drop_in,
    dto::page::NextCursor,
    metrics::{HttpMetrics, measure},
    problem::{self, Problem, ProblemKind},
    request_origin::{REQUEST_ID, RequestId, encoding},
    transport::{self, Compressible},
};

/// The answer to a request for which the gateway has no capacity. No route sees such a request.
pub fn overloaded() -> Response {
    before_routes(Problem::unavailable(UnprovenLimitReached))
}

/// The answer to a request that names no host, several hosts or an invalid host (RFC 9112, section 3.2): two HTTP
/// implementations could take such a request for requests to two hosts.
pub fn not_one_host() -> Response {
    before_routes(Problem::invalid_request(
        "the request must have one `Host` header with the name of this host: send the header once",
    ))
}

fn before_routes(problem: Problem) -> Response {
    let id = RequestId::fresh();
    let mut response = finish_problem(problem.into_response(), &id);
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// Puts the layers round a router whose routes are complete, and round `pages` beside that router.
pub(crate) fn around(
    routes: Router,
    pages: Router,
    metrics: HttpMetrics,
    origins: &[HeaderValue],
) -> Router {
    let pages = pages.layer(from_fn_with_state(metrics.clone(), measure));
    let routes = routes
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(refuse_encoded))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(metrics, measure));
    let routes = match transport::other_origins(origins) {
        Some(layer) => routes.layer(layer),
        None => routes,
    };
    routes
        .merge(pages)
        .layer(from_fn(frame))
        .layer(transport::compression())
}

/// Gives the request its id, and completes the answer: the body of a problem, the id, the default headers.
async fn frame(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(&request);
    let client = request.extensions().get::<ClientAddress>();
    let origin = Origin {
        actor: Actor::Gateway,
        request_id: Some(id.0.clone()),
        address: client.map(|client| client.0),
    };
    request.extensions_mut().insert(origin);
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map(|path| path.as_str().to_owned())
        .unwrap_or_default();
    let (uri, is_compressible) = (
        request.uri().clone(),
        transport::may_be_compressed(request.method(), request.uri().path()),
    );
    let span = tracing::info_span!("request", id = %id.0, method = %request.method(), route);
    async {
        let mut response = finish_problem(next.run(request).await, &id);
        if is_compressible {
            response.extensions_mut().insert(Compressible);
        }
        let next_page = response.extensions_mut().remove::<NextCursor>();
        let headers = response.headers_mut();
        if let Some(link) = next_page.and_then(|next| next.link(&uri)) {
            headers.insert(header::LINK, link);
        }
        if let Ok(value) = HeaderValue::from_str(&id.0) {
            headers.insert(REQUEST_ID, value);
        }
        headers
            .entry(header::CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-store"));
        headers
            .entry(header::X_CONTENT_TYPE_OPTIONS)
            .or_insert(HeaderValue::from_static("nosniff"));
        response
    }
    .instrument(span)
    .await
}

/// Refuses an encoded body: the gateway limits and checks the body as the client sends it.
async fn refuse_encoded(request: Request, next: Next) -> Response {
    // The token endpoint has its own form of refusals.
    let encoding = encoding(&request).filter(|_| request.uri().path() != UNPROVEN[0]);
    let Some(encoding) = encoding else {
        return next.run(request).await;
    };
    if is_pass_through(request.uri().path()) {
        return drop_in::encoded(&encoding);
    }
    let words = format!(
        "a body with `Content-Encoding: {encoding}` cannot be read: send the body without an encoding and without this header"
    );
    let plain = [(header::ACCEPT_ENCODING, "identity")];
    (
        plain,
        Problem::new(ProblemKind::UnsupportedMediaType, words),
    )
        .into_response()
}

/// Writes the body of a problem, and turns the bare refusals of libraries into problems.
fn finish_problem(response: Response, id: &RequestId) -> Response {
    let bare = !response.headers().contains_key(header::CONTENT_TYPE) || is_text(&response);
    let problem = match response.extensions().get::<Problem>() {
        Some(problem) => problem.clone(),
        None if bare
            && (response.status().is_client_error() || response.status().is_server_error()) =>
        {
            Problem::from_status(response.status())
        }
        None => return response,
    };
    log(&problem, response.status());
    let (mut parts, _) = response.into_parts();
    parts.headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(problem::MEDIA_TYPE),
    );
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(problem.json(&id.0)))
}

fn is_text(response: &Response) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/plain"))
}

fn log(problem: &Problem, status: StatusCode) {
    let (code, cause) = (problem.kind().code(), problem.cause().unwrap_or("-"));
    match problem.kind() {
        // A flood causes one such line for each request, so the level is `debug`.
        ProblemKind::Overloaded if cause == UnprovenLimitReached.to_string() => {
            tracing::debug!(status = status.as_u16(), code, cause, "request refused");
        }
        ProblemKind::Internal => {
            tracing::error!(status = status.as_u16(), code, cause, "request broke");
        }
        ProblemKind::Overloaded | ProblemKind::WechatUnavailable => {
            tracing::warn!(status = status.as_u16(), code, cause, "request refused");
        }
        _ => tracing::debug!(status = status.as_u16(), code, cause, "request refused"),
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the layer passes the value in this form"
)]
fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let words = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let words = words
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    Problem::internal(format_args!("panic: {words}")).into_response()
}

async fn nothing_here(uri: Uri) -> Problem {
    Problem::new(
        ProblemKind::NotFound,
        format!(
            "the path {} does not exist: see /docs for all paths",
            uri.path()
        ),
    )
}

async fn wrong_method(method: Method) -> Problem {
    Problem::new(
        ProblemKind::MethodNotAllowed,
        format!("the method {method} is not allowed here: use one of the methods in `Allow`"),
    )
}

#[cfg(test)]
mod tests {
    use axum::{body::to_bytes, response::Html, routing::get};
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;
    use crate::extract::ApiJson;

    #[expect(clippy::panic, reason = "the test needs a handler that panics")]
    async fn explode() {
        panic!("boom");
    }

    fn routes() -> Router {
        let take = async |ApiJson(value): ApiJson<Value>| value.to_string();
        let routes = Router::new()
            .route("/here", get(async || "ok").post(take))
            .route("/boom", get(explode));
        let page = async || (StatusCode::NOT_FOUND, Html("<h1>Nothing</h1>"));
        let pages = Router::new().route("/page", get(page));
        around(routes, pages, HttpMetrics::default(), &[])
    }

    async fn answer(request: http::request::Builder, body: Body) -> (http::response::Parts, Value) {
        let (parts, body) = routes()
            .oneshot(request.body(body).unwrap())
            .await
            .unwrap()
            .into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        (parts, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    fn request(method: &str, uri: &str) -> http::request::Builder {
        Request::builder().method(method).uri(uri)
    }

    #[tokio::test]
    async fn unknown_paths_methods_and_panics_are_problems() {
        for (method, path, status, code) in [
            ("GET", "/there", 404, "not_found"),
            ("DELETE", "/here", 405, "invalid_request"),
            ("GET", "/boom", 500, "internal"),
        ] {
            let (parts, body) = answer(request(method, path), Body::empty()).await;
            assert_eq!(
                (parts.status.as_u16(), body["code"].as_str()),
                (status, Some(code)),
                "{method} {path}"
            );
            assert_eq!(parts.headers[header::CONTENT_TYPE], problem::MEDIA_TYPE);
            assert_eq!(parts.headers.contains_key(header::ALLOW), status == 405);
            let instance = format!(
                "urn:request:{}",
                parts.headers[REQUEST_ID].to_str().unwrap()
            );
            assert_eq!(body["instance"], instance.as_str());
            assert_eq!(body["status"], status);
        }
    }

    #[tokio::test]
    async fn pages_have_an_id_and_refuse_in_their_own_words() {
        let request = request("GET", "/page").header(REQUEST_ID, "a-page");
        let (parts, body) = answer(request, Body::empty()).await;
        assert_eq!((parts.status.as_u16(), body), (404, Value::Null));
        assert_eq!(parts.headers[REQUEST_ID], "a-page");
        assert_eq!(
            parts.headers[header::CONTENT_TYPE],
            "text/html; charset=utf-8"
        );
    }

    #[tokio::test]
    async fn pages_of_named_origins_alone_are_let_in() {
        let (named, other) = (
            "https://admin.example",
            "https://admin.example.evil.example",
        );
        let origins = [HeaderValue::from_static(named)];
        let routes = Router::new().route("/v1/things", get(async || "ok"));
        let routes = around(routes, Router::new(), HttpMetrics::default(), &origins);
        let ask = async |method: &str, origin: &str| {
            let request = request(method, "/v1/things")
                .header(header::ORIGIN, origin)
                .header(header::ACCESS_CONTROL_REQUEST_METHOD, "GET")
                .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization");
            let request = request.body(Body::empty()).unwrap();
            routes.clone().oneshot(request).await.unwrap()
        };
        for method in ["GET", "OPTIONS"] {
            let answer = ask(method, named).await;
            assert_eq!(answer.status(), 200, "{method}");
            let headers = answer.headers();
            assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], named);
            assert!(!headers.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
            assert!(headers.contains_key(REQUEST_ID));
            let answer = ask(method, other).await;
            let allowed = answer.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
            assert_eq!(allowed, None, "{method}");
        }
        let preflight = ask("OPTIONS", named).await;
        let allowed = &preflight.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS];
        assert!(allowed.to_str().unwrap().contains("authorization"));
    }

    #[tokio::test]
    async fn a_sane_request_id_is_kept() {
        let long = "x".repeat(129);
        for (theirs, kept) in [
            ("a.B-9_", true),
            ("a b", false),
            ("", false),
            (long.as_str(), false),
        ] {
            let (parts, _) = answer(
                request("GET", "/here").header(REQUEST_ID, theirs),
                Body::empty(),
            )
            .await;
            let ours = parts.headers[REQUEST_ID].to_str().unwrap();
            assert_eq!(ours == theirs, kept, "{theirs:?} became {ours:?}");
            assert!((1..=128).contains(&ours.len()), "{ours:?}");
        }
    }

    #[tokio::test]
    async fn large_bodies_are_refused_announced_or_not() {
        let json = |uri| request("POST", uri).header(header::CONTENT_TYPE, "application/json");
        let (parts, _) = answer(
            json("/here").header(header::CONTENT_LENGTH, MAX_BODY + 1),
            Body::empty(),
        )
        .await;
        assert_eq!(parts.status, 413);
        let chunked = Body::from(format!("\"{}\"", "x".repeat(MAX_BODY)));
        let (parts, body) = answer(json("/here"), chunked).await;
        assert_eq!(
            (parts.status.as_u16(), body["code"].as_str()),
            (413, Some("payload_too_large"))
        );
    }
}
