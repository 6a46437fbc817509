//! Quotas and templates.

use std::sync::Arc;

use serde::Deserialize;

use super::call::{CallReply, ParsedCall, check_method};
use super::{issue, query};
use crate::app::SimulatedApp;
use crate::endpoint::CallEndpoint;
use crate::message::Text;
use crate::quota;
use crate::refusal::Refusal;
use crate::world::World;

/// Without an `errcode`, as WeChat answers.
const API_DOMAIN_IP: &str = r#"{"ip_list":["101.226.103.0/25","203.205.254.7"]}"#;
const OK: &str = r#"{"errcode":0,"errmsg":"ok"}"#;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Body<'a> {
    #[serde(borrow)]
    appid: Text<'a>,
    #[serde(borrow)]
    appsecret: Text<'a>,
    #[serde(borrow)]
    cgi_path: Text<'a>,
    offset: usize,
    count: usize,
}

fn body<'a>(call: &ParsedCall<'a>) -> Result<Body<'a>, Refusal> {
    serde_json::from_slice(call.body).map_err(|_| Refusal::known(47001))
}

/// Answers the calls that need a token and send nothing.
pub(super) fn act(call: &ParsedCall<'_>, app: &Arc<SimulatedApp>) -> CallReply {
    match call.endpoint {
        CallEndpoint::GetTemplate => Ok(templates(app)),
        CallEndpoint::WxopenTemplates => wxopen_templates(call, app),
        CallEndpoint::PrivateTemplates => Ok(private_templates(app)),
        CallEndpoint::QuotaGet => quota_get(call, app),
        CallEndpoint::ApiDomainIp => Ok(API_DOMAIN_IP.to_owned()),
        _ if *body(call)?.appid != *app.appid => Err(Refusal::known(40013)),
        _ => clear(call, app),
    }
}

/// Reads `clear_quota/v2`, which names the account by secret, in the body or in the query: WeChat's documentation is
/// not clear on the place.
pub(super) fn read_v2(world: &World, call: &ParsedCall<'_>) -> Result<Arc<SimulatedApp>, Refusal> {
    check_method(call)?;
    let body = if call.body.is_empty() {
        Body {
            appid: Text(query::value(call.query, "appid")),
            appsecret: Text(query::value(call.query, "appsecret")),
            ..Body::default()
        }
    } else {
        body(call)?
    };
    if body.appid.is_empty() {
        return Err(Refusal::known(41002));
    }
    if body.appsecret.is_empty() {
        return Err(Refusal::known(41004));
    }
    let app = world.resolve(&body.appid)?;
    issue::check_secret(call, &app, &body.appsecret)?;
    Ok(app)
}

/// Sets the counters of the day and the minute to zero, as often a month as the account's limit allows: 48006.
pub(super) fn clear(call: &ParsedCall<'_>, app: &Arc<SimulatedApp>) -> CallReply {
    let limit = app.settings().limits.clear_quota;
    if !app.quotas.clears.take(quota::month(call.now), limit) {
        return Err(Refusal::known(48006));
    }
    app.quotas.clear();
    Ok(OK.to_owned())
}

fn quota_get(call: &ParsedCall<'_>, app: &SimulatedApp) -> CallReply {
    let endpoint = match CallEndpoint::of_path(&body(call)?.cgi_path) {
        CallEndpoint::Unknown => return Err(Refusal::known(76021)),
        endpoint => endpoint,
    };
    let limits = app.settings().limits;
    let limit = limits.of_day(endpoint);
    let used = app.quotas.days[endpoint.index()].used(quota::day(call.now));
    Ok(format!(
        "{{\"errcode\":0,\"errmsg\":\"ok\",\"quota\":{{\"daily_limit\":{limit},\"used\":{used},\"remain\":{}}},\
         \"rate_limit\":{{\"call_count\":{},\"refresh_second\":60}}}}",
        limit.saturating_sub(used),
        limits.of_minute(endpoint),
    ))
}

/// A page of the list of form-id templates, with 20 templates at most. The last page may be empty.
fn wxopen_templates(call: &ParsedCall<'_>, app: &SimulatedApp) -> CallReply {
    let Body { offset, count, .. } = body(call)?;
    let settings = app.settings();
    let page = settings
        .wxopen_templates
        .iter()
        .skip(offset)
        .take(count.min(20));
    let list: Vec<serde_json::Value> = page
        .map(|template| {
            serde_json::json!({
                "template_id": template.pri_tmpl_id, "title": template.title,
                "content": template.content, "example": template.example,
            })
        })
        .collect();
    let list = serde_json::Value::from(list);
    Ok(format!(
        "{{\"errcode\":0,\"errmsg\":\"ok\",\"list\":{list}}}"
    ))
}

/// An official account's list of templates, which has no `errcode`.
fn private_templates(app: &SimulatedApp) -> String {
    let settings = app.settings();
    let list = settings.templates.iter().map(|template| {
        serde_json::json!({
            "template_id": template.pri_tmpl_id, "title": template.title, "primary_industry": "IT",
            "deputy_industry": "IT", "content": template.content, "example": template.example,
        })
    });
    serde_json::json!({ "template_list": list.collect::<Vec<_>>() }).to_string()
}

fn templates(app: &SimulatedApp) -> String {
    let data = serde_json::json!(app.settings().templates);
    format!("{{\"errcode\":0,\"errmsg\":\"ok\",\"data\":{data}}}")
}
