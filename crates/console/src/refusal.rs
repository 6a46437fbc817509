//! The page that replaces a refused page.

use std::{any::Any, time::Duration};

use askama::Template;
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use delivery::{AppError, DeliveryError};
use store::StoreError;
use tenancy::{AuthError, TenancyError};

use crate::pages;

const BROKEN: &str = "The gateway has an internal error: read its log for the cause.";

/// The reason of a refusal.
#[derive(Debug)]
pub(crate) enum PageRefusal {
    /// The request has no valid session.
    SignIn,
    /// The object does not exist, or the visitor may not see the object.
    NotFound,
    /// The key lacks this scope.
    Scope(&'static str),
    /// Too many requests, with the wait until the next request.
    TooMany(Duration),
    /// The form was not sent from these pages.
    ForeignOrigin,
    /// A retry may succeed.
    Unavailable,
    /// A defect of the program.
    Broken,
}

impl IntoResponse for PageRefusal {
    fn into_response(self) -> Response {
        let wait = match self {
            Self::TooMany(wait) => Some(seconds_up(wait)),
            Self::Unavailable => Some(1),
            _ => None,
        };
        let (status, words) = match self {
            Self::SignIn => return Redirect::to("/console/sign-in").into_response(),
            Self::NotFound => (StatusCode::NOT_FOUND, "This page does not exist, or this key may not see it.".to_owned()),
            Self::Scope(scope) => (StatusCode::FORBIDDEN, format!("This page needs the scope {scope}: sign in with a key that has this scope.")),
            Self::TooMany(wait) => (StatusCode::TOO_MANY_REQUESTS, format!("Too many requests: wait {} s and reload the page.", seconds_up(wait))),
            Self::ForeignOrigin => (
                StatusCode::FORBIDDEN,
                "The form comes from another site: send the form from the console. Behind a proxy, set WXGATE_PUBLIC_URL to the address in your browser.".to_owned(),
            ),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "The gateway cannot read the data at the moment: try again in a few seconds.".to_owned()),
            Self::Broken => (StatusCode::INTERNAL_SERVER_ERROR, BROKEN.to_owned()),
        };
        let mut response = (status, page(&pages::ProblemPage { words })).into_response();
        if let Some(seconds) = wait {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Replaces a refusal that a layer or extractor wrote as plain text, or without text, by a page.
pub(crate) fn in_words(response: Response) -> Response {
    let (status, headers) = (response.status(), response.headers());
    let is_page = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
    if is_page || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let words = match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            "This address does not accept this request: open the page from the overview."
        }
        StatusCode::PAYLOAD_TOO_LARGE => {
            "The form is too large: fill in only the fields of the form."
        }
        status if status.is_server_error() => BROKEN,
        _ => {
            "The form or the address cannot be read: open the page again, fill in every field and send the form again."
        }
    };
    let allow = headers.get(header::ALLOW).cloned();
    let problem = pages::ProblemPage {
        words: words.to_owned(),
    };
    let mut refused = (status, page(&problem)).into_response();
    if let Some(allow) = allow {
        refused.headers_mut().insert(header::ALLOW, allow);
    }
    refused
}

/// The page after a panic of the handler.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the layer hands it over like this"
)]
pub(crate) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let words = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let words = words.or_else(|| panic.downcast_ref::<String>().cloned());
    tracing::error!(
        panic = words.unwrap_or_default(),
        "a console page failed with a panic"
    );
    PageRefusal::Broken.into_response()
}

/// The duration in whole seconds, rounded up, at least one, so that a client that waits as long does not come too
/// early.
pub(crate) fn seconds_up(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// Renders a page as a response.
pub(crate) fn page(template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => axum::response::Html(html).into_response(),
        Err(error) => {
            tracing::error!(%error, "a console page cannot be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

impl From<StoreError> for PageRefusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(_) => Self::NotFound,
            StoreError::Unavailable(_) => Self::Unavailable,
            StoreError::Taken(_)
            | StoreError::Answered
            | StoreError::Changed(_)
            | StoreError::Broken(_)
            | StoreError::Settings(_) => {
                tracing::error!(%error, "the console cannot read the database");
                Self::Broken
            }
        }
    }
}

impl From<DeliveryError> for PageRefusal {
    fn from(error: DeliveryError) -> Self {
        match error {
            DeliveryError::NotFound(_) => Self::NotFound,
            DeliveryError::Store(error) => error.into(),
        }
    }
}

impl From<TenancyError> for PageRefusal {
    fn from(error: TenancyError) -> Self {
        match error {
            TenancyError::NotFound(_) => Self::NotFound,
            TenancyError::Store(error) => error.into(),
            other => {
                tracing::error!(error = %other, "the console cannot read tenants");
                Self::Broken
            }
        }
    }
}

impl From<AppError> for PageRefusal {
    fn from(error: AppError) -> Self {
        match error {
            AppError::NotFound => Self::NotFound,
            AppError::Unavailable(_) => Self::Unavailable,
            other => {
                tracing::error!(error = %other, "the console cannot read apps");
                Self::Broken
            }
        }
    }
}

impl From<AuthError> for PageRefusal {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Unavailable => Self::Unavailable,
            AuthError::TooOften(wait) => Self::TooMany(wait),
            _ => Self::SignIn,
        }
    }
}
