//! `/docs` and `/docs/drop-in`: Swagger UI from the binary, without any file from another host.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, Request},
    middleware::{Next, from_fn},
    response::{Html, IntoResponse, Redirect, Response},
    routing::get,
};
use http::{HeaderName, HeaderValue, header};
use utoipa_swagger_ui::{Config, serve};

use crate::problem::{Problem, ProblemKind};

/// Swagger UI sets styles from scripts and has its icons in `data:` URLs. All scripts come from this server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The page around Swagger UI, with landmarks and links between the two documents.
const PAGE: &str = include_str!("docs/page.html");
/// Colours with enough contrast (WCAG 2.1 AA), which the style sheet of Swagger UI lacks.
const STYLE: &str = include_str!("docs/contrast.css");

/// The pages.
pub(crate) fn pages<S: Clone + Send + Sync + 'static>() -> Router<S> {
    document("/docs", "/openapi.json")
        .merge(document("/docs/drop-in", "/openapi/drop-in.json"))
        .layer(from_fn(secure))
}

/// Serves the page for the document at `url` under `path`, and the files of the page under the same path.
fn document<S: Clone + Send + Sync + 'static>(path: &'static str, url: &'static str) -> Router<S> {
    let config = Config::new([url])
        .use_base_layout()
        .deep_linking(false)
        .try_it_out_enabled(true)
        .persist_authorization(false);
    let config = Arc::new(config);
    let file = async move |Path(name): Path<String>| file(&name, config);
    Router::new()
        .route(path, get(async move || Redirect::to(&format!("{path}/"))))
        .route(&format!("{path}/"), get(async || Html(PAGE)))
        .route(&format!("{path}/{{file}}"), get(file))
}

fn file(name: &str, config: Arc<Config<'static>>) -> Response {
    if name == "contrast.css" {
        return ([(header::CONTENT_TYPE, "text/css")], STYLE).into_response();
    }
    match serve(name, config) {
        Ok(Some(file)) => {
            let content_type = [(header::CONTENT_TYPE, file.content_type)];
            (content_type, file.bytes.into_owned()).into_response()
        }
        Ok(None) => {
            Problem::new(ProblemKind::NotFound, ProblemKind::NotFound.example()).into_response()
        }
        Err(error) => Problem::internal(error).into_response(),
    }
}

async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers: [(HeaderName, &'static str); 3] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use tower::ServiceExt;

    use super::*;
    use crate::{layers::around, metrics::HttpMetrics};

    async fn get(path: &str) -> (http::response::Parts, String) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let answer = around(pages(), Router::new(), HttpMetrics::default(), &[])
            .oneshot(request)
            .await
            .unwrap();
        let (parts, body) = answer.into_parts();
        (
            parts,
            String::from_utf8_lossy(&to_bytes(body, usize::MAX).await.unwrap()).into_owned(),
        )
    }

    #[tokio::test]
    async fn the_pages_need_nothing_from_elsewhere() {
        let (parts, page) = get("/docs/").await;
        assert_eq!(parts.status, 200);
        assert_eq!(parts.headers[header::CONTENT_SECURITY_POLICY], POLICY);
        assert_eq!(parts.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert!(
            page.contains("swagger-ui") && !page.contains("http://") && !page.contains("https://"),
            "{page}"
        );
        assert!(
            !page.contains("<script>"),
            "the policy forbids inline scripts: {page}"
        );
        let (_, script) = get("/docs/swagger-initializer.js").await;
        assert!(script.contains("/openapi.json"), "{script}");
        assert_eq!(get("/docs").await.0.headers[header::LOCATION], "/docs/");
    }

    #[tokio::test]
    async fn what_is_not_there_is_a_problem() {
        let (parts, body) = get("/docs/nothing.js").await;
        assert_eq!(parts.status, 404);
        assert!(body.contains("\"code\":\"not_found\""), "{body}");
    }
}
