//! The text values of an app's columns.

use domain::app::{AppKind, TokenMode, ValueRules};

use crate::{StoreError, error::unknown};

pub(crate) fn kind_text(kind: AppKind) -> &'static str {
    match kind {
        AppKind::MiniProgram => "mini_program",
        AppKind::OfficialAccount => "official_account",
    }
}

pub(crate) fn parse_kind(text: &str) -> Result<AppKind, StoreError> {
    match text {
        "mini_program" => Ok(AppKind::MiniProgram),
        "official_account" => Ok(AppKind::OfficialAccount),
        other => Err(unknown("app.kind", other)),
    }
}

pub(crate) fn value_rules(text: &str) -> Result<ValueRules, StoreError> {
    ValueRules::parse(text).ok_or_else(|| unknown("app.value_rules", text))
}

pub(super) fn token_mode_text(mode: TokenMode) -> &'static str {
    match mode {
        TokenMode::Stable => "stable",
        TokenMode::Legacy => "legacy",
    }
}

pub(super) fn parse_token_mode(text: &str) -> Result<TokenMode, StoreError> {
    match text {
        "stable" => Ok(TokenMode::Stable),
        "legacy" => Ok(TokenMode::Legacy),
        other => Err(unknown("app.token_mode", other)),
    }
}
