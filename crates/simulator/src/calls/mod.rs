//! From a request to WeChat's answer: the account, the faults, the effect of the call.

mod call;
mod issue;
mod manage;
mod query;
mod send;
mod sign_in;

use std::sync::Arc;
use std::time::Duration;

use crate::account::AccountKind;
use crate::app::SimulatedApp;
use crate::endpoint::CallEndpoint;
use crate::faults::Effect;
use crate::message::SimulatedMessage;
use crate::refusal::Refusal;
use crate::world::World;

use self::call::{Acted, CallReply, check_method, take_quota};
pub(crate) use self::call::{Ending, ParsedCall, Served};

/// The account and user of a call, for the filters of faults and for counters.
#[derive(Clone, Copy, Default)]
struct CallSubject<'a> {
    app: Option<&'a Arc<SimulatedApp>>,
    openid: Option<&'a str>,
}

/// Answers one call.
pub(crate) fn serve(world: &World, call: &ParsedCall<'_>) -> Served {
    match call.endpoint {
        CallEndpoint::Token | CallEndpoint::StableToken | CallEndpoint::ForcedToken => {
            let request = issue::IssueRequest::read(world, call);
            by_secret(world, call, &request, |request| &request.app, issue::act)
        }
        CallEndpoint::ClearQuotaV2 => {
            let app = manage::read_v2(world, call);
            by_secret(
                world,
                call,
                &app,
                |app| app,
                |_, call, app| manage::clear(call, app),
            )
        }
        CallEndpoint::CodeToSession => {
            let request = sign_in::SignInRequest::read(world, call);
            by_secret(world, call, &request, |request| &request.app, sign_in::act)
        }
        CallEndpoint::SubscribeSend | CallEndpoint::WxopenSend | CallEndpoint::TemplateSend => {
            let (app, pass) = world.pass(&query::value(call.query, "access_token"), call.now);
            let message = SimulatedMessage::parse(call.body);
            let who = CallSubject {
                app: app.as_ref(),
                openid: message.as_ref().ok().map(|message| &*message.touser),
            };
            run(world, call, who, |delay| {
                let admitted = admit(call, app.as_ref(), pass);
                match admitted.and_then(|app| {
                    message
                        .as_ref()
                        .map(|message| (app, message))
                        .map_err(Clone::clone)
                }) {
                    Ok((app, message)) => send::act(world, call, app, message, delay),
                    Err(refusal) => Err(refusal).into(),
                }
            })
        }
        CallEndpoint::GetTemplate
        | CallEndpoint::WxopenTemplates
        | CallEndpoint::PrivateTemplates
        | CallEndpoint::QuotaGet
        | CallEndpoint::ApiDomainIp
        | CallEndpoint::ClearQuota => {
            let (app, pass) = world.pass(&query::value(call.query, "access_token"), call.now);
            let who = CallSubject {
                app: app.as_ref(),
                openid: None,
            };
            run(world, call, who, |_| {
                admit(call, app.as_ref(), pass)
                    .and_then(|app| manage::act(call, app))
                    .into()
            })
        }
        CallEndpoint::Unknown => run(world, call, CallSubject::default(), |_| {
            Err(Refusal::known(40066)).into()
        }),
    }
}

/// Answers a call that names the account by secret.
fn by_secret<R>(
    world: &World,
    call: &ParsedCall<'_>,
    request: &Result<R, Refusal>,
    app: impl Fn(&R) -> &Arc<SimulatedApp>,
    act: impl FnOnce(&World, &ParsedCall<'_>, &R) -> CallReply,
) -> Served {
    let who = CallSubject {
        app: request.as_ref().ok().map(app),
        openid: None,
    };
    run(world, call, who, |_| {
        let request = request.as_ref().map_err(Clone::clone);
        request.and_then(|request| act(world, call, request)).into()
    })
}

/// Applies the faults around `act`, and counts the outcome. `act` runs when the request arrives, and only the answer is
/// delayed: a message is sent even if the caller stops waiting.
fn run(
    world: &World,
    call: &ParsedCall<'_>,
    who: CallSubject<'_>,
    act: impl FnOnce(Duration) -> Acted,
) -> Served {
    let counters = who.app.map_or(&world.orphans, |app| &app.counters);
    let plan = world
        .faults
        .plan(call.path, who.app.map(|app| &*app.appid), who.openid);
    let delay = plan.delay + world.latency_of(who.app.map(Arc::as_ref));
    let untouched = |kind: &str, ending| {
        counters.count_broken(kind);
        Served {
            delay,
            ending,
            busy: None,
        }
    };
    let acted = match &plan.effect {
        Some(Effect::BreakBefore) => return untouched("break_before", Ending::Break),
        Some(Effect::Hang { acted: false }) => return untouched("hang", Ending::Hang),
        Some(Effect::Status { status, body }) => {
            let page = body.clone().unwrap_or_else(|| error_page(*status));
            return untouched(&format!("status_{status}"), Ending::Html(*status, page));
        }
        Some(Effect::Errcode { errcode, errmsg }) => Err(match errmsg {
            Some(errmsg) => Refusal::worded(*errcode, errmsg.clone()),
            None => Refusal::known(*errcode),
        })
        .into(),
        _ => act(delay),
    };
    let (code, json) = match acted.reply {
        Ok(json) => (0, json),
        Err(refusal) => (refusal.code, refusal.render(call.now, world.mint.salt())),
    };
    counters.count(call.endpoint, code);
    let ending = match plan.effect {
        Some(Effect::BreakAfter) => {
            counters.count_broken("break_after");
            Ending::Break
        }
        Some(Effect::StatusAfter { status }) => {
            counters.count_broken(&format!("status_{status}_after"));
            Ending::Html(status, error_page(status))
        }
        Some(Effect::Hang { .. }) => {
            counters.count_broken("hang");
            Ending::Hang
        }
        Some(Effect::OddAnswer { shape }) => Ending::Odd(shape.dress(json), shape),
        _ => Ending::Json(json),
    };
    Served {
        delay,
        ending,
        busy: acted.busy,
    }
}

fn error_page(status: u16) -> String {
    format!(
        "<html>\r\n<head><title>{status}</title></head>\r\n<body><center><h1>{status}</h1></center></body>\r\n</html>\r\n"
    )
}

/// The checks of every business call: method, token, the account's state and kind, the account's quotas.
fn admit<'a>(
    call: &ParsedCall<'_>,
    app: Option<&'a Arc<SimulatedApp>>,
    pass: Result<(), Refusal>,
) -> Result<&'a Arc<SimulatedApp>, Refusal> {
    check_method(call)?;
    pass?;
    let app = app.ok_or_else(|| Refusal::known(40014))?;
    let settings = app.settings();
    settings
        .state
        .check(settings.kind, false, &call.ip.to_string())?;
    let wanted = match call.endpoint {
        CallEndpoint::TemplateSend | CallEndpoint::PrivateTemplates => {
            Some(AccountKind::OfficialAccount)
        }
        CallEndpoint::SubscribeSend
        | CallEndpoint::WxopenSend
        | CallEndpoint::GetTemplate
        | CallEndpoint::WxopenTemplates => Some(AccountKind::MiniProgram),
        _ => None,
    };
    if wanted.is_some_and(|wanted| wanted != settings.kind) {
        return Err(Refusal::known(48001));
    }
    if matches!(
        call.endpoint,
        CallEndpoint::WxopenSend | CallEndpoint::WxopenTemplates
    ) && let Some(code) = settings.wxopen_withdrawn
    {
        return Err(Refusal::known(code));
    }
    take_quota(call, app)?;
    Ok(app)
}

#[cfg(test)]
mod tests;
