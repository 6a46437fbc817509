//! Callbacks: verifies and reads WeChat's requests to the gateway.
//!
//! WeChat signs a callback with the Token of the app's message push settings: SHA-1 over the sorted Token, timestamp and
//! nonce. This signature never covers the body. In *safe* mode the body is encrypted with the `EncodingAESKey`, and a
//! second signature covers the ciphertext. In *compatible* mode the same ciphertext comes beside plain fields, which this
//! module ignores. With an `EncodingAESKey` the content is therefore authentic, and [`Keys`] with an `EncodingAESKey` refuse
//! plain callbacks: no attacker can downgrade the gateway to the weaker mode.
//!
//! Source: <https://developers.weixin.qq.com/miniprogram/dev/framework/server-ability/message-push.html>.
//!
//! ```
//! use domain::secret::CallbackToken;
//! use wxgate_wechat::callback::{Keys, Query};
//!
//! let keys = Keys::new(CallbackToken::new("AAAAA"), None)?;
//! let query = Query {
//!     signature: Some("f464b24fc39322e44b38aa78f5edd27bd1441696".into()),
//!     timestamp: Some("1714036504".into()),
//!     nonce: Some("1514711492".into()),
//!     echostr: Some("4375120948345356249".into()),
//!     ..Query::default()
//! };
//! assert_eq!(keys.check_url(&query)?, "4375120948345356249");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod body;
mod check_error;
mod envelope;
mod event;
mod keys;
mod node;
mod query;
mod reply;
mod signature;
mod stamp;
mod xml;

pub use check_error::CallbackCheckError;
pub use envelope::KeyFormat;
pub use event::{Choice, EventKind, Receipt, TemplateChoice, WechatEvent};
pub use keys::Keys;
pub use query::Query;
pub use reply::Reply;
pub use stamp::SigningStamp;

#[cfg(test)]
mod tests;
