//! Wake-up topics that replicas share.

/// There may be messages to claim. The payload is the appid of the app that has messages, or empty.
pub(crate) const QUEUE: &str = "queue";
/// Messages have ended. The payload is the comma-separated list of message ids.
pub(crate) const ENDED: &str = "ended";
/// There may be templates to fetch from WeChat.
pub(crate) const TEMPLATES: &str = "templates";
/// An app was registered, changed or removed. The payload is the appid.
pub(crate) const APPS: &str = "apps";
/// There may be webhook deliveries to post.
pub(crate) const WEBHOOKS: &str = "webhooks";
