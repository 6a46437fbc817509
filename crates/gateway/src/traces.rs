//! Traces for an OpenTelemetry collector, if one is configured: OTLP over HTTP, in protobuf.
//!
//! Only spans of the gateway's own crates are exported: `http` (one request, in the trace that the caller's
//! `traceparent` names), within `http` the spans `request` (with the route) and `intake`; `send` (one attempt to send a
//! message) and within `send` the span `wechat` (one call). The fields are ids, routes, codes and times. Events are not
//! exported, so no log line and no error text; nor URLs, so no token in a query.

use std::time::Duration;

use axum::{extract::Request, middleware::Next, response::Response};
use opentelemetry::{
    propagation::{Extractor, TextMapPropagator},
    trace::TracerProvider,
};
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{SdkTracerProvider, Tracer},
};
use reqwest::header::HeaderMap;
use tokio::runtime::Handle;
use tracing::{Instrument, Level, Metadata, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::failure::Failure;

/// The time-out of one batch at the collector.
const PATIENCE: Duration = Duration::from_secs(5);
/// The name of the gateway in traces.
const SERVICE: &str = "wxgate";

/// Exports spans to a collector. [`Traces::flush`] ends the export.
#[derive(Debug)]
pub(crate) struct Traces(SdkTracerProvider);

impl Traces {
    /// Exports spans to the collector at `endpoint`, such as `http://127.0.0.1:4318`, on the runtime of `runtime`.
    pub(crate) fn to(endpoint: &str, runtime: Handle) -> Result<Self, Failure> {
        let refused =
            |error: String| Failure::new("settings", format!("WXGATE_OTLP_ENDPOINT: {error}"));
        let http = reqwest::Client::builder()
            .timeout(PATIENCE)
            .connect_timeout(PATIENCE)
            // Spans go only to the configured address: environment proxies and redirects are ignored.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| refused(error.to_string()))?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Post { http, runtime })
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{endpoint}/v1/traces"))
            .with_timeout(PATIENCE)
            .build()
            .map_err(|error| refused(error.to_string()))?;
        let resource = Resource::builder()
            .with_service_name(SERVICE)
            .with_attribute(opentelemetry::KeyValue::new(
                "service.version",
                env!("CARGO_PKG_VERSION"),
            ))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        Ok(Self(provider))
    }

    /// The tracer that creates the spans.
    pub(crate) fn tracer(&self) -> Tracer {
        self.0.tracer(SERVICE)
    }

    /// Exports the spans that have ended, and ends the export. Blocks; the runtime must still be running.
    pub(crate) fn flush(self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "cannot send the last traces: check WXGATE_OTLP_ENDPOINT and the collector");
        }
    }
}

/// Whether the metadata describes a span of the gateway's own crates.
pub(crate) fn is_exported(metadata: &Metadata<'_>) -> bool {
    metadata.is_span()
        && *metadata.level() <= Level::DEBUG
        && metadata.target().starts_with(SERVICE)
}

/// Posts batches on the runtime: the exporter's own thread has no runtime, which reqwest needs.
#[derive(Debug)]
struct Post {
    http: reqwest::Client,
    runtime: Handle,
}

#[async_trait::async_trait]
impl HttpClient for Post {
    async fn send_bytes(
        &self,
        request: opentelemetry_http::Request<Bytes>,
    ) -> Result<opentelemetry_http::Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let http = self.http.clone();
        let posting = self.runtime.spawn(async move {
            let answer = http.execute(request).await?;
            let status = answer.status();
            Ok::<_, reqwest::Error>((status, answer.bytes().await?))
        });
        let (status, body) = posting.await??;
        let mut response = opentelemetry_http::Response::new(body);
        *response.status_mut() = status;
        Ok(response)
    }
}

/// The layer that places a request into the trace of its caller, or begins a trace.
pub(crate) async fn follow(request: Request, next: Next) -> Response {
    let caller = TraceContextPropagator::new().extract(&Headers(request.headers()));
    let span = tracing::debug_span!(
        "http",
        otel.kind = "server",
        http.request.method = %request.method(),
        http.response.status_code = Empty,
    );
    // Fails where no layer exports spans; then the parent is not needed.
    let _ = span.set_parent(caller);
    let answered = next.run(request).instrument(span.clone());
    let response = answered.await;
    span.record("http.response.status_code", response.status().as_u16());
    response
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0
            .keys()
            .map(reqwest::header::HeaderName::as_str)
            .collect()
    }
}
