//! Access tokens of apps on the wire. One shape alone has the token itself.

use std::collections::BTreeMap;

use delivery::{HandedToken, TokenFailure, TokenReport, TokenStatus};
use serde::Serialize;
use utoipa::ToSchema;

use super::{time::Timestamp, words::TokenMode};

/// How it stands with an app's access token. Never contains the token.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenState {
    token_mode: TokenMode,
    state: Status,
    /// Grows with every new token of the app; null: there is no token.
    #[schema(required = true, example = 1_772_352_600_000_u64)]
    generation: Option<u64>,
    /// When the token was fetched.
    #[schema(required = true)]
    fetched_at: Option<Timestamp>,
    /// Since how many seconds.
    #[schema(required = true, example = 1800)]
    age: Option<i64>,
    /// When the token ends. It is replaced some minutes before.
    #[schema(required = true)]
    expires_at: Option<Timestamp>,
    /// In how many seconds.
    #[schema(required = true, example = 5400)]
    expires_in: Option<i64>,
    /// Fetches since 00:00 in Shanghai.
    #[schema(example = 13)]
    fetches_today: u32,
    /// What is used of WeChat's limits on token fetches: `legacy_fetches`, `stable_calls` and `forced_refreshes` of a
    /// day, `stable_calls_a_minute`.
    #[schema(example = json!({"forced_refreshes": {"used": 1, "limit": 20, "low": false}}))]
    budgets: BTreeMap<&'static str, Budget>,
    /// Whether another system replaced the app's tokens in the last week.
    #[schema(required = true)]
    foreign_refresh: Option<ForeignRefresh>,
    /// What went wrong last, until the next success.
    #[schema(required = true)]
    failure: Option<Failure>,
}

/// How it stands with an app's access token, in one word.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = TokenStatus)]
enum Status {
    /// There is one, and it is good.
    Live,
    /// There is none, and one is being fetched.
    Fetching,
    /// There is none, and `failure` says why.
    Failing,
    /// There is none, because nobody needed one: the next message fetches it.
    Absent,
}

/// One of WeChat's limits, and how much of it is used.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TokenBudget)]
struct Budget {
    #[schema(example = 1)]
    used: u32,
    #[schema(example = 20)]
    limit: u32,
    /// Four fifths are gone: find out what fetches so often.
    low: bool,
}

/// Another system replaces the app's tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ForeignRefresh {
    /// How often since 00:00 in Shanghai.
    #[schema(example = 3)]
    count_today: u32,
    /// When a token was last found dead for it.
    last_at: Timestamp,
    /// What to do about it.
    #[schema(example = "let the other system ask the gateway for the token")]
    advice: &'static str,
}

/// Why there was no token when one was fetched.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TokenFailure)]
struct Failure {
    /// A word for programs.
    #[schema(example = "wrong_secret")]
    reason: &'static str,
    /// What to do about it.
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
    /// For `?access_token=` of WeChat's server API. It may be replaced at any time: ask again when WeChat answers 40001,
    /// 40014 or 42001, and never fetch one from WeChat.
    #[schema(example = "86_a-token-of-512-characters")]
    access_token: String,
    /// How many seconds it lives at most.
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
