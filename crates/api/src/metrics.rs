//! Number and duration of requests, by route template.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use http::Method;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

/// The metrics of the HTTP API. Cheap to clone; all clones share the counters.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    requests: Family<RouteLabels, Counter>,
    seconds: Family<Route, Histogram>,
}

/// One answered request. The number of label sets is bounded by the number of routes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    method: &'static str,
    route: String,
}

impl Default for HttpMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(seconds),
        }
    }
}

/// Buckets from a millisecond to the 30 s that `Prefer: wait` may take.
fn seconds() -> Histogram {
    Histogram::new([
        0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    ])
}

impl HttpMetrics {
    /// Creates the metrics and registers the metrics in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "wxgate_http_requests",
            "Requests answered",
            metrics.requests.clone(),
        );
        registry.register(
            "wxgate_http_request_seconds",
            "Time from the first byte of the request to the head of the answer",
            metrics.seconds.clone(),
        );
        metrics
    }
}

/// Counts and times one request.
pub(crate) async fn measure(
    State(metrics): State<HttpMetrics>,
    request: Request,
    next: Next,
) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", MatchedPath::as_str)
        .to_owned();
    let method = known(request.method());
    let started = Instant::now();
    let response = next.run(request).await;
    metrics
        .seconds
        .get_or_create(&Route {
            method,
            route: route.clone(),
        })
        .observe(started.elapsed().as_secs_f64());
    metrics
        .requests
        .get_or_create(&RouteLabels {
            method,
            route,
            status: response.status().as_u16(),
        })
        .inc();
    response
}

/// The label of a method. A client may invent methods, but must not invent label values.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, routing::get};
    use tower::ServiceExt;

    use super::*;
    use crate::layers::around;

    #[tokio::test]
    async fn requests_are_counted_by_route_template() {
        let mut registry = Registry::default();
        let routes = around(
            Router::new().route("/things/{id}", get(async || "ok")),
            Router::new(),
            HttpMetrics::register(&mut registry),
            &[],
        );
        for (method, path) in [
            ("GET", "/things/1"),
            ("GET", "/things/2"),
            ("PUT", "/things/3"),
            ("GET", "/x"),
            ("INVENTED", "/x"),
        ] {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .body(Body::empty())
                .unwrap();
            routes.clone().oneshot(request).await.unwrap();
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "wxgate_http_requests_total{method=\"GET\",route=\"/things/{id}\",status=\"200\"} 2",
            "wxgate_http_requests_total{method=\"PUT\",route=\"/things/{id}\",status=\"405\"} 1",
            "wxgate_http_requests_total{method=\"GET\",route=\"unmatched\",status=\"404\"} 1",
            "wxgate_http_requests_total{method=\"other\",route=\"unmatched\",status=\"404\"} 1",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
