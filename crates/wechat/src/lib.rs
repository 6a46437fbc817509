//! The gateway's one way to WeChat's server API.
//!
//! What it promises:
//!
//! - **A send always ends in a [`domain::verdict::Verdict`].** [`Client::send`] cannot fail; what an error code,
//!   a gateway's error page or a broken connection means is decided here, once. The error codes are one table,
//!   [`codes::table`].
//! - **Nothing is sent twice behind the caller's back.** No redirects, no retries after bytes have left. When
//!   the connection breaks after that, the verdict is `Unknown`, never a guess.
//! - **Secrets stay here.** Access tokens and `AppSecrets` travel in URLs and bodies; no error, no `Debug` and
//!   no text of an [`Answer`] contains them, not even where WeChat echoes them.
//! - **What WeChat pushes is checked before it is read.** [`callback::Keys`] verify, decrypt and read it, whatever
//!   the form; no bytes make them panic.
//!
//! To add a call: its path and name in [`codes::Endpoint`], its URL in `client::Routes`, its fields in
//! `decode::Wire`, the verb on [`Client`], its error codes in [`codes`], and its examples in
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
