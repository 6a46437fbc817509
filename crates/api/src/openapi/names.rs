//! Names in the document that routes and checks also use.

/// The security scheme of `/v1`.
pub(crate) const SCHEME: &str = "oauth2";
/// The security scheme of WeChat's own calls.
pub(crate) const WECHAT_SCHEME: &str = "wechat";
/// The tag of WeChat's own calls.
pub(crate) const DROP_IN: &str = "drop-in";
/// The tag of the endpoints that WeChat calls.
pub(crate) const CALLBACKS: &str = "callbacks";
