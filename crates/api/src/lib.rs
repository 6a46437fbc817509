//! The HTTP API: routes, JSON shapes, problems and the OpenAPI document.
//!
//! Every request takes the same steps: the gateway gives the request an id, limits the body, checks the credential,
//! takes a permit of the rate limiter and checks the credential's scope; only then the handler runs. The handler gets
//! parsed values. Each refusal is a [problem](https://www.rfc-editor.org/rfc/rfc9457), and one function alone turns
//! kinds of refusal into HTTP statuses.
//!
//! To add an endpoint: put its shapes into `dto`, write a handler with `#[utoipa::path]` in the `routes` module of its
//! noun, and add a line to that module's `routes()`. The scope in the handler's `security` is the scope that the guard
//! asks for: the scope stands in no second place. Then run `make openapi`.
//!
//! ```
//! let document = wxgate_api::openapi();
//! assert!(document.paths.paths.contains_key("/v1/apps/{appid}/messages"));
//! ```

use axum::{Router, middleware::from_fn_with_state};

mod body_limits;
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
mod request_origin;
pub mod requests;
mod routes;
mod state;
mod tags;
mod transport;

/// The shapes of answers, for other programs that show the same things: the command line prints these shapes as JSON.
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
pub use state::{ApiState, NotReady, Now, Readiness};

/// All routes with all their layers. `pages` are the pages for people; the router serves `pages` beside the routes.
/// Pages have a request id and the default headers, and count in the metrics.
pub fn router(state: ApiState, pages: Router) -> Router {
    let guard = guard::Guard::new(state.tenancy.clone(), &openapi());
    let (http, origins) = (state.http.clone(), state.cors_origins.clone());
    let guarded: Router<ApiState> = routes::guarded().into();
    let open: Router<ApiState> = routes::open().into();
    let routes = guarded
        .route_layer(from_fn_with_state(guard, guard::check))
        .merge(open)
        .merge(drop_in::pass_through_routes())
        .merge(routes::docs::pages());
    layers::around(routes.with_state(state), pages, http, &origins)
}
