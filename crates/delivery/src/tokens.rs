//! The state of an app's token for the app's owner, and the hand-out of the token itself.

use std::{sync::Arc, time::Duration};

use broker::{BrokerError, BudgetKind, ForeignRefresh, LiveToken, TokenState};
use chrono::{DateTime, Utc};
use domain::{
    app::{AppId, TokenMode},
    id::TenantId,
    secret::AccessToken,
};
use store::{App, StoreError};

use crate::{
    apps::{AppError, Apps, refusal},
    audit::{self, AuditedRequest},
    token_failure::TokenFailure,
};

/// The state of an app's token. Never contains the token.
#[derive(Clone, Debug)]
pub struct TokenReport {
    /// How the app's tokens are fetched.
    pub mode: TokenMode,
    /// The state in one word.
    pub status: TokenStatus,
    /// The token that is alive, if any.
    pub token: Option<LiveToken>,
    /// Fetches since 00:00 in Shanghai.
    pub fetches_today: u32,
    /// The use of WeChat's limits.
    pub budgets: Vec<TokenBudget>,
    /// Whether another system replaced the app's tokens in the last week.
    pub foreign_refresh: Option<ForeignRefresh>,
    /// The last failure. `None` again after a success.
    pub failure: Option<TokenFailure>,
    /// The time of this report.
    pub as_of: DateTime<Utc>,
}

/// The state of an app's token, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenStatus {
    /// There is a valid token.
    Live,
    /// There is no token, and a fetch is in progress.
    Fetching,
    /// There is no token, and WeChat gave none at the last fetch.
    Failing,
    /// There is no token, because none was needed.
    Absent,
}

/// One of WeChat's limits, and its use.
#[derive(Clone, Copy, Debug)]
pub struct TokenBudget {
    /// The kind of the limit.
    pub kind: BudgetKind,
    /// Used so far.
    pub used: u32,
    /// What WeChat grants.
    pub limit: u32,
    /// Whether four fifths are used.
    pub low: bool,
}

/// A token that is handed out.
#[derive(Clone, Debug)]
pub struct HandedToken {
    /// The token itself.
    pub value: Arc<AccessToken>,
    /// How long the token lives.
    pub expires_in: Duration,
}

impl Apps {
    /// The state of the token of the tenant's app. Makes no call to WeChat.
    pub async fn token_state(
        &self,
        tenant: TenantId,
        appid: &AppId,
    ) -> Result<TokenReport, AppError> {
        let app = self.get(Some(tenant), appid).await?;
        Ok(self.token_report(&app).await)
    }

    /// Whether another system has replaced the app's tokens in the last week.
    pub async fn foreign_refresh(&self, appid: &AppId) -> Option<ForeignRefresh> {
        self.broker.survey(appid).await.foreign_refresh
    }

    /// Replaces the token of the tenant's app by request. Success and refusal both get an audit line.
    pub async fn refresh_token(
        &self,
        tenant: TenantId,
        appid: &AppId,
    ) -> Result<TokenReport, AppError> {
        let app = self.get(Some(tenant), appid).await?;
        let refreshed = self.broker.refresh(appid).await;
        let error = refreshed.as_ref().err();
        // The refresh is done already, and a refusal reveals nothing: both are answered even if the line cannot be
        // written.
        if let Err(unwritten) = self
            .record(tenant, AuditedRequest::Refresh, appid, error)
            .await
        {
            tracing::warn!(%appid, error = %unwritten, "a token refresh is not in the audit log");
        }
        refreshed.map_err(|error| refusal(&error, self.coord.clock().now()))?;
        Ok(self.token_report(&app).await)
    }

    /// Hands out the token of the tenant's app. The audit line is written first: if the line cannot be written, there
    /// is no token. A refusal gets an audit line too.
    pub async fn access_token(
        &self,
        tenant: TenantId,
        appid: &AppId,
    ) -> Result<HandedToken, AppError> {
        self.get(Some(tenant), appid).await?;
        let token = self.broker.token(appid).await;
        let error = token.as_ref().err();
        let recorded = self
            .record(tenant, AuditedRequest::HandOut, appid, error)
            .await;
        let now = self.coord.clock().now();
        let token = token.map_err(|error| refusal(&error, now))?;
        recorded.map_err(|error| AppError::Unavailable(format!("no audit line: {error}")))?;
        Ok(HandedToken {
            value: token.value,
            expires_in: (token.expires_at - now).to_std().unwrap_or_default(),
        })
    }

    async fn record(
        &self,
        tenant: TenantId,
        what: AuditedRequest,
        appid: &AppId,
        refusal: Option<&BrokerError>,
    ) -> Result<(), StoreError> {
        let now = self.coord.clock().now();
        let line = audit::asked(what, appid, &self.origin, refusal);
        self.store.tenant(tenant).append_audit(line, now).await
    }

    async fn token_report(&self, app: &App) -> TokenReport {
        let state = self.broker.survey(&app.appid).await;
        TokenReport::of(app.token_mode, &state, self.coord.clock().now())
    }
}

impl TokenReport {
    fn of(mode: TokenMode, state: &TokenState, now: DateTime<Utc>) -> Self {
        let status = match state {
            TokenState { token: Some(_), .. } => TokenStatus::Live,
            TokenState {
                is_fetching: true, ..
            } => TokenStatus::Fetching,
            TokenState {
                failure: Some(_), ..
            } => TokenStatus::Failing,
            _ => TokenStatus::Absent,
        };
        let budgets = state.budgets.iter().map(|(kind, budget)| TokenBudget {
            kind,
            used: budget.used,
            limit: budget.limit,
            low: budget.is_low(),
        });
        Self {
            mode,
            status,
            token: state.token,
            fetches_today: state.fetches_today,
            budgets: budgets.collect(),
            foreign_refresh: state.foreign_refresh,
            failure: state.failure.as_ref().map(TokenFailure::of),
            as_of: now,
        }
    }
}
