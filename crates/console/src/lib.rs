//! Operator pages, rendered on the server: `/console`.
//!
//! The pages show the data of the API and change nothing: tenants, apps with their state and today's quota use,
//! messages with WeChat's answers. The pages need no JavaScript and load nothing from other sites.
//!
//! A session is a token in a cookie that scripts cannot read and that other sites cannot make the browser send. The
//! token is not an access token: it gives read access to these pages only, and none to the API. A session ends after 15
//! minutes. Visitors see the data that their key may read, through the same entry points as in the API.
//!
//! A new page needs a template, a struct beside the template in `pages`, a handler that first asks `session` for the
//! visitor, and a line in [`router`].

use std::{fmt, sync::Arc};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderName, HeaderValue, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chrono::{DateTime, Utc};
use delivery::Delivery;
use store::Store;
use tenancy::Tenancy;
use tower_http::catch_panic::CatchPanicLayer;

mod overview;
mod pages;
mod refusal;
mod session;

/// The state that the pages share. Cheap to clone.
#[derive(Clone)]
pub struct ConsoleState {
    /// Authentication and tenants.
    pub tenancy: Tenancy,
    /// Apps and messages.
    pub delivery: Delivery,
    /// The use of quotas.
    pub store: Store,
    /// The clock.
    pub now: Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>,
    /// The public URL of the gateway, if different from the listen address. With `https`, cookies are marked `Secure`.
    pub public_url: Option<String>,
}

impl fmt::Debug for ConsoleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleState")
            .field("public_url", &self.public_url)
            .finish_non_exhaustive()
    }
}

/// `Referrer-Policy: no-referrer` would make browsers send `Origin: null`, and sign-in checks the origin.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
];

/// The largest form, in bytes. A client secret has 69 characters.
const MAX_FORM: usize = 16 * 1024;

/// The router of all pages.
pub fn router(state: ConsoleState) -> Router {
    let routes = Router::new()
        .route("/console", get(overview::front))
        .route("/console/tenants/{tenant_id}", get(overview::tenant))
        .route("/console/apps/{appid}", get(overview::app))
        .route(
            "/console/sign-in",
            get(session::form).post(session::sign_in),
        )
        .route("/console/sign-out", post(session::sign_out))
        .route("/console/style.css", get(style));
    around(routes).with_state(state)
}

/// Adds the layers that answer every failure with a page.
fn around<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .layer(CatchPanicLayer::custom(refusal::panicked))
        .layer(from_fn(secure))
}

async fn style() -> Response {
    (
        [(header::CONTENT_TYPE, "text/css; charset=utf-8")],
        include_str!("../templates/style.css"),
    )
        .into_response()
}

async fn secure(request: Request, next: Next) -> Response {
    let mut response = refusal::in_words(next.run(request).await);
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::{
        Form,
        body::{Body, to_bytes},
        http::StatusCode,
    };
    use tower::ServiceExt;

    use super::*;

    #[expect(clippy::panic, reason = "the test needs a handler that panics")]
    async fn explode() {
        panic!("boom");
    }

    #[tokio::test]
    async fn every_refusal_is_a_page() {
        let take = async |Form(_): Form<Vec<(String, u8)>>| ();
        let routes = Router::<()>::new()
            .route("/take", post(take))
            .route("/boom", get(explode))
            .route("/bare", get(async || StatusCode::BAD_GATEWAY));
        for (method, path, body, status) in [
            ("POST", "/take", "a=1".to_owned(), 200),
            ("POST", "/take", "a=b".to_owned(), 422),
            ("POST", "/take", "a".repeat(MAX_FORM + 1), 413),
            ("DELETE", "/take", String::new(), 405),
            ("GET", "/boom", String::new(), 500),
            ("GET", "/bare", String::new(), 502),
        ] {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
            let request = request.body(Body::from(body)).unwrap();
            let answer = around(routes.clone()).oneshot(request).await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{method} {path}");
            let headers = answer.headers();
            assert!(headers.contains_key(header::CONTENT_SECURITY_POLICY));
            assert_eq!(headers.contains_key(header::ALLOW), status == 405);
            let is_page = headers.get(header::CONTENT_TYPE)
                == Some(&HeaderValue::from_static("text/html; charset=utf-8"));
            let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            let body = String::from_utf8_lossy(&body);
            let refuses = body.contains("The request failed");
            assert_eq!((is_page, refuses), (status != 200, status != 200), "{body}");
        }
    }
}
