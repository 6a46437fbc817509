//! Bodies, read whole or not at all.

use std::{error::Error, iter::successors};

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::{StatusCode, header};
use tenancy::NoRoom;

use crate::{
    layers::body_limit,
    problem::{Kind, Problem},
};

/// Ends a body that does not come in time. Whoever serves the routes ends bodies with it, and they answer 408.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body did not come in time")]
pub struct SlowBody;

/// Why a body was not read whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It is over the limit.
    TooLarge,
    /// It did not come in time.
    TooSlow,
    /// It has proven nothing yet, and the memory for such requests is used up.
    NoRoom,
    /// It broke off.
    BrokenOff,
}

impl Unread {
    /// Why a library refused a body.
    pub(crate) fn of(status: StatusCode, error: &(dyn Error + 'static)) -> Self {
        let mut causes = successors(Some(error), |error| (**error).source());
        let ended = causes.find_map(|error| {
            let slow = error.is::<SlowBody>().then_some(Self::TooSlow);
            slow.or(error.is::<NoRoom>().then_some(Self::NoRoom))
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

/// The bytes of a body that keeps to the route's limit and comes in time. One that announces more is refused before a
/// byte of it is read; one that does not is cut off by [`DefaultBodyLimit`](axum::extract::DefaultBodyLimit).
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

/// Whether the body says that it is over the route's limit.
pub(crate) fn announces_too_much(request: &Request) -> bool {
    announced(request).is_some_and(|bytes| bytes > body_limit(request))
}

/// How many bytes the body says it has.
pub(crate) fn announced(request: &Request) -> Option<usize> {
    let length = request.headers().get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

impl From<Unread> for Problem {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::TooLarge => Self::new(Kind::PayloadTooLarge, "the body is too large"),
            Unread::TooSlow => Self::new(Kind::TooSlow, Kind::TooSlow.example()),
            Unread::NoRoom => Self::unavailable(NoRoom),
            Unread::BrokenOff => {
                Self::invalid_request("the body broke off: send the request again")
            }
        }
    }
}
