//! `wxgate doctor`: checks everything that a gateway with these settings needs, changes nothing, and names the remedy
//! of each fault.

mod database;
mod surroundings;

use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;

use crate::{
    failure::Failure,
    output::{Output, table},
    settings::Settings,
};

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum CheckStatus {
    /// No fault found.
    Ok,
    /// Not checked: not in use, or a precondition is missing.
    Skipped,
    /// Works, but needs attention.
    Warning,
    /// The gateway cannot work.
    Failed,
}

impl CheckStatus {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "-",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
        }
    }
}

/// One check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    status: CheckStatus,
    detail: String,
    /// The remedy, where `detail` does not already name it.
    next: Option<String>,
}

impl Finding {
    fn new(check: &'static str, status: CheckStatus, detail: impl Into<String>) -> Self {
        Self {
            check,
            status,
            detail: detail.into(),
            next: None,
        }
    }

    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, CheckStatus::Ok, detail)
    }

    fn skipped(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, CheckStatus::Skipped, detail)
    }

    fn warning(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, CheckStatus::Warning, detail)
    }

    fn failed(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, CheckStatus::Failed, detail)
    }

    /// Adds the remedy.
    fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

/// Runs all checks. Exit code 1: a check has failed.
pub(crate) async fn run(settings: &Settings, output: Output) -> Result<ExitCode, Failure> {
    let mut findings = vec![surroundings::settings(settings)];
    findings.extend(database::look(settings).await);
    findings.extend(surroundings::wechat(settings).await);
    findings.push(surroundings::public_url(settings).await);
    findings.push(surroundings::proxies(settings));
    findings.push(surroundings::traces(settings).await);
    findings.push(surroundings::disk(settings));
    findings.push(surroundings::open_files(settings));
    let worst = findings.iter().map(|finding| finding.status);
    let is_failed = worst.clone().any(|status| status == CheckStatus::Failed);
    let has_warnings = worst.clone().any(|status| status == CheckStatus::Warning);
    let status = match (is_failed, has_warnings) {
        (true, _) => CheckStatus::Failed,
        (false, true) => CheckStatus::Warning,
        (false, false) => CheckStatus::Ok,
    };
    output.result(&json!({"status": status, "checks": findings}), || {
        let rows: Vec<Vec<String>> = findings.iter().map(row).collect();
        table(&["", "check", "found"], &rows)
    })?;
    Ok(if is_failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn row(finding: &Finding) -> Vec<String> {
    let found = match &finding.next {
        Some(next) => format!("{} → {next}", finding.detail),
        None => finding.detail.clone(),
    };
    vec![
        finding.status.word().to_owned(),
        finding.check.to_owned(),
        found,
    ]
}
