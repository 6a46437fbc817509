//! The state that all handlers share.

use std::{fmt, pin::Pin, sync::Arc};

use chrono::{DateTime, Utc};
use delivery::Delivery;
use http::HeaderValue;
use prometheus_client::registry::Registry;
use tenancy::Tenancy;

use crate::metrics::HttpMetrics;

/// Returns the present time; the gateway passes its clock.
pub type Now = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// Reports whether the gateway can work now.
pub type Readiness =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), NotReady>> + Send>> + Send + Sync>;

/// Why the gateway cannot work now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// A text that `/readyz` may show to every client.
    Shown(String),
    /// A text for the log alone, because the text may name hosts or users.
    Logged(String),
}

/// The state that all handlers share. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// Authentication, keys and rate limits.
    pub tenancy: Tenancy,
    /// Messages, apps and everything else that the `delivery` crate does.
    pub delivery: Delivery,
    /// The registry that `/metrics` shows.
    pub metrics: Arc<Registry>,
    /// The metrics of this crate. Call [`HttpMetrics::register`] before the registry is shared.
    pub http: HttpMetrics,
    /// The check behind `/readyz`.
    pub ready: Readiness,
    /// The clock.
    pub now: Now,
    /// The public URL of the gateway, without a slash at the end.
    pub base_url: Arc<str>,
    /// Origins whose web pages may call the API; usually none.
    pub cors_origins: Arc<[HeaderValue]>,
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState").finish_non_exhaustive()
    }
}
