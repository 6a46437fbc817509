//! The names of all lists.

use super::{
    apps::App,
    audit::AuditEvent,
    grants::Grant,
    keys::Key,
    messages::Message,
    page::Listed,
    templates::Template,
    tenants::Tenant,
    webhooks::{Webhook, WebhookDelivery},
};

// All names stand in one place, because no two lists may have the same name.
macro_rules! lists {
    ($($item:ty = $name:literal,)*) => {$(
        impl Listed for $item {
            const LIST: &'static str = $name;
        }
    )*};
}

lists! {
    App = "apps",
    AuditEvent = "audit",
    Grant = "grants",
    Key = "keys",
    Message = "messages",
    Template = "templates",
    Tenant = "tenants",
    Webhook = "webhooks",
    WebhookDelivery = "deliveries",
}
