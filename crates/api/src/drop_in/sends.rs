//! The three sends: WeChat's body comes in, intake and engine send the message, WeChat's answer goes out.

use std::time::Duration;

use axum::extract::{Request, State};
use chrono::{DateTime, SecondsFormat, Utc};
use delivery::SubmitError;
use domain::{
    message::{self, Channel, MiniprogramLink},
    scope::Scope,
    template::Knowledge,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use store::{Pause, QUOTA_EXHAUSTED};
use utoipa::ToSchema;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouter},
    routes,
};

use super::{
    gate::{Parameters, enter},
    json::{self, body_of, invalid, text},
    outcome,
    reply::WechatReply,
    tokens::wants_post,
};
use crate::{ApiState, openapi::Always};

/// The ttl of a message, in seconds. An expired message is never sent, so the caller may try again.
const TTL_SECONDS: u64 = 20;
/// How long the caller waits: until the message has expired and an attempt that began in the last moment has ended.
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

/// A message as SDKs write it: the fields of all three sends. Like WeChat, the gateway ignores unknown fields, and an
/// empty field counts as absent.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = WechatMessage, example = json!({
    "touser": "oQ8fX4uT2kLmNpR7sVwYzA1bC3dE",
    "template_id": "8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k",
    "page": "pages/order?id=1",
    "data": {"thing1": {"value": "保温杯"}},
}))]
struct SentMessage {
    /// The recipient's openid under the app.
    #[schema(value_type = String, default = "", example = "oQ8fX4uT2kLmNpR7sVwYzA1bC3dE")]
    touser: Value,
    /// The template's id in the account.
    #[schema(value_type = String, default = "", example = "8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k")]
    template_id: Value,
    /// The template's values.
    #[schema(value_type = Option<Object>)]
    data: Value,
    /// Not for `template/send`: the page that the card opens.
    #[schema(value_type = Option<String>, example = "pages/order?id=1")]
    page: Value,
    /// `subscribe/send`: `developer`, `trial` or `formal`.
    #[schema(value_type = Option<String>)]
    miniprogram_state: Value,
    /// `subscribe/send`: `zh_CN`, `en_US`, `zh_HK` or `zh_TW`.
    #[schema(value_type = Option<String>)]
    lang: Value,
    /// `wxopen/template/send`: the form id or prepay id that permits the send.
    #[schema(value_type = Option<String>)]
    form_id: Value,
    /// `wxopen/template/send`: the keyword to show large.
    #[schema(value_type = Option<String>)]
    emphasis_keyword: Value,
    /// `template/send`: the web page that the card opens.
    #[schema(value_type = Option<String>)]
    url: Value,
    /// `template/send`: the mini-program that the card opens, `appid` and `pagepath`.
    #[schema(value_type = Option<Object>)]
    miniprogram: Value,
    /// `template/send`: WeChat sends only one message with the same id to the same openid within ten minutes.
    #[schema(value_type = Option<String>)]
    client_msg_id: Value,
}

/// Send a subscribe message, as WeChat's `subscribe/send`
///
/// The message goes through the gateway like every other message: quota, limits, log, and a second attempt if the app's
/// token has died. The answer comes when the message has ended. After 20 seconds an unsent message gets -1: the gateway
/// will not send this message any more, and you may repeat the call. WeChat's own refusals come unchanged. 99001: the
/// connection to WeChat broke, so the message may or may not have arrived; do not repeat the call. For a paused app
/// (`pause` in `GET /v1/apps/{appid}`) the answer is -1 at once, with the reason. A client that hangs up before the
/// answer cancels the message, unless the gateway has sent the message already.
#[utoipa::path(
    post, path = "/cgi-bin/message/subscribe/send", tag = super::TAG, security(("wechat" = [])),
    request_body = SentMessage,
    responses((status = 200, description = "The result of the send: `errcode` 0 and `msgid`, or another `errcode` with \
        its `errmsg`.", body = WechatReply), Always),
)]
async fn send_subscribe(
    State(state): State<ApiState>,
    request: Request,
) -> Result<WechatReply, WechatReply> {
    send(&state, Channel::Subscribe, request).await
}

/// Send a mini-program template message, as WeChat's `wxopen/template/send`
///
/// Works like `subscribe/send`. WeChat gives these messages no `msgid`.
#[utoipa::path(
    post, path = "/cgi-bin/message/wxopen/template/send", tag = super::TAG, security(("wechat" = [])),
    request_body = SentMessage,
    responses((status = 200, description = "The result of the send: `errcode` 0 and `msgid`, or another `errcode` with \
        its `errmsg`.", body = WechatReply), Always),
)]
async fn send_wxopen_template(
    State(state): State<ApiState>,
    request: Request,
) -> Result<WechatReply, WechatReply> {
    send(&state, Channel::Template, request).await
}

/// Send an official account's template message, as WeChat's `template/send`
///
/// Works like `subscribe/send`.
#[utoipa::path(
    post, path = "/cgi-bin/message/template/send", tag = super::TAG, security(("wechat" = [])),
    request_body = SentMessage,
    responses((status = 200, description = "The result of the send: `errcode` 0 and `msgid`, or another `errcode` with \
        its `errmsg`.", body = WechatReply), Always),
)]
async fn send_template(
    State(state): State<ApiState>,
    request: Request,
) -> Result<WechatReply, WechatReply> {
    send(&state, Channel::Official, request).await
}

async fn send(
    state: &ApiState,
    channel: Channel,
    request: Request,
) -> Result<WechatReply, WechatReply> {
    let query = Parameters::of(request.uri());
    let entrant = enter(state, request.extensions(), &query, Scope::MessagesSend).await?;
    let body = body_of(request).await?;
    let sent: SentMessage = json::read(&body)?;
    let mut request = sent.on(channel)?;
    let templates = state.delivery.templates();
    let wanted = [(channel, request.template_id.as_str())];
    let catalog = templates
        .catalog(entrant.tenant, &entrant.appid, wanted)
        .await;
    let template = catalog.look_up(channel, &request.template_id);
    drop_unknown_keys(&mut request, template);
    let draft = request
        .check_against((state.now)(), template, catalog.value_rules())
        .map_err(|unfit| WechatReply::from(unfit.violations))?;
    let app = state
        .delivery
        .apps()
        .get(Some(entrant.tenant), &entrant.appid);
    if let Some(pause) = app.await?.pause {
        refuse_paused(&pause, (state.now)())?;
    }
    // A client that hangs up has given up, and most SDKs repeat the call: an unsent message is then not sent.
    let attended = state
        .delivery
        .submit_attended(entrant.tenant, &entrant.appid, draft, WAIT)
        .await?;
    let id = attended.id;
    match attended.message {
        Ok(message) => Ok(outcome::of(&message)),
        // The message is in the queue, and its outcome is unknown.
        Err(error) => {
            tracing::warn!(%error, "cannot wait for a message's end");
            let what = format!("see GET /v1/messages/{id} for the outcome of the message");
            Err(WechatReply::uncertain(&what))
        }
    }
}

/// Refuses a message at once if the app is paused for longer than the message's ttl.
fn refuse_paused(pause: &Pause, now: DateTime<Utc>) -> Result<(), WechatReply> {
    if pause.until <= now + Duration::from_secs(TTL_SECONDS) {
        return Ok(());
    }
    if pause.reason == QUOTA_EXHAUSTED {
        return Err(WechatReply::from(SubmitError::QuotaExhausted {
            reset_at: pause.until,
        }));
    }
    let until = pause.until.to_rfc3339_opts(SecondsFormat::Secs, true);
    let detail = pause
        .detail
        .as_deref()
        .unwrap_or("see GET /v1/apps/{appid}");
    let reason = &pause.reason;
    Err(WechatReply::busy(&format!(
        "the app is paused until {until} ({reason}): {detail}"
    )))
}

/// Removes the keys that the template does not have: WeChat ignores such keys.
fn drop_unknown_keys(request: &mut message::Request, template: Knowledge<'_>) {
    if let (Knowledge::Template(template), Some(data)) = (template, &mut request.data)
        && template.keys().next().is_some()
    {
        data.retain(|key, _| template.keys().any(|wanted| wanted == key));
    }
}

impl SentMessage {
    /// The requested message. Fields of other sends are removed, because WeChat ignores such fields.
    fn on(self, channel: Channel) -> Result<message::Request, WechatReply> {
        let bare = message::Request {
            channel,
            touser: text("touser", self.touser)?.unwrap_or_default(),
            template_id: text("template_id", self.template_id)?.unwrap_or_default(),
            data: values(self.data)?,
            ttl: Some(TTL_SECONDS),
            ..message::Request::default()
        };
        Ok(match channel {
            Channel::Subscribe => message::Request {
                page: text("page", self.page)?,
                miniprogram_state: word("miniprogram_state", self.miniprogram_state)?,
                lang: word("lang", self.lang)?,
                ..bare
            },
            Channel::Template => message::Request {
                page: text("page", self.page)?,
                form_id: text("form_id", self.form_id)?,
                emphasis_keyword: text("emphasis_keyword", self.emphasis_keyword)?,
                ..bare
            },
            Channel::Official => message::Request {
                url: text("url", self.url)?,
                miniprogram: link(self.miniprogram)?,
                client_msg_id: text("client_msg_id", self.client_msg_id)?,
                ..bare
            },
        })
    }
}

/// The values without the parts that WeChat ignores: members of other names, and colours that are not strings.
fn values(data: Value) -> Result<Option<Map<String, Value>>, WechatReply> {
    let mut data = match data {
        Value::Null => return Ok(None),
        Value::Object(data) => data,
        // PHP's encoding of an empty object.
        Value::Array(items) if items.is_empty() => Map::new(),
        Value::String(_) => {
            return Err(invalid(
                "data must be an object, not a string that contains an object",
            ));
        }
        Value::Array(_) | Value::Bool(_) | Value::Number(_) => {
            return Err(invalid(
                "data must be an object such as {\"thing1\": {\"value\": \"…\"}}",
            ));
        }
    };
    for item in data.values_mut().filter_map(Value::as_object_mut) {
        item.retain(|member, value| match member.as_str() {
            "color" => value.is_string(),
            member => message::DATA_MEMBERS.contains(&member),
        });
    }
    Ok(Some(data))
}

/// One of the words that a field may have.
fn word<T: DeserializeOwned>(field: &str, value: Value) -> Result<Option<T>, WechatReply> {
    let Some(text) = text(field, value)? else {
        return Ok(None);
    };
    let word = serde_json::from_value(Value::String(text));
    word.map(Some)
        .map_err(|error| invalid(&format!("{field}: {error}")))
}

fn link(value: Value) -> Result<Option<MiniprogramLink>, WechatReply> {
    let mut link = match value {
        Value::Object(link) => link,
        Value::Array(items) if items.is_empty() => return Ok(None),
        Value::Null => return Ok(None),
        Value::String(text) if text.is_empty() => return Ok(None),
        _ => {
            return Err(invalid(
                "miniprogram must be an object with appid and pagepath",
            ));
        }
    };
    let mut member = |name: &str| {
        let value = link.remove(name).unwrap_or_default();
        text(&format!("miniprogram.{name}"), value)
    };
    let (appid, pagepath, path) = (member("appid")?, member("pagepath")?, member("path")?);
    Ok(appid.map(|appid| MiniprogramLink {
        appid,
        pagepath: pagepath.or(path),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::reply::INVALID_ARGUMENT, *};

    fn on(channel: Channel, body: Value) -> Result<message::Request, i64> {
        let sent: SentMessage = serde_json::from_value(body).unwrap();
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
    fn what_wechat_takes_in_another_json_type_is_taken() {
        let body = json!({
            "touser": 42, "template_id": "t", "form_id": 1_700_000_000_123_i64, "client_msg_id": 7, "url": null,
            "data": {"thing1": {"value": "x", "color": null}, "thing2": {"value": "y", "color": 3}}, "miniprogram": [],
        });
        let template = on(Channel::Template, body.clone()).unwrap();
        assert_eq!(template.form_id.as_deref(), Some("1700000000123"));
        assert_eq!(template.touser, "42");
        let official = on(Channel::Official, body).unwrap();
        assert_eq!(official.client_msg_id.as_deref(), Some("7"));
        let values = json!({"thing1": {"value": "x"}, "thing2": {"value": "y"}});
        assert_eq!(official.data.map(Value::Object), Some(values));
        let empty = on(Channel::Template, json!({"data": []})).unwrap();
        assert_eq!(empty.data, Some(Map::new()));
        let nothing = on(Channel::Subscribe, json!({"touser": null, "data": null})).unwrap();
        assert_eq!((&*nothing.touser, nothing.data), ("", None));
    }

    #[test]
    fn another_json_type_is_refused_with_the_name_of_its_field() {
        for (channel, field, value) in [
            (Channel::Subscribe, "touser", json!(["o"])),
            (Channel::Subscribe, "template_id", json!({})),
            (
                Channel::Subscribe,
                "data",
                json!("{\"thing1\":{\"value\":\"x\"}}"),
            ),
            (Channel::Subscribe, "data", json!([{"value": "x"}])),
            (Channel::Subscribe, "data", json!(5)),
            (Channel::Subscribe, "page", json!(true)),
            (Channel::Subscribe, "lang", json!(1)),
            (Channel::Subscribe, "miniprogram_state", json!({})),
            (Channel::Template, "form_id", json!(["f"])),
            (Channel::Template, "emphasis_keyword", json!(false)),
            (Channel::Official, "client_msg_id", json!({})),
            (Channel::Official, "url", json!([])),
            (Channel::Official, "miniprogram", json!("wx")),
            (Channel::Official, "miniprogram", json!({"appid": true})),
        ] {
            let sent: SentMessage = serde_json::from_value(json!({ field: value })).unwrap();
            let reply = sent.on(channel).unwrap_err();
            assert_eq!(reply.errcode(), INVALID_ARGUMENT, "{field}");
            let words = serde_json::to_string(&reply).unwrap();
            assert!(
                words.contains(&format!("argument invalid! {field}")),
                "{words}"
            );
        }
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
