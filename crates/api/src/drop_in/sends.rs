//! The three sends: WeChat's body in, intake and engine, WeChat's answer out.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{Request, State},
};
use chrono::{DateTime, SecondsFormat, Utc};
use delivery::{Pause, SubmitError};
use domain::{
    message::{self, Channel, MiniprogramLink},
    scope::Scope,
    template::Knowledge,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use store::QUOTA_EXHAUSTED;
use utoipa::ToSchema;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouter},
    routes,
};

use super::{
    gate::{Parameters, enter},
    outcome,
    reply::{BODY_TOO_LARGE, EMPTY_BODY, INVALID_ARGUMENT, NOT_JSON, Reply},
    tokens::wants_post,
};
use crate::{
    ApiState,
    extract::{Unread, read_whole},
    openapi::Always,
};

/// How long a message is worth sending: after that it can be sent no more, so the caller may be told to try again.
const TTL_SECONDS: u64 = 20;
/// How long the caller waits: until the message has expired and a send that began in its last moment has ended.
const WAIT: Duration = Duration::from_secs(TTL_SECONDS + 12);

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(post_only(routes!(send_subscribe)))
        .routes(post_only(routes!(send_wxopen_template)))
        .routes(post_only(routes!(send_template)))
}

fn post_only(
    (schemas, paths, methods): UtoipaMethodRouter<ApiState>,
) -> UtoipaMethodRouter<ApiState> {
    (schemas, paths, methods.fallback(wants_post))
}

/// A message as SDKs write it: the fields of all three sends. Others are ignored, as WeChat does, and what is empty
/// counts as absent.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = WechatMessage, example = json!({
    "touser": "oQ8fX4uT2kLmNpR7sVwYzA1bC3dE",
    "template_id": "8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k",
    "page": "pages/order?id=1",
    "data": {"thing1": {"value": "保温杯"}},
}))]
struct Sent {
    /// The receiver's openid under the app.
    #[schema(example = "oQ8fX4uT2kLmNpR7sVwYzA1bC3dE")]
    touser: String,
    /// The template's id in the account.
    #[schema(example = "8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k")]
    template_id: String,
    /// The template's values.
    #[schema(value_type = Option<Object>)]
    data: Option<Map<String, Value>>,
    /// Not at `template/send`: the page that the card opens.
    #[schema(example = "pages/order?id=1")]
    page: Option<String>,
    /// `subscribe/send`: `developer`, `trial` or `formal`.
    miniprogram_state: Option<String>,
    /// `subscribe/send`: `zh_CN`, `en_US`, `zh_HK` or `zh_TW`.
    lang: Option<String>,
    /// `wxopen/template/send`: the form id or prepay id that permits the send.
    form_id: Option<String>,
    /// `wxopen/template/send`: the keyword to show large.
    emphasis_keyword: Option<String>,
    /// `template/send`: the web page that the card opens.
    url: Option<String>,
    /// `template/send`: the mini-program that the card opens, `appid` and `pagepath`.
    #[schema(value_type = Option<Object>)]
    miniprogram: Option<Value>,
    /// `template/send`: WeChat sends the same openid the same id once within ten minutes.
    client_msg_id: Option<String>,
}

/// Send a subscribe message, as WeChat's `subscribe/send`
///
/// The message goes through the gateway as every other does: quota, limits, log, and a second try where the app's token
/// has died. The answer comes when it has ended, after 20 seconds with -1 where it could not be sent: then it will not
/// be sent any more, and the call may be repeated. WeChat's own refusals come as WeChat said them. 99001: the connection
/// to WeChat broke, so the message may or may not have arrived; do not repeat it. An app that rests (`pause` in
/// `GET /v1/apps/{appid}`) is -1 at once, with the reason. Who hangs up before the answer calls the message back, unless
/// it has left.
#[utoipa::path(
    post, path = "/cgi-bin/message/subscribe/send", tag = super::TAG, security(("wechat" = [])),
    request_body = Sent,
    responses((status = 200, description = "What became of it.", body = Reply), Always),
)]
async fn send_subscribe(State(state): State<ApiState>, request: Request) -> Result<Reply, Reply> {
    send(&state, Channel::Subscribe, request).await
}

/// Send a mini-program template message, as WeChat's `wxopen/template/send`
///
/// As `subscribe/send`. WeChat gives these no `msgid`.
#[utoipa::path(
    post, path = "/cgi-bin/message/wxopen/template/send", tag = super::TAG, security(("wechat" = [])),
    request_body = Sent,
    responses((status = 200, description = "What became of it.", body = Reply), Always),
)]
async fn send_wxopen_template(
    State(state): State<ApiState>,
    request: Request,
) -> Result<Reply, Reply> {
    send(&state, Channel::Template, request).await
}

/// Send an official account's template message, as WeChat's `template/send`
///
/// As `subscribe/send`.
#[utoipa::path(
    post, path = "/cgi-bin/message/template/send", tag = super::TAG, security(("wechat" = [])),
    request_body = Sent,
    responses((status = 200, description = "What became of it.", body = Reply), Always),
)]
async fn send_template(State(state): State<ApiState>, request: Request) -> Result<Reply, Reply> {
    send(&state, Channel::Official, request).await
}

async fn send(state: &ApiState, channel: Channel, request: Request) -> Result<Reply, Reply> {
    let query = Parameters::of(request.uri());
    let entrant = enter(state, request.extensions(), &query, Scope::MessagesSend).await?;
    let body = body_of(request).await?;
    let sent: Sent = serde_json::from_slice(&body)
        .map_err(|error| Reply::refused(NOT_JSON, format!("data format error: {error}")))?;
    let mut request = sent.on(channel)?;
    let templates = state.delivery.templates();
    let wanted = [(channel, request.template_id.as_str())];
    let catalog = templates
        .catalog(entrant.tenant, &entrant.appid, wanted)
        .await;
    let template = catalog.look_up(channel, &request.template_id);
    ignore_strangers(&mut request, template);
    let draft = request
        .check_against((state.now)(), template)
        .map_err(|unfit| Reply::from(unfit.violations))?;
    let app = state
        .delivery
        .apps()
        .get(Some(entrant.tenant), &entrant.appid);
    if let Some(pause) = app.await?.pause {
        rested(&pause, (state.now)())?;
    }
    // Who hangs up has given up, and most SDKs call again: what has not left is not sent then.
    let attended = state
        .delivery
        .submit_attended(entrant.tenant, &entrant.appid, draft, WAIT)
        .await?;
    let id = attended.id;
    match attended.message {
        Ok(message) => Ok(outcome::of(&message)),
        // It is in the queue: nobody knows what becomes of it.
        Err(error) => {
            tracing::warn!(%error, "cannot wait for a message's end");
            let what = format!("see GET /v1/messages/{id} for what became of the message");
            Err(Reply::uncertain(&what))
        }
    }
}

/// Refuses at once what would only wait for the end of its ttl: the app rests for longer.
fn rested(pause: &Pause, now: DateTime<Utc>) -> Result<(), Reply> {
    if pause.until <= now + Duration::from_secs(TTL_SECONDS) {
        return Ok(());
    }
    if pause.reason == QUOTA_EXHAUSTED {
        return Err(Reply::from(SubmitError::QuotaExhausted {
            reset_at: pause.until,
        }));
    }
    let until = pause.until.to_rfc3339_opts(SecondsFormat::Secs, true);
    let detail = pause
        .detail
        .as_deref()
        .unwrap_or("see GET /v1/apps/{appid}");
    let reason = &pause.reason;
    Err(Reply::busy(&format!(
        "the app rests until {until} ({reason}): {detail}"
    )))
}

/// Leaves out what the template has no place for: WeChat ignores it, and so do callers who never learnt of it.
fn ignore_strangers(request: &mut message::Request, template: Knowledge<'_>) {
    if let (Knowledge::Template(template), Some(data)) = (template, &mut request.data)
        && template.keys().next().is_some()
    {
        data.retain(|key, _| template.keys().any(|wanted| wanted == key));
    }
}

/// The body, which must be there.
pub(super) async fn body_of(request: Request) -> Result<Bytes, Reply> {
    let body = read_whole(request, &()).await.map_err(unread)?;
    if body.is_empty() {
        return Err(Reply::refused(EMPTY_BODY, "empty post data"));
    }
    Ok(body)
}

/// Why a body was not read.
pub(super) fn unread(unread: Unread) -> Reply {
    match unread {
        Unread::TooLarge => Reply::refused(
            BODY_TOO_LARGE,
            "content size out of limit: the body is too large for this call",
        ),
        Unread::TooSlow => Reply::busy("the body was not there in time"),
        Unread::NoRoom => Reply::busy("the gateway cannot take more at the moment"),
        Unread::BrokenOff => Reply::busy("the body broke off"),
    }
}

impl Sent {
    /// The message that it asks for. Fields of other sends are left out, as WeChat ignores them.
    fn on(self, channel: Channel) -> Result<message::Request, Reply> {
        let bare = message::Request {
            channel,
            touser: self.touser,
            template_id: self.template_id,
            data: self.data.map(known),
            ttl: Some(TTL_SECONDS),
            ..message::Request::default()
        };
        Ok(match channel {
            Channel::Subscribe => message::Request {
                page: filled(self.page),
                miniprogram_state: word("miniprogram_state", self.miniprogram_state)?,
                lang: word("lang", self.lang)?,
                ..bare
            },
            Channel::Template => message::Request {
                page: filled(self.page),
                form_id: filled(self.form_id),
                emphasis_keyword: filled(self.emphasis_keyword),
                ..bare
            },
            Channel::Official => message::Request {
                url: filled(self.url),
                miniprogram: link(self.miniprogram.as_ref()),
                client_msg_id: filled(self.client_msg_id),
                ..bare
            },
        })
    }
}

/// The values without what WeChat ignores.
fn known(mut data: Map<String, Value>) -> Map<String, Value> {
    for item in data.values_mut().filter_map(Value::as_object_mut) {
        item.retain(|member, _| message::DATA_MEMBERS.contains(&member.as_str()));
    }
    data
}

fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// One of the words that a field may have.
fn word<T: DeserializeOwned>(field: &str, text: Option<String>) -> Result<Option<T>, Reply> {
    let Some(text) = filled(text) else {
        return Ok(None);
    };
    let word = serde_json::from_value(Value::String(text));
    word.map(Some).map_err(|error| {
        Reply::refused(
            INVALID_ARGUMENT,
            format!("argument invalid! {field}: {error}"),
        )
    })
}

fn link(value: Option<&Value>) -> Option<MiniprogramLink> {
    let text = |name: &str| value?.get(name)?.as_str().map(str::to_owned);
    Some(MiniprogramLink {
        appid: filled(text("appid"))?,
        pagepath: filled(text("pagepath")).or_else(|| filled(text("path"))),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn on(channel: Channel, body: Value) -> Result<message::Request, i64> {
        let sent: Sent = serde_json::from_value(body).unwrap();
        sent.on(channel).map_err(|reply| reply.errcode())
    }

    #[test]
    fn what_sdks_leave_empty_is_absent_and_what_they_add_is_ignored() {
        let body = json!({
            "touser": "o", "template_id": "t", "data": {"thing1": {"value": "x", "color": "#173177"}},
            "page": "", "lang": "", "miniprogram_state": null, "url": "", "miniprogram": {"appid": "", "pagepath": ""},
            "color": "#173177", "topcolor": null, "form_id": "f",
        });
        let subscribe = on(Channel::Subscribe, body.clone()).unwrap();
        assert_eq!((subscribe.page, subscribe.form_id), (None, None));
        assert_eq!(subscribe.ttl, Some(20));
        let template = on(Channel::Template, body.clone()).unwrap();
        assert_eq!(template.form_id.as_deref(), Some("f"));
        let official = on(Channel::Official, body).unwrap();
        assert_eq!((official.url, official.miniprogram), (None, None));
    }

    #[test]
    fn words_are_wechats() {
        let of = |state: &str| {
            let body = json!({"touser": "o", "template_id": "t", "miniprogram_state": state, "lang": "en_US"});
            on(Channel::Subscribe, body)
        };
        let trial = of("trial").unwrap();
        assert_eq!(
            trial.miniprogram_state,
            Some(message::MiniprogramState::Trial)
        );
        assert_eq!(trial.lang, Some(message::Lang::EnUs));
        assert_eq!(of("beta").unwrap_err(), INVALID_ARGUMENT);
    }
}
