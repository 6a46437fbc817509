//! `/docs`: Swagger UI from the binary; the pages load nothing from other hosts.

use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::Response,
};
use http::{HeaderName, HeaderValue, header};
use utoipa_swagger_ui::{Config, SwaggerUi};

/// Swagger UI sets styles from scripts and has its icons in `data:` URLs; scripts come from the gateway alone.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The pages under `/docs`.
pub(crate) fn pages<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let config = Config::new(["/openapi.json", "/openapi/drop-in.json"])
        .try_it_out_enabled(true)
        .persist_authorization(false);
    Router::from(SwaggerUi::new("/docs").config(config)).layer(from_fn(secure))
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
