//! `GET /cgi-bin/token` and `POST /cgi-bin/stable_token`.

use std::sync::Arc;

use serde::Deserialize;

use super::call::{CallReply, ParsedCall, check_method, take_quota};
use super::query;
use crate::app::SimulatedApp;
use crate::endpoint::CallEndpoint;
use crate::message::Text;
use crate::quota;
use crate::refusal::Refusal;
use crate::sync::lock;
use crate::world::{World, ttl_ms};

/// A token fetch that names an account.
pub(super) struct IssueRequest {
    pub(super) app: Arc<SimulatedApp>,
    secret: String,
    force: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StableBody<'a> {
    #[serde(borrow)]
    grant_type: Text<'a>,
    #[serde(borrow)]
    appid: Text<'a>,
    #[serde(borrow)]
    secret: Text<'a>,
    force_refresh: bool,
}

impl IssueRequest {
    /// Reads a fetch: 43001/43002, 44002, 47001, 41002, 41004, 40002, 40013.
    pub(super) fn read(world: &World, call: &ParsedCall<'_>) -> Result<Self, Refusal> {
        check_method(call)?;
        let body = if call.endpoint == CallEndpoint::Token {
            let text = |name| Text(query::value(call.query, name));
            StableBody {
                grant_type: text("grant_type"),
                appid: text("appid"),
                secret: text("secret"),
                force_refresh: false,
            }
        } else if call.body.is_empty() {
            return Err(Refusal::known(44002));
        } else {
            serde_json::from_slice(call.body).map_err(|_| Refusal::known(47001))?
        };
        if body.appid.is_empty() {
            return Err(Refusal::known(41002));
        }
        if body.secret.is_empty() {
            return Err(Refusal::known(41004));
        }
        if &*body.grant_type != "client_credential" {
            return Err(Refusal::known(40002));
        }
        Ok(Self {
            app: world.resolve(&body.appid)?,
            secret: body.secret.to_string(),
            force: body.force_refresh,
        })
    }
}

/// Issues a token. Every fetch for a known account costs quota, even with a wrong secret.
pub(super) fn act(world: &World, call: &ParsedCall<'_>, request: &IssueRequest) -> CallReply {
    let app = &request.app;
    take_quota(call, app)?;
    check_secret(call, app, &request.secret)?;
    let settings = app.settings();
    let ticket = if call.endpoint == CallEndpoint::Token {
        world.issue_legacy(app, call.now)
    } else {
        let mut book = lock(&app.tokens);
        let ticket = if request.force && book.may_force(call.now) {
            let spent = &app.quotas.days[CallEndpoint::ForcedToken.index()];
            if !spent.take(quota::day(call.now), settings.limits.forced_token) {
                app.counters.count(CallEndpoint::ForcedToken, 45009);
                return Err(Refusal::known(45009));
            }
            app.counters.count(CallEndpoint::ForcedToken, 0);
            book.force_stable(world.mint.token(), call.now, ttl_ms(&settings))
        } else {
            book.fetch_stable(|| world.mint.token(), call.now, ttl_ms(&settings))
        };
        world.admit(app, &ticket);
        ticket
    };
    Ok(format!(
        "{{\"access_token\":\"{}\",\"expires_in\":{}}}",
        ticket.text,
        ticket.expires_in(call.now)
    ))
}

/// Fails if the secret is wrong (40125) or the account's state refuses token fetches.
pub(super) fn check_secret(
    call: &ParsedCall<'_>,
    app: &SimulatedApp,
    secret: &str,
) -> Result<(), Refusal> {
    let settings = app.settings();
    if settings
        .secret
        .as_deref()
        .is_some_and(|right| right != secret)
    {
        return Err(Refusal::known(40125));
    }
    settings
        .state
        .check(settings.kind, true, &call.ip.to_string())
}
