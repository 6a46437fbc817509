//! Bodies, read completely or not at all.

use std::{error::Error, iter::successors};

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::{StatusCode, header};
use tenancy::UnprovenLimitReached;

use crate::{
    body_limits::body_limit,
    problem::{Problem, ProblemKind},
};

/// The error of a body that does not arrive in time. The server ends bodies with this error; the routes then answer 408.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body did not arrive in time")]
pub struct SlowBody;

/// Why a body was not read completely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// The body is over the limit.
    TooLarge,
    /// The body did not arrive in time.
    TooSlow,
    /// The request is unproven, and the memory for unproven requests is used up.
    UnprovenLimitReached,
    /// The body broke off.
    BrokenOff,
}

impl Unread {
    /// The reason behind a library's refusal of a body.
    pub(crate) fn of(status: StatusCode, error: &(dyn Error + 'static)) -> Self {
        let mut causes = successors(Some(error), |error| (**error).source());
        let ended = causes.find_map(|error| {
            let slow = error.is::<SlowBody>().then_some(Self::TooSlow);
            slow.or(error
                .is::<UnprovenLimitReached>()
                .then_some(Self::UnprovenLimitReached))
        });
        if let Some(ended) = ended {
            ended
        } else if status == StatusCode::PAYLOAD_TOO_LARGE {
            Self::TooLarge
        } else {
            Self::BrokenOff
        }
    }
}

/// Reads a body that keeps to the route's limit and arrives in time. A body that announces more is refused before the
/// first byte is read; any other body is cut off by [`DefaultBodyLimit`](axum::extract::DefaultBodyLimit).
pub(crate) async fn read_whole<S: Send + Sync>(
    request: Request,
    state: &S,
) -> Result<Bytes, Unread> {
    if announces_too_much(&request) {
        return Err(Unread::TooLarge);
    }
    let body = Bytes::from_request(request, state).await;
    body.map_err(|rejection| Unread::of(rejection.status(), &rejection))
}

/// Whether the body's announced length is over the route's limit.
pub(crate) fn announces_too_much(request: &Request) -> bool {
    announced(request).is_some_and(|bytes| bytes > body_limit(request))
}

/// The announced length of the body, in bytes.
pub(crate) fn announced(request: &Request) -> Option<usize> {
    let length = request.headers().get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

impl From<Unread> for Problem {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::TooLarge => Self::new(ProblemKind::PayloadTooLarge, "the body is too large"),
            Unread::TooSlow => Self::new(ProblemKind::TooSlow, ProblemKind::TooSlow.example()),
            Unread::UnprovenLimitReached => Self::unavailable(UnprovenLimitReached),
            Unread::BrokenOff => {
                Self::invalid_request("the body is incomplete: send the request again")
            }
        }
    }
}
