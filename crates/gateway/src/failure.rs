//! Failures as the command line reports them: a code for programs, and a sentence that names the next step.

use std::{fmt, process::ExitCode};

use delivery::{AppError, DeliveryError, SubmitError};
use domain::violation::Violation;
use store::StoreError;
use tenancy::TenancyError;

use crate::{gateway::StartError, settings::SettingsError};

/// The code of a failure by wrong usage.
pub(crate) const USAGE: &str = "usage";

/// The reason why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The code for programs.
    pub code: &'static str,
    /// The sentence for people.
    pub message: String,
}

impl Failure {
    /// A failure with this code and message.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The exit code of the program: 2 after wrong usage, otherwise 1.
    pub(crate) fn exit_code(&self) -> ExitCode {
        if self.code == USAGE {
            ExitCode::from(2)
        } else {
            ExitCode::FAILURE
        }
    }

    /// A failure for a missing object, with the command that lists the existing objects.
    fn not_found(error: &impl fmt::Display, what: &str) -> Self {
        let place = match what {
            "tenant" => "`wxgate tenant list` shows all tenants",
            "key" => "`wxgate key list` shows the keys of a tenant",
            "app" => "`wxgate app list` shows all apps",
            _ => "check the id",
        };
        Self::new("not_found", format!("{error}: {place}"))
    }

    /// A failure for invalid fields, one field a line.
    pub(crate) fn violations(violations: &[Violation]) -> Self {
        let each = violations
            .iter()
            .map(|found| format!("{} {}", found.pointer.trim_start_matches('/'), found.detail));
        Self::new("validation_failed", each.collect::<Vec<_>>().join("\n  "))
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::new("settings", error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let code = match error {
            StoreError::Unavailable(_) => "database_unavailable",
            StoreError::Taken(_) | StoreError::Answered | StoreError::Changed(_) => "conflict",
            StoreError::NotFound(what) => return Self::not_found(&error, what),
            StoreError::Broken(_) => "database_broken",
            StoreError::Settings(_) => "settings",
        };
        Self::new(code, error.to_string())
    }
}

impl From<TenancyError> for Failure {
    fn from(error: TenancyError) -> Self {
        match error {
            TenancyError::Invalid(violations) => Self::violations(&violations),
            TenancyError::NotFound(what) => Self::not_found(&error, what),
            TenancyError::Store(error) => error.into(),
            TenancyError::MasterKey(_) => Self::new("master_key", error.to_string()),
            TenancyError::TooManyKeys => Self::new("conflict", error.to_string()),
            TenancyError::Escalation(_) | TenancyError::MakerRevoked => {
                Self::new("insufficient_scope", error.to_string())
            }
            TenancyError::Crypto(_) => Self::new("internal", error.to_string()),
        }
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        match error {
            AppError::Taken | AppError::Changed => Self::new("conflict", error.to_string()),
            AppError::NotFound => Self::not_found(&error, "app"),
            AppError::Invalid(violations) => Self::violations(&violations),
            AppError::Wechat {
                errcode,
                errmsg,
                rid,
                advice,
                ..
            } => {
                let rid = rid.map(|rid| format!(" rid: {rid}")).unwrap_or_default();
                Self::new(
                    "wechat_rejected",
                    format!("{advice} (WeChat answered {errcode} {errmsg}{rid})"),
                )
            }
            AppError::WechatQuota { .. } => Self::new("quota_exhausted", error.to_string()),
            AppError::WechatUnavailable { .. } => Self::new(
                "wechat_unavailable",
                format!("{error}: check WXGATE_WECHAT_BASE_URL and try again"),
            ),
            AppError::TooOften { .. } => Self::new("rate_limited", error.to_string()),
            AppError::Unavailable(_) => Self::new("database_unavailable", error.to_string()),
            AppError::Broken(_) => Self::new("internal", error.to_string()),
        }
    }
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Violations(violations) => Self::violations(&violations),
            SubmitError::NoSuchApp => Self::not_found(&error, "app"),
            SubmitError::QuotaExhausted { reset_at } => Self::new(
                "quota_exhausted",
                format!(
                    "{error}: send again after {}",
                    reset_at.format("%Y-%m-%dT%H:%M:%SZ")
                ),
            ),
            SubmitError::TenantQuotaExhausted { reset_at, .. } => Self::new(
                "quota_exhausted",
                format!(
                    "{error}: send again after {}, or raise the tenant's limit",
                    reset_at.format("%Y-%m-%dT%H:%M:%SZ")
                ),
            ),
            SubmitError::KeyReused => Self::new("idempotency_key_reused", error.to_string()),
            SubmitError::Overloaded { .. } => {
                Self::new("overloaded", format!("{error}: try again in a moment"))
            }
            SubmitError::Unavailable(_) => Self::new("database_unavailable", error.to_string()),
            SubmitError::Broken(_) => Self::new("internal", error.to_string()),
        }
    }
}

impl From<DeliveryError> for Failure {
    fn from(error: DeliveryError) -> Self {
        match error {
            DeliveryError::NotFound(what) => Self::not_found(&error, what),
            DeliveryError::Store(error) => error.into(),
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Store(error) => error.into(),
            StartError::Tenancy(error) => error.into(),
            StartError::Coord(_) | StartError::Wechat(_) => {
                Self::new("settings", error.to_string())
            }
            StartError::Pending { .. } => Self::new("migrations_pending", error.to_string()),
            StartError::AddressTaken { .. } | StartError::Listen { .. } => {
                Self::new("listen", error.to_string())
            }
        }
    }
}
