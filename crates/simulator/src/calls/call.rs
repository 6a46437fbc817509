//! A call and the forms of an answer, with the checks that many calls share.

use std::time::Duration;

use crate::app::{InFlightGuard, SimulatedApp};
use crate::endpoint::CallEndpoint;
use crate::faults::Shape;
use crate::quota;
use crate::refusal::Refusal;

/// A parsed request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ParsedCall<'a> {
    pub(crate) endpoint: CallEndpoint,
    pub(crate) path: &'a str,
    pub(crate) is_get: bool,
    pub(crate) query: &'a str,
    pub(crate) body: &'a [u8],
    /// The caller's address, which 40164 shows.
    pub(crate) ip: std::net::IpAddr,
    pub(crate) now: i64,
}

/// What the server does with the connection, and when.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) delay: Duration,
    pub(crate) ending: Ending,
    /// The in-flight mark of the recipient, held until the answer is sent.
    pub(crate) busy: Option<InFlightGuard>,
}

/// How a call ends for the caller.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// HTTP 200 with this JSON.
    Json(String),
    /// HTTP 200 with this JSON in an odd form.
    Odd(String, Shape),
    /// Another HTTP status with this HTML.
    Html(u16, String),
    /// The connection is aborted.
    Break,
    /// The call is never answered.
    Hang,
}

/// The JSON of a success, or the refusal.
pub(super) type CallReply = Result<String, Refusal>;

/// The result of a call's action.
pub(super) struct Acted {
    pub(super) reply: CallReply,
    pub(super) busy: Option<InFlightGuard>,
}

impl From<CallReply> for Acted {
    fn from(reply: CallReply) -> Self {
        Self { reply, busy: None }
    }
}

/// Counts a call against the endpoint's limits of the minute (45011) and of the day (45009).
pub(super) fn take_quota(call: &ParsedCall<'_>, app: &SimulatedApp) -> Result<(), Refusal> {
    let limits = app.settings().limits;
    let place = call.endpoint.index();
    if !app.quotas.minutes[place].take(quota::minute(call.now), limits.of_minute(call.endpoint)) {
        return Err(Refusal::known(45011));
    }
    if !app.quotas.days[place].take(quota::day(call.now), limits.of_day(call.endpoint)) {
        return Err(Refusal::known(45009));
    }
    Ok(())
}

/// Fails if the HTTP method is not the method of the endpoint: 43001, 43002.
pub(super) fn check_method(call: &ParsedCall<'_>) -> Result<(), Refusal> {
    match (call.endpoint.is_get(), call.is_get) {
        (true, false) => Err(Refusal::known(43001)),
        (false, true) => Err(Refusal::known(43002)),
        _ => Ok(()),
    }
}
