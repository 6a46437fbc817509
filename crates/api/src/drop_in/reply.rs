//! WeChat's form of an answer: an errcode with its words, always with HTTP 200.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use delivery::{AppError, SubmitError, is_token_refusal};
use domain::violation::Violation;
use serde::Serialize;
use tenancy::{AuthError, OauthError};
use utoipa::ToSchema;

/// Nothing was done, and nothing will be: the same call may succeed later.
pub(super) const BUSY: i64 = -1;
/// The gateway's own code: the call may or may not have been carried out. WeChat has no code for this case, and each of
/// WeChat's codes makes some SDK repeat the call, so that a recipient would get a message twice.
pub(super) const UNCERTAIN: i64 = 99_001;
pub(super) const INVALID_CREDENTIAL: i64 = 40001;
pub(super) const INVALID_GRANT_TYPE: i64 = 40002;
pub(super) const INVALID_APPID: i64 = 40013;
pub(super) const INVALID_URL: i64 = 40066;
pub(super) const INVALID_APPSECRET: i64 = 40125;
pub(super) const TOKEN_MISSING: i64 = 41001;
pub(super) const APPID_MISSING: i64 = 41002;
pub(super) const APPSECRET_MISSING: i64 = 41004;
pub(super) const CODE_MISSING: i64 = 41008;
pub(super) const INVALID_FORM_ID: i64 = 41028;
pub(super) const TOKEN_EXPIRED: i64 = 42001;
pub(super) const WANTS_GET: i64 = 43001;
pub(super) const WANTS_POST: i64 = 43002;
pub(super) const NO_GRANT: i64 = 43101;
pub(super) const EMPTY_BODY: i64 = 44002;
pub(super) const BODY_TOO_LARGE: i64 = 45002;
pub(super) const QUOTA_SPENT: i64 = 45009;
pub(super) const TOO_FAST: i64 = 45011;
pub(super) const NOT_JSON: i64 = 47001;
pub(super) const INVALID_ARGUMENT: i64 = 47003;
pub(super) const UNAUTHORIZED: i64 = 48001;
pub(super) const SUSPENDED: i64 = 50002;

/// WeChat's answer to a call without a result of its own: success or failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = WechatReply)]
pub(super) struct WechatReply {
    /// 0 for success; else one of WeChat's codes, or 99001 for an unknown outcome.
    #[schema(example = 0)]
    errcode: i64,
    /// The error and what to do; for an error of WeChat's, WeChat's own words.
    #[schema(example = "ok")]
    errmsg: String,
    /// WeChat's id of the message, if WeChat gives one. The id exceeds 2^53.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 3_256_829_574_012_846_080_u64)]
    msgid: Option<u64>,
}

impl WechatReply {
    /// The call succeeded.
    pub(super) fn ok(msgid: Option<u64>) -> Self {
        Self {
            errcode: 0,
            errmsg: "ok".to_owned(),
            msgid,
        }
    }

    /// The call failed.
    pub(super) fn refused(errcode: i64, errmsg: impl Into<String>) -> Self {
        Self {
            errcode,
            errmsg: errmsg.into(),
            msgid: None,
        }
    }

    /// Nothing was done, and another try may help.
    pub(super) fn busy(why: &str) -> Self {
        Self::refused(BUSY, format!("system error: {why}"))
    }

    /// The outcome of the call is unknown.
    pub(super) fn uncertain(what: &str) -> Self {
        let words = format!(
            "outcome unknown: {what}; do not repeat the call unless a second copy does no harm"
        );
        Self::refused(UNCERTAIN, words)
    }

    /// WeChat's own refusal. A refusal of the app's own token becomes -1, because no token of the caller repairs that.
    pub(super) fn from_wechat(errcode: i64, errmsg: &str, rid: Option<&str>) -> Self {
        if is_token_refusal(errcode) {
            return Self::busy("WeChat refuses the app's own access token");
        }
        let errmsg = match rid {
            Some(rid) => format!("{errmsg} rid: {rid}"),
            None => errmsg.to_owned(),
        };
        Self::refused(errcode, errmsg)
    }

    /// The caller may not use the app.
    pub(super) fn invalid_appid() -> Self {
        Self::refused(
            INVALID_APPID,
            "invalid appid: the appid is not registered at this gateway for the tenant of this secret",
        )
    }

    #[cfg(test)]
    pub(super) fn errcode(&self) -> i64 {
        self.errcode
    }
}

impl IntoResponse for WechatReply {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

impl From<OauthError> for WechatReply {
    fn from(error: OauthError) -> Self {
        match error {
            OauthError::Unavailable => {
                Self::busy("the gateway cannot check secrets at the moment, try again later")
            }
            OauthError::TooOften(_) => Self::refused(TOO_FAST, error.to_string()),
            OauthError::InvalidClient(_)
            | OauthError::InvalidScope(_)
            | OauthError::InvalidRequest(_) => {
                Self::refused(INVALID_APPSECRET, format!("invalid appsecret: {error}"))
            }
        }
    }
}

/// A revoked key and a suspended tenant have codes to which no SDK reacts with another token: replicas learn of these
/// changes at different times, and one replica may still issue tokens that another replica refuses.
impl From<AuthError> for WechatReply {
    fn from(error: AuthError) -> Self {
        let (code, words) = match error {
            AuthError::Missing => (TOKEN_MISSING, "access_token missing"),
            AuthError::Malformed => (
                INVALID_CREDENTIAL,
                "invalid credential, access_token is invalid or not latest: get a token from /cgi-bin/token of the gateway",
            ),
            AuthError::Expired => (TOKEN_EXPIRED, "access_token expired"),
            AuthError::Revoked => (
                INVALID_APPSECRET,
                "invalid appsecret: the key was revoked or has expired, ask for a new key",
            ),
            AuthError::Suspended => (
                SUSPENDED,
                "user limited: the tenant is suspended, ask the operator of the gateway",
            ),
            AuthError::TooOften(_) => (TOO_FAST, "too many requests had no valid access_token"),
            AuthError::Unavailable => {
                return Self::busy(
                    "the gateway cannot check tokens at the moment, try again later",
                );
            }
        };
        Self::refused(code, words)
    }
}

impl From<AppError> for WechatReply {
    fn from(error: AppError) -> Self {
        match error {
            AppError::NotFound => Self::invalid_appid(),
            AppError::Wechat {
                errcode: INVALID_CREDENTIAL,
                errmsg,
                ..
            } => Self::refused(
                INVALID_APPSECRET,
                format!("invalid appsecret: WeChat says {errmsg}"),
            ),
            AppError::Wechat {
                errcode,
                errmsg,
                rid,
                ..
            }
            | AppError::WechatQuota {
                errcode,
                errmsg,
                rid,
                ..
            } => Self::from_wechat(errcode, &errmsg, rid.as_deref()),
            AppError::WechatUnavailable { detail, .. } | AppError::TooOften { detail, .. } => {
                tracing::info!(detail, "no access token for a call of the drop-in surface");
                Self::busy(
                    "the gateway has no access token for the app at the moment, try again later",
                )
            }
            AppError::Taken
            | AppError::Changed
            | AppError::Invalid(_)
            | AppError::Unavailable(_)
            | AppError::Broken(_) => {
                tracing::error!(%error, "cannot look up an app");
                Self::busy("the gateway cannot look up the app at the moment, try again later")
            }
        }
    }
}

impl From<SubmitError> for WechatReply {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::NoSuchApp => Self::invalid_appid(),
            SubmitError::Violations(violations) => violations.into(),
            SubmitError::QuotaExhausted { .. } => Self::refused(
                QUOTA_SPENT,
                "reach max api daily quota limit: the app has used up its messages of the day",
            ),
            SubmitError::TenantQuotaExhausted { .. } => Self::refused(
                QUOTA_SPENT,
                "reach max api daily quota limit: the tenant has used up its messages of the day",
            ),
            SubmitError::Overloaded { .. } => {
                Self::busy("the gateway is overloaded, try again later")
            }
            SubmitError::KeyReused | SubmitError::Unavailable(_) | SubmitError::Broken(_) => {
                tracing::error!(%error, "cannot accept a message");
                Self::busy("the gateway cannot accept messages at the moment, try again later")
            }
        }
    }
}

/// The code of the first violation, the words of all.
impl From<Vec<Violation>> for WechatReply {
    fn from(violations: Vec<Violation>) -> Self {
        let code = violations
            .first()
            .map_or(NOT_JSON, |first| code_of(&first.pointer));
        let words = violations.iter().map(|violation| {
            let field = violation.pointer.trim_start_matches('/').replace('/', ".");
            format!("{field} {}", violation.detail)
        });
        let words = words.collect::<Vec<_>>().join("; ");
        Self::refused(code, format!("argument invalid! {words}"))
    }
}

fn code_of(pointer: &str) -> i64 {
    match pointer.split('/').nth(1).unwrap_or_default() {
        "touser" => 40003,
        "template_id" => 40037,
        "page" => 41030,
        "form_id" => INVALID_FORM_ID,
        "url" => 40039,
        "miniprogram" => 40165,
        "channel" => UNAUTHORIZED,
        _ => INVALID_ARGUMENT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_has_the_code_that_wechat_would_give_it() {
        for (pointer, code) in [
            ("/touser", 40003),
            ("/template_id", 40037),
            ("/data/thing1/value", 47003),
            ("/data", 47003),
            ("/page", 41030),
            ("/form_id", 41028),
            ("/channel", 48001),
            ("/client_msg_id", 47003),
        ] {
            let reply = WechatReply::from(vec![Violation::new(pointer, "is wrong")]);
            assert_eq!(reply.errcode, code, "{pointer}");
        }
        let reply = WechatReply::from(vec![
            Violation::new("/data/thing1/value", "is too long"),
            Violation::new("/page", "is too long too"),
        ]);
        assert_eq!(
            reply.errmsg,
            "argument invalid! data.thing1.value is too long; page is too long too"
        );
    }

    #[test]
    fn nothing_but_the_callers_own_token_makes_an_sdk_fetch_another() {
        for code in [40001, 40014, 42001] {
            assert_eq!(WechatReply::from_wechat(code, "dead", None).errcode, BUSY);
        }
        let wrong_secret = AppError::Wechat {
            errcode: 40001,
            errmsg: "invalid credential".into(),
            rid: None,
            advice: String::new(),
            by_its_owner: true,
        };
        assert_eq!(WechatReply::from(wrong_secret).errcode, INVALID_APPSECRET);
        for error in [
            AuthError::Revoked,
            AuthError::Suspended,
            AuthError::Unavailable,
        ] {
            assert!(
                !is_token_refusal(WechatReply::from(error).errcode),
                "{error}"
            );
        }
    }

    #[test]
    fn wechats_words_keep_their_rid() {
        let reply = WechatReply::from_wechat(43101, "user refuse", Some("6a1f"));
        assert_eq!(reply, WechatReply::refused(43101, "user refuse rid: 6a1f"));
    }
}
