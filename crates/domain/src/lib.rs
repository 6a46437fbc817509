//! The domain types and rules of the gateway.
//!
//! This crate contains values and pure functions only: no IO, no async, no clock and no randomness. Callers pass time and
//! entropy as arguments, so a test can call every rule directly. All other crates use this crate; this crate uses none
//! of the other crates.
//!
//! To add a rule: put the rule into the module of its noun, take the inputs as arguments, return the next value or a
//! typed refusal, and test the rule beside the code.
//!
//! ```
//! use chrono::{TimeZone, Utc};
//! use wxgate_domain::quota;
//!
//! // 15:59 UTC is 23:59 in Shanghai: the day ends a minute later.
//! let now = Utc.with_ymd_and_hms(2026, 3, 1, 15, 59, 0).unwrap();
//! assert_eq!(quota::reset_at(now), Utc.with_ymd_and_hms(2026, 3, 1, 16, 0, 0).unwrap());
//! ```

pub mod app;
pub mod grant;
pub mod id;
pub mod lifecycle;
pub mod message;
pub mod quota;
pub mod retry;
pub mod scope;
pub mod seal;
pub mod secret;
pub mod template;
pub mod template_value;
pub mod tenant;
pub mod text;
pub mod verdict;
pub mod violation;
pub mod webhook;
