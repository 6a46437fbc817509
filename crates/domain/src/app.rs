//! Apps: the mini-programs and official accounts that tenants register.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// WeChat's id of a mini-program or official account: `wx` and 16 lower-case letters or digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct AppId(String);

/// Why a text is not an appid.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("an appid is `wx` followed by 16 lower-case letters or digits, without blanks")]
pub struct AppIdFormat;

impl AppId {
    /// Checks the shape.
    pub fn parse(text: impl Into<String>) -> Result<Self, AppIdFormat> {
        let text = text.into();
        let well_formed = text.len() == 18
            && text.starts_with("wx")
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
        if well_formed {
            Ok(Self(text))
        } else {
            Err(AppIdFormat)
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AppId {
    type Err = AppIdFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl<'de> Deserialize<'de> for AppId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// The kind of account that an appid identifies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppKind {
    /// A mini-program: subscribe messages and, with the older interface, template messages with form ids.
    #[default]
    MiniProgram,
    /// An official (service) account: template messages to followers.
    OfficialAccount,
}

/// How an app's access token is fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenMode {
    /// `POST /cgi-bin/stable_token`: repeated fetches return the same token.
    #[default]
    Stable,
    /// `GET /cgi-bin/token`: every fetch ends the previous token.
    Legacy,
}

/// What happens to a message with a value that breaks the rule of its type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueRules {
    /// The gateway refuses the message before the message costs a grant.
    #[default]
    Strict,
    /// The gateway sends the message with a warning. For accounts of which WeChat requires less than WeChat documents,
    /// such as test accounts.
    Warn,
}

impl ValueRules {
    /// The name in the API and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Warn => "warn",
        }
    }

    /// The rules with the name `text`.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Strict, Self::Warn]
            .into_iter()
            .find(|rules| rules.as_str() == text)
    }
}

/// The daily quota of an app without a configured quota: WeChat's quota of an account for template messages.
pub const DEFAULT_DAILY_QUOTA: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appids_are_checked() {
        assert!(AppId::parse("wx0a1b2c3d4e5f6789").is_ok());
        for wrong in [
            "",
            "wx",
            "WX0a1b2c3d4e5f6789",
            "wx0a1b2c3d4e5f678",
            " wx0a1b2c3d4e5f678",
            "wx0A1b2c3d4e5f6789",
        ] {
            assert_eq!(AppId::parse(wrong), Err(AppIdFormat), "{wrong:?}");
        }
    }
}
