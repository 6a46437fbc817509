//! Health, metrics and the OpenAPI document: for operators and for developers of clients.

use std::sync::LazyLock;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::header;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState, NotReady,
    openapi::{Always, Part, Unready},
    problem::{Problem, ProblemKind},
};

/// The document describes the program and never changes, so the gateway makes the text once.
static API: LazyLock<Bytes> = LazyLock::new(|| Part::Api.json().into());
static DROP_IN: LazyLock<Bytes> = LazyLock::new(|| Part::DropIn.json().into());

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(get_health))
        .routes(routes!(get_readiness))
        .routes(routes!(get_metrics))
        .routes(routes!(get_openapi))
        .routes(routes!(get_drop_in_openapi))
}

/// The state of the gateway.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    #[schema(example = "ok")]
    status: &'static str,
}

/// Check that the process is alive
///
/// Answers as long as the process runs; checks nothing else.
#[utoipa::path(
    get, path = "/healthz", tag = "operations",
    responses((status = 200, description = "The process is alive.", body = Health), Always),
)]
async fn get_health() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Check that the gateway is ready
///
/// Ready means: the database answers, this machine's clock is right and the gateway is not stopping. A load balancer
/// should send requests to ready replicas only.
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    responses(
        (status = 200, description = "The gateway is ready.", body = Health),
        Unready,
        Always,
    ),
)]
async fn get_readiness(State(state): State<ApiState>) -> Result<Json<Health>, Problem> {
    match (state.ready)().await {
        Ok(()) => Ok(Json(Health { status: "ready" })),
        Err(NotReady::Shown(reason)) => Err(Problem::new(ProblemKind::Overloaded, reason)),
        Err(NotReady::Logged(cause)) => {
            let detail = "the gateway is not ready at the moment: see the gateway's log, then send the request again \
                after Retry-After";
            Err(Problem::new(ProblemKind::Overloaded, detail).caused_by(cause))
        }
    }
}

/// Read the metrics
///
/// `OpenMetrics` text, for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses((status = 200, description = "All metrics.", body = String, content_type = "application/openmetrics-text"), Always),
)]
async fn get_metrics(State(state): State<ApiState>) -> Result<Response, Problem> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &state.metrics)
        .map_err(Problem::internal)?;
    Ok((
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    )
        .into_response())
}

/// Read this document
///
/// `OpenAPI` 3.1. `/docs` shows the document as pages.
#[utoipa::path(
    get, path = "/openapi.json", tag = "operations",
    responses((status = 200, description = "The document.", body = Object, content_type = "application/json",
        example = json!({"openapi": "3.1.0"})), Always),
)]
async fn get_openapi() -> Response {
    json_text(&API)
}

/// Read the document of the drop-in surface
///
/// `OpenAPI` 3.1: WeChat's own calls for SDKs, and WeChat's callbacks.
#[utoipa::path(
    get, path = "/openapi/drop-in.json", tag = "operations",
    responses((status = 200, description = "The document.", body = Object, content_type = "application/json",
        example = json!({"openapi": "3.1.0"})), Always),
)]
async fn get_drop_in_openapi() -> Response {
    json_text(&DROP_IN)
}

fn json_text(text: &Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.clone()).into_response()
}
