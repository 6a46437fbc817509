//! Positions in a list of apps.

use std::{fmt, str::FromStr};

use domain::app::AppId;

/// A position in a list of apps. The text form is `MILLIS.APPID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppCursor {
    pub(super) created_at: i64,
    pub(super) appid: String,
}

/// The error for a text that is no position in a list of apps.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a cursor is `next_cursor` of the page before, unchanged")]
pub struct AppCursorFormat;

impl fmt::Display for AppCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.created_at, self.appid)
    }
}

impl FromStr for AppCursor {
    type Err = AppCursorFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (created_at, appid) = text.split_once('.').ok_or(AppCursorFormat)?;
        let appid = AppId::parse(appid).map_err(|_| AppCursorFormat)?;
        Ok(Self {
            created_at: created_at.parse().map_err(|_| AppCursorFormat)?,
            appid: appid.as_str().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_before_an_app() {
        let place = "7.wx0a1b2c3d4e5f6789";
        let cursor: AppCursor = place.parse().unwrap();
        assert_eq!(cursor.to_string(), place);
        for nonsense in ["", "7", "x.wx0a1b2c3d4e5f6789", "7.\0", "7."] {
            assert!(nonsense.parse::<AppCursor>().is_err(), "{nonsense:?}");
        }
    }
}
