//! The HTTP surface: routes, their JSON, their problems and their OpenAPI document.
//!
//! Every request goes through the same steps: it gets an id, its body is limited, its credential is checked,
//! then the credential's scope, then a permit of the rate limiter is taken; only then a handler sees it. What a
//! handler sees is parsed already. What it refuses is a [problem](https://www.rfc-editor.org/rfc/rfc9457), and
//! one function alone turns kinds of refusal into HTTP statuses.
//!
//! To add an endpoint: its shapes in `dto`, a handler with `#[utoipa::path]` in the `routes` module of its noun,
//! a line in that module's `routes()`. The scope it names in `security` is the scope that the guard asks for:
//! there is no second place to write it. Then `make openapi`.
//!
//! ```
//! let document = wxgate_api::openapi();
//! assert!(document.paths.paths.contains_key("/v1/apps/{appid}/messages"));
//! ```

use std::{fmt, pin::Pin, sync::Arc};

use axum::{Router, middleware::from_fn_with_state};
use chrono::{DateTime, Utc};
use delivery::Delivery;
use http::HeaderValue;
use prometheus_client::registry::Registry;
use tenancy::Tenancy;

mod cursor;
mod drop_in;
mod dto;
mod extract;
mod guard;
mod layers;
mod metrics;
mod once;
mod openapi;
mod problem;
mod refusals;
pub mod requests;
mod routes;
mod tags;
mod transport;

/// The shapes of answers, for whoever else shows the same things: the command line prints them as JSON.
pub mod views {
    pub use crate::dto::{
        apps::{App, Pause},
        keys::{CreatedKey, Key},
        messages::Message,
        page::Page,
        tenants::Tenant,
        time::Timestamp,
    };
}

pub use extract::SlowBody;
pub use layers::{not_one_host, overloaded};
pub use metrics::HttpMetrics;
pub use openapi::{Part, openapi};

/// Tells the time; the gateway passes its clock.
pub type Now = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// Tells whether the gateway can work now.
pub type Readiness =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), NotReady>> + Send>> + Send + Sync>;

/// Why the gateway cannot work now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// In words that `/readyz` may show to everybody.
    Shown(String),
    /// In words for the log alone: they may name hosts or users.
    Logged(String),
}

/// What the routes work with. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// Who may call, and how often.
    pub tenancy: Tenancy,
    /// What happens to messages and apps.
    pub delivery: Delivery,
    /// Everything that `/metrics` shows.
    pub metrics: Arc<Registry>,
    /// What this crate counts: [`HttpMetrics::register`] before the registry is shared.
    pub http: HttpMetrics,
    /// Asked by `/readyz`.
    pub ready: Readiness,
    /// The clock.
    pub now: Now,
    /// Where the world reaches the gateway, without a slash at the end.
    pub base_url: Arc<str>,
    /// Origins whose web pages may call the API; usually none.
    pub cors_origins: Arc<[HeaderValue]>,
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState").finish_non_exhaustive()
    }
}

/// All routes with all their layers. `pages`, for people, are answered beside them: they have an id too, and the
/// default headers, and are measured.
pub fn router(state: ApiState, pages: Router) -> Router {
    let guard = guard::Guard::new(state.tenancy.clone(), &openapi());
    let (http, origins) = (state.http.clone(), state.cors_origins.clone());
    let guarded: Router<ApiState> = routes::guarded().into();
    let open: Router<ApiState> = routes::open().into();
    let routes = guarded
        .route_layer(from_fn_with_state(guard, guard::check))
        .merge(open)
        .merge(drop_in::passed_on())
        .merge(routes::docs::pages());
    layers::around(routes.with_state(state), pages, http, &origins)
}
