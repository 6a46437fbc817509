//! Access tokens of apps in answers. Only [`AccessToken`] contains the token itself.

use std::collections::BTreeMap;

use delivery::{HandedToken, TokenFailure, TokenReport, TokenStatus};
use serde::Serialize;
use utoipa::ToSchema;

use super::{time::Timestamp, words::TokenMode};

/// The state of an app's access token. Never contains the token.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenState {
    token_mode: TokenMode,
    state: Status,
    /// Grows with every new token of the app; null: the app has no token.
    #[schema(required = true, example = 1_772_352_600_000_u64)]
    generation: Option<u64>,
    /// When the token was fetched.
    #[schema(required = true)]
    fetched_at: Option<Timestamp>,
    /// Seconds since the fetch.
    #[schema(required = true, example = 1800)]
    age: Option<i64>,
    /// When the token ends. The gateway replaces the token some minutes before.
    #[schema(required = true)]
    expires_at: Option<Timestamp>,
    /// Seconds until the token ends.
    #[schema(required = true, example = 5400)]
    expires_in: Option<i64>,
    /// Fetches since 00:00 in Shanghai.
    #[schema(example = 13)]
    fetches_today: u32,
    /// The use of WeChat's limits on token fetches: `legacy_fetches`, `stable_calls` and `forced_refreshes` of a day,
    /// `stable_calls_a_minute`.
    #[schema(example = json!({"forced_refreshes": {"used": 1, "limit": 20, "low": false}}))]
    budgets: BTreeMap<&'static str, Budget>,
    /// Whether another system replaced the app's tokens in the last week.
    #[schema(required = true)]
    foreign_refresh: Option<ForeignRefresh>,
    /// The last failure, until the next success.
    #[schema(required = true)]
    failure: Option<Failure>,
}

/// The state of an app's access token, in one word.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = TokenStatus)]
enum Status {
    /// The app has a valid token.
    Live,
    /// The app has no token, and the gateway is fetching one.
    Fetching,
    /// The app has no token, and `failure` says why.
    Failing,
    /// The app has no token, because no call needed one: the next message fetches a token.
    Absent,
}

/// One of WeChat's limits, and how much of the limit is used.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TokenBudget)]
struct Budget {
    #[schema(example = 1)]
    used: u32,
    #[schema(example = 20)]
    limit: u32,
    /// True: four fifths of the limit are used. Find out what causes so many fetches.
    low: bool,
}

/// Another system replaces the app's tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ForeignRefresh {
    /// Number of replacements since 00:00 in Shanghai.
    #[schema(example = 3)]
    count_today: u32,
    /// When the gateway last found a token that another system had ended.
    last_at: Timestamp,
    /// What to do about the other system.
    #[schema(example = "let the other system ask the gateway for the token")]
    advice: &'static str,
}

/// Why the last fetch of a token failed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TokenFailure)]
struct Failure {
    /// The reason as a code, for programs.
    #[schema(example = "wrong_secret")]
    reason: &'static str,
    /// What to do about the failure.
    #[schema(
        example = "the AppSecret is wrong or was reset: set the current one with PUT /v1/apps/{appid}/secret"
    )]
    detail: String,
    /// When the gateway asks WeChat again.
    #[schema(required = true)]
    retry_at: Option<Timestamp>,
}

/// WeChat's access token itself.
#[derive(Serialize, ToSchema)]
#[schema(as = WechatAccessToken)]
pub(crate) struct AccessToken {
    /// For `?access_token=` of WeChat's server API. The gateway may replace the token at any time: request the token
    /// again when WeChat answers 40001, 40014 or 42001, and never fetch a token from WeChat.
    #[schema(example = "86_a-token-of-512-characters")]
    access_token: String,
    /// The longest possible rest of the token's life, in seconds.
    #[schema(example = 5400)]
    expires_in: u64,
}

impl From<TokenReport> for TokenState {
    fn from(report: TokenReport) -> Self {
        let (now, token) = (report.as_of, report.token);
        let budgets = report.budgets.into_iter().map(|budget| {
            let shown = Budget {
                used: budget.used,
                limit: budget.limit,
                low: budget.low,
            };
            (budget.kind.as_str(), shown)
        });
        Self {
            token_mode: report.mode.into(),
            state: report.status.into(),
            generation: token.map(|token| token.generation),
            fetched_at: token.map(|token| token.fetched_at.into()),
            age: token.map(|token| (now - token.fetched_at).num_seconds()),
            expires_at: token.map(|token| token.expires_at.into()),
            expires_in: token.map(|token| (token.expires_at - now).num_seconds()),
            fetches_today: report.fetches_today,
            budgets: budgets.collect(),
            foreign_refresh: report.foreign_refresh.map(Into::into),
            failure: report.failure.map(Into::into),
        }
    }
}

impl From<TokenStatus> for Status {
    fn from(status: TokenStatus) -> Self {
        match status {
            TokenStatus::Live => Self::Live,
            TokenStatus::Fetching => Self::Fetching,
            TokenStatus::Failing => Self::Failing,
            TokenStatus::Absent => Self::Absent,
        }
    }
}

impl From<delivery::ForeignRefresh> for ForeignRefresh {
    fn from(seen: delivery::ForeignRefresh) -> Self {
        Self {
            count_today: seen.count_today,
            last_at: seen.last_at.into(),
            advice: delivery::ForeignRefresh::ADVICE,
        }
    }
}

impl From<TokenFailure> for Failure {
    fn from(failure: TokenFailure) -> Self {
        Self {
            reason: failure.reason,
            detail: failure.detail,
            retry_at: failure.retry_at.map(Into::into),
        }
    }
}

impl From<HandedToken> for AccessToken {
    fn from(token: HandedToken) -> Self {
        Self {
            access_token: token.value.expose().to_owned(),
            expires_in: token.expires_in.as_secs(),
        }
    }
}
