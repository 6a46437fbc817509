//! WeChat's error answers: an errcode, an errmsg and a request id.

use std::borrow::Cow;

/// A refused call. Rendered with HTTP status 200, as WeChat does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: i64,
    pub(crate) text: Cow<'static, str>,
}

impl Refusal {
    /// The refusal with the text that WeChat's tables list for this code.
    pub(crate) fn known(code: i64) -> Self {
        Self {
            code,
            text: Cow::Borrowed(wording(code)),
        }
    }

    /// A refusal with a text that depends on the request.
    pub(crate) fn worded(code: i64, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    /// The answer's JSON. `salt` makes the `rid` differ from those of other calls in the same second.
    pub(crate) fn render(&self, now_ms: i64, salt: u64) -> String {
        let seconds = now_ms.div_euclid(1_000) & 0xffff_ffff;
        let noise = crate::ids::mix(salt);
        let errmsg = format!(
            "{} rid: {seconds:08x}-{:08x}-{:08x}",
            self.text,
            noise >> 32,
            noise & 0xffff_ffff
        );
        let errmsg = serde_json::Value::String(errmsg);
        format!("{{\"errcode\":{},\"errmsg\":{errmsg}}}", self.code)
    }
}

/// The errmsg of a code, without the `rid`.
fn wording(code: i64) -> &'static str {
    match code {
        -1 => "system error",
        40001 => {
            "invalid credential, access_token is invalid or not latest, could get access_token by getStableAccessToken, more details at https://mmbizurl.cn/s/JtxxFh33r"
        }
        40002 => "invalid grant_type",
        40003 => "invalid openid",
        40013 => "invalid appid",
        40014 => "invalid access_token",
        40029 => "invalid code",
        40037 => "invalid template_id",
        40066 => "invalid url",
        40125 => "invalid appsecret",
        40163 => "code been used",
        40243 => "appsecret frozen",
        41001 => "access_token missing",
        41002 => "appid missing",
        41004 => "appsecret missing",
        41008 => "missing code",
        41028 => "invalid form id",
        41029 => "form id used count reach limit",
        42001 => "access_token expired",
        43001 => "require GET method",
        43002 => "require POST method",
        43004 => "require subscribe",
        43101 => "user refuse to accept the msg",
        43107 => "subscribe capability banned",
        43108 => "Cannot make concurrent calls to the same OpenID, please try again",
        44002 => "empty post data",
        45009 => "reach max api daily quota limit",
        45011 => "api minute-quota reach limit, must slower, retry next minute",
        45103 => "This API has been unsupported",
        45168 => "keyword in blacklist",
        46101 => {
            "this api is not supported since 2020-01-11 00:00:00, please use new api(subscribeMessage)"
        }
        47001 => "data format error",
        47003 => "argument invalid!",
        48001 => "api unauthorized",
        48004 => "api forbidden for irregularities",
        48006 => "forbid to clear quota because of reaching the limit",
        50002 => "user limited",
        50004 => "user not allow to use accesstoken, maybe for punishment",
        50007 => "account frozen",
        61024 => "invalid usage, please use authorizer token via component",
        76021 => "cgi_path not found, please check",
        89503 => "this ip need admin confirm",
        89506 => "ip rejected by admin twice",
        89507 => "ip rejected by admin",
        _ => "refused by the simulator",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rid_begins_with_the_time_in_hex() {
        let text = Refusal::known(43101).render(0x65ec_5fd8 * 1_000, 7);
        assert!(
            text.starts_with(
                "{\"errcode\":43101,\"errmsg\":\"user refuse to accept the msg rid: 65ec5fd8-"
            ),
            "{text}"
        );
        assert_eq!(text.len(), text.find("rid: ").unwrap() + 5 + 26 + 2);
    }

    #[test]
    fn what_the_caller_wrote_is_escaped() {
        let text = Refusal::worded(47003, "data.a\"b invalid").render(0, 0);
        assert!(
            serde_json::from_str::<serde_json::Value>(&text).is_ok(),
            "{text}"
        );
    }
}
