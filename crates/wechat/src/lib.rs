//! The only client of WeChat's server API in the gateway.
//!
//! The crate guarantees:
//!
//! - **A send always ends in a [`domain::verdict::Verdict`].** [`Client::send`] cannot fail. This crate decides, in one
//!   place, what an error code, a proxy's error page or a broken connection means. The error codes are one table,
//!   [`codes::table`].
//! - **The crate never repeats a send without the caller's knowledge.** No redirects, no retries after bytes have left.
//!   When the connection breaks after that, the verdict is `Unknown`, never a guess.
//! - **Secrets do not leave the crate.** Access tokens and `AppSecrets` are sent in URLs and bodies. No error, no `Debug`
//!   and no text of an [`Answer`] contains a secret, not even where WeChat echoes the secret.
//! - **Callbacks are checked before the content is used.** [`callback::Keys`] verify, decrypt and read a callback in any
//!   format; no input makes the code panic.
//!
//! To add a call: its path and name in [`codes::Endpoint`], its URL in `client::Routes`, its fields in
//! `decode::Wire`, the method on [`Client`], its error codes in [`codes`], and its examples in
//! `fixtures/fixtures.json`.
//!
//! ```no_run
//! use domain::{app::AppId, message::Content, secret::AppSecret, verdict::Verdict};
//! use wxgate_wechat::{Client, ClientOptions, Outgoing};
//!
//! # async fn example(content: Content) -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new(ClientOptions::default())?;
//! let appid = AppId::parse("wx0a1b2c3d4e5f6789")?;
//! let secret = AppSecret::new("0f1e2d3c4b5a69788796a5b4c3d2e1f0");
//!
//! let fetched = client.fetch_stable_token(&appid, &secret, false).await?;
//! let message = Outgoing { touser: "oQ8fX4uT2kLm", template_id: "kT3pVq9Z", content: &content };
//! let answer = client.send(&fetched.token, message).await;
//! if let Verdict::Accepted { msgid } = answer.verdict {
//!     assert!(msgid.is_none_or(|id| id > 0));
//! }
//! # Ok(())
//! # }
//! ```

mod answer;
pub mod callback;
mod check;
mod client;
pub mod codes;
mod decode;
mod forward;
mod listed;
mod mend;
mod outgoing;
mod templates;
#[cfg(test)]
mod tests;
mod transport;

pub use answer::{Answer, CallError, Cause, FetchedToken, TokenError, WechatQuota};
pub use check::TokenCheck;
pub use client::{Client, ClientError, ClientOptions};
pub use codes::path;
pub use forward::{
    ForwardError, ForwardedAnswer, ForwardedCall, MAX_FORWARDED, is_forwardable, is_token_refusal,
    query_carries_secret,
};
pub use outgoing::Outgoing;
