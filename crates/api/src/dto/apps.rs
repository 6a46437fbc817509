//! Apps in requests and answers. Requests may carry secrets, answers never do.

use chrono::{DateTime, Utc};
use delivery::{AppUpdate, CallbackSettings, QuotaReport, Registration, WechatQuotaReport};
use domain::{
    app::AppId,
    id::TenantId,
    secret::{AppSecret, CallbackAesKey, CallbackToken},
    violation::Violation,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    not_null,
    time::Timestamp,
    tokens::ForeignRefresh,
    words::{AppKind, GrantPolicy, TokenMode, ValueRules},
};
use crate::problem::Problem;

/// A mini-program or official account to register.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AppRegistration {
    /// The appid that WeChat gave the app.
    #[schema(example = "wx0a1b2c3d4e5f6789", pattern = "^wx[0-9a-z]{16}$")]
    appid: String,
    /// The AppSecret. The gateway stores the AppSecret encrypted and never shows the AppSecret.
    #[schema(value_type = String, write_only, format = Password, min_length = 1, max_length = 128, pattern = "^[!-~]+$", example = "0f1e2d3c4b5a69788796a5b4c3d2e1f0")]
    secret: AppSecret,
    /// The app's name, for people. Default: the appid.
    #[schema(min_length = 1, max_length = 100)]
    name: Option<String>,
    /// The tenant that owns the app: required for operators; a tenant's key may only name its own tenant.
    #[schema(pattern = "^ten_[0-9a-hjkmnp-tv-z]{26}$")]
    tenant_id: Option<String>,
    /// Default: `mini_program`.
    kind: Option<AppKind>,
    /// Default: `stable`.
    token_mode: Option<TokenMode>,
    /// Messages that WeChat accepts from the app in one day. Default: 1000000.
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    daily_quota: Option<u64>,
    /// Default: `observe`. A message may set another policy for itself.
    grant_policy: Option<GrantPolicy>,
    /// Default: `strict`.
    value_rules: Option<ValueRules>,
    /// True: fetch a token before saving, to verify the AppSecret. Default: true; only an operator may set false.
    verify: Option<bool>,
    /// The Token of the app's message push settings.
    #[schema(value_type = Option<String>, write_only)]
    callback_token: Option<CallbackToken>,
    /// The `EncodingAESKey` of the app's message push settings: 43 characters.
    #[schema(value_type = Option<String>, write_only, min_length = 43, max_length = 43)]
    callback_aes_key: Option<CallbackAesKey>,
}

impl AppRegistration {
    /// Whether to register the app without verifying the AppSecret.
    pub(crate) fn unverified(&self) -> bool {
        self.verify == Some(false)
    }

    /// The tenant in the request, if any.
    pub(crate) fn tenant(&self) -> Result<Option<TenantId>, Problem> {
        let parsed = self.tenant_id.as_deref().map(str::parse).transpose();
        parsed.map_err(|_| Problem::field("/tenant_id", "must be a tenant's id, such as `ten_…`"))
    }

    /// The requested registration, with the form of the ids and of the secret checked.
    pub(crate) fn parse(self) -> Result<Registration, Problem> {
        let mut found = Vec::new();
        let appid = AppId::parse(self.appid);
        if let Err(rule) = &appid {
            found.push(Violation::new("/appid", rule.to_string()));
        }
        found.extend(secret_violation(&self.secret));
        let (Ok(appid), true) = (appid, found.is_empty()) else {
            return Err(Problem::validation_failed(found));
        };
        Ok(Registration {
            appid,
            secret: self.secret,
            name: self
                .name
                .map(|name| name.trim().to_owned())
                .unwrap_or_default(),
            kind: self.kind.map(Into::into).unwrap_or_default(),
            token_mode: self.token_mode.map(Into::into).unwrap_or_default(),
            daily_quota: self.daily_quota,
            grant_policy: self.grant_policy.map(Into::into).unwrap_or_default(),
            value_rules: self.value_rules.map(Into::into).unwrap_or_default(),
            verify: self.verify.unwrap_or(true),
            callback: CallbackSettings {
                token: self.callback_token,
                aes_key: self.callback_aes_key,
            },
        })
    }
}

/// What to change of an app; absent fields stay unchanged.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AppChanges {
    /// The app's name, for people.
    #[schema(min_length = 1, max_length = 100, example = "Tea Shop")]
    name: Option<String>,
    token_mode: Option<TokenMode>,
    /// Messages that WeChat accepts from the app in one day.
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    daily_quota: Option<u64>,
    grant_policy: Option<GrantPolicy>,
    value_rules: Option<ValueRules>,
    /// The Token of the app's message push settings.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = String, required = false, write_only)]
    callback_token: Option<CallbackToken>,
    /// The `EncodingAESKey` of the app's message push settings: 43 characters.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = String, required = false, write_only, min_length = 43, max_length = 43)]
    callback_aes_key: Option<CallbackAesKey>,
}

impl AppChanges {
    /// The requested update.
    pub(crate) fn parse(self) -> Result<AppUpdate, Problem> {
        if self
            .name
            .as_ref()
            .is_some_and(|name| name.trim().is_empty())
        {
            return Err(Problem::field(
                "/name",
                "must have 1 to 100 characters, or be left out",
            ));
        }
        Ok(AppUpdate {
            name: self.name.map(|name| name.trim().to_owned()),
            token_mode: self.token_mode.map(Into::into),
            daily_quota: self.daily_quota,
            grant_policy: self.grant_policy.map(Into::into),
            value_rules: self.value_rules.map(Into::into),
            callback: CallbackSettings {
                token: self.callback_token,
                aes_key: self.callback_aes_key,
            },
            known_at: None,
        })
    }
}

/// A new AppSecret.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SecretRequest)]
pub(crate) struct NewSecret {
    /// The AppSecret. The gateway verifies the AppSecret with WeChat, stores the secret encrypted and never shows the
    /// secret.
    #[schema(value_type = String, write_only, format = Password, min_length = 1, max_length = 128, pattern = "^[!-~]+$", example = "0f1e2d3c4b5a69788796a5b4c3d2e1f0")]
    secret: AppSecret,
}

impl NewSecret {
    /// The secret, with its form checked.
    pub(crate) fn parse(self) -> Result<AppSecret, Problem> {
        match secret_violation(&self.secret) {
            Some(violation) => Err(Problem::validation_failed(vec![violation])),
            None => Ok(self.secret),
        }
    }
}

fn secret_violation(secret: &AppSecret) -> Option<Violation> {
    let text = secret.expose();
    let fine = (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    let rule =
        "must be the AppSecret that WeChat's console shows: letters and digits without blanks";
    (!fine).then(|| Violation::new("/secret", rule))
}

/// A mini-program or official account.
#[derive(Debug, Serialize, ToSchema)]
pub struct App {
    #[schema(example = "wx0a1b2c3d4e5f6789")]
    appid: String,
    #[schema(example = "ten_01jq2xv1cde8sbw7mv9v6a5kzq")]
    tenant_id: String,
    #[schema(example = "Tea Shop")]
    name: String,
    kind: AppKind,
    token_mode: TokenMode,
    #[schema(example = 1_000_000)]
    daily_quota: u64,
    grant_policy: GrantPolicy,
    value_rules: ValueRules,
    /// Whether the gateway has the Token of the app's message push settings. Without the Token the gateway accepts no
    /// callback.
    has_callback: bool,
    /// When WeChat last accepted the AppSecret; null: never verified, or refused at the last verification.
    #[schema(required = true)]
    verified_at: Option<Timestamp>,
    /// Why the app does not send at the moment; null: the app sends.
    #[schema(required = true)]
    pause: Option<Pause>,
    /// The app's pace in messages a minute, set after WeChat refused more (45011): 600 at least, growing by a quarter
    /// each minute; null: no limit.
    #[schema(required = true)]
    pace: Option<u64>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// Why an app does not send for a while.
#[derive(Debug, Serialize, ToSchema)]
pub struct Pause {
    /// The reason as a code, for programs.
    #[schema(example = "wrong_secret")]
    reason: String,
    /// What to do about the pause.
    #[schema(required = true)]
    detail: Option<String>,
    /// When the gateway tries again.
    until: Timestamp,
}

/// An app, as a single read shows the app.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AppDetail {
    #[serde(flatten)]
    pub(crate) app: App,
    /// Whether another system replaced the app's access tokens in the last week; null: no other system did.
    #[schema(required = true)]
    pub(crate) foreign_refresh: Option<ForeignRefresh>,
    pub(crate) callback: Callback,
}

/// The values for an app's message push settings in WeChat's console.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Callback {
    /// The URL to set.
    #[schema(example = "https://wxgate.example.com/callbacks/wx0a1b2c3d4e5f6789")]
    pub(crate) url: String,
    /// Whether the gateway has the Token, which you set as `callback_token`; no answer shows the Token.
    pub(crate) token_set: bool,
    /// Whether the gateway has the `EncodingAESKey`, which you set as `callback_aes_key`; no answer shows the key.
    /// Without the key, events come in plain mode.
    pub(crate) aes_key_set: bool,
}

impl App {
    /// The app at `now`: a pause that is over is not shown.
    pub fn at(now: DateTime<Utc>, app: store::App) -> Self {
        let pause = app.pause.filter(|pause| pause.until > now);
        Self {
            appid: app.appid.to_string(),
            tenant_id: app.tenant.to_string(),
            name: app.name,
            kind: app.kind.into(),
            token_mode: app.token_mode.into(),
            daily_quota: app.daily_quota,
            grant_policy: app.grant_policy.into(),
            value_rules: app.value_rules.into(),
            has_callback: app.has_callback_token,
            verified_at: app.verified_at.map(Into::into),
            pause: pause.map(|pause| Pause {
                reason: pause.reason,
                detail: pause.detail,
                until: pause.until.into(),
            }),
            pace: app.pace,
            created_at: app.created_at.into(),
            updated_at: app.updated_at.into(),
        }
    }
}

/// How much of the daily quota an app has used, by the gateway's count and by WeChat's count.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Quota {
    #[schema(example = 1_000_000)]
    limit: u64,
    #[schema(example = 42)]
    used: u64,
    #[schema(example = 999_958)]
    remaining: u64,
    /// The next 00:00 in Shanghai.
    reset_at: Timestamp,
    /// WeChat's count, fetched with this request; null: WeChat cannot be reached or the app has no token.
    #[schema(required = true)]
    wechat: Option<WechatQuota>,
}

/// WeChat's count of an app's quota.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WechatQuota {
    daily_limit: u64,
    used: u64,
    remain: u64,
    /// When WeChat answered.
    as_of: Timestamp,
}

impl From<QuotaReport> for Quota {
    fn from(report: QuotaReport) -> Self {
        let wechat = |WechatQuotaReport {
                          daily_limit,
                          used,
                          remain,
                          as_of,
                      }| WechatQuota {
            daily_limit,
            used,
            remain,
            as_of: as_of.into(),
        };
        Self {
            limit: report.limit,
            used: report.used,
            remaining: report.remaining,
            reset_at: report.reset_at.into(),
            wechat: report.wechat.map(wechat),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(body: Value) -> Result<Registration, Problem> {
        serde_json::from_value::<AppRegistration>(body)
            .unwrap()
            .parse()
    }

    #[test]
    fn every_wrong_field_is_told_and_defaults_are_those_of_the_contract() {
        let body = parse(json!({"appid": "wx", "secret": " "}))
            .unwrap_err()
            .body(None);
        let body = serde_json::to_value(body).unwrap();
        assert_eq!(
            (&body["errors"][0]["pointer"], &body["errors"][1]["pointer"]),
            (&json!("/appid"), &json!("/secret"))
        );
        let new = parse(json!({"appid": "wx0a1b2c3d4e5f6789", "secret": "s"})).unwrap();
        assert!(new.verify && new.daily_quota.is_none() && new.name.is_empty());
    }

    #[test]
    fn a_null_that_could_mean_forget_is_refused() {
        assert!(serde_json::from_value::<AppChanges>(json!({"callback_token": null})).is_err());
        assert!(
            serde_json::from_value::<AppChanges>(json!({"callback_token": "abc"}))
                .unwrap()
                .callback_token
                .is_some()
        );
    }
}
