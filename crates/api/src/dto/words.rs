//! The words of the API for the choices of the domain. Each match is exhaustive: a new choice wants its word.

use std::borrow::Cow;

use domain::{app, grant, lifecycle, message, template, tenant, verdict};
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, RefOr,
        schema::{Schema, Type},
    },
};

// The schema is written out: `derive(ToSchema)` does not see a `rename` that comes out of a macro.
macro_rules! words {
    ($($(#[doc = $doc:literal])* $name:ident = $module:ident::$domain:ident { $($choice:ident = $word:literal,)* })*) => {$(
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
        pub(crate) enum $name { $(#[serde(rename = $word)] $choice,)* }

        // What serde derives takes another type than a text for broken JSON.
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match &*Cow::<str>::deserialize(deserializer)? {
                    $($word => Ok(Self::$choice),)*
                    other => Err(D::Error::unknown_variant(other, &[$($word),*])),
                }
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .enum_values(Some([$($word),*]))
                    .description(Some([$($doc.trim()),*].join(" ")))
                    .into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }
        }

        impl From<$module::$domain> for $name {
            fn from(choice: $module::$domain) -> Self {
                match choice { $($module::$domain::$choice => Self::$choice,)* }
            }
        }

        impl From<$name> for $module::$domain {
            fn from(word: $name) -> Self {
                match word { $($name::$choice => Self::$choice,)* }
            }
        }
    )*};
}

words! {
    /// `subscribe`: mini-program subscribe message. `template`: mini-program template message with a form id.
    /// `official`: official-account template message.
    Channel = message::Channel {
        Subscribe = "subscribe",
        Template = "template",
        Official = "official",
    }

    /// Who goes first within an app, and how much of the day's quota may be used.
    Priority = message::Priority {
        High = "high",
        Normal = "normal",
        Low = "low",
    }

    /// What to do when nobody knows whether WeChat got a send: `hold` ends as `uncertain`, `retry` sends again.
    OnUncertain = message::OnUncertain {
        Hold = "hold",
        Retry = "retry",
    }

    /// What to do with a value that is too long: `reject` refuses the message, `truncate` cuts a `thing` to 20 characters,
    /// the last of them `…`. Other types are never cut.
    OnTooLong = message::OnTooLong {
        Reject = "reject",
        Truncate = "truncate",
    }

    /// `one_time`, `long_term`: subscribe messages, an accept is good for one or for all. `form_id`: mini-program template
    /// message. `official`: official-account template message.
    TemplateKind = template::TemplateKind {
        OneTime = "one_time",
        LongTerm = "long_term",
        FormId = "form_id",
        Official = "official",
    }

    /// Which release of the mini-program the card opens.
    MiniprogramState = message::MiniprogramState {
        Developer = "developer",
        Trial = "trial",
        Formal = "formal",
    }

    /// The language of the fixed words on the card.
    Lang = message::Lang {
        ZhCn = "zh_CN",
        EnUs = "en_US",
        ZhHk = "zh_HK",
        ZhTw = "zh_TW",
    }

    /// Where a message is in its life. It ends as anything but `scheduled`, `queued` or `sending`.
    Status = lifecycle::Status {
        Scheduled = "scheduled",
        Queued = "queued",
        Sending = "sending",
        Sent = "sent",
        Delivered = "delivered",
        Undelivered = "undelivered",
        Failed = "failed",
        Expired = "expired",
        Canceled = "canceled",
        Uncertain = "uncertain",
    }

    /// How one try to send ended.
    Outcome = verdict::Outcome {
        Accepted = "accepted",
        Retry = "retry",
        StaleToken = "stale_token",
        Rejected = "rejected",
        AppBlocked = "app_blocked",
        QuotaSpent = "quota_spent",
        Unknown = "unknown",
    }

    /// What an appid stands for.
    AppKind = app::AppKind {
        MiniProgram = "mini_program",
        OfficialAccount = "official_account",
    }

    /// How an app's access token is fetched: `stable` with `stable_token`, `legacy` with `/cgi-bin/token`.
    TokenMode = app::TokenMode {
        Stable = "stable",
        Legacy = "legacy",
    }

    /// What the ledger of grants decides about subscribe messages: `observe` keeps count and sends, `strict` fails a message
    /// with `no_grant` whose user has no grant left.
    GrantPolicy = grant::GrantPolicy {
        Observe = "observe",
        Strict = "strict",
    }

    /// What becomes of a message with a value that breaks the rule of its type: `strict` refuses it before it costs a grant,
    /// `warn` sends it and says so in its `warnings`. An empty value is refused in either case.
    ValueRules = app::ValueRules {
        Strict = "strict",
        Warn = "warn",
    }

    /// `form_id`: one template message within seven days. `prepay_id`: three. `subscription`: a template that the user
    /// accepted.
    GrantKind = grant::GrantKind {
        FormId = "form_id",
        PrepayId = "prepay_id",
        Subscription = "subscription",
    }

    /// Whether a tenant may use the gateway.
    TenantStatus = tenant::TenantStatus {
        Active = "active",
        Suspended = "suspended",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_have_the_words_that_are_sent() {
        let words = serde_json::to_value(Status::schema()).unwrap();
        let sent = lifecycle::Status::ALL.map(Status::from);
        assert_eq!(words["enum"], serde_json::to_value(sent).unwrap());
    }

    /// The API's word is the word everywhere: in the database, in logs, in the domain's own tests.
    #[test]
    fn words_are_those_of_the_domain() {
        for status in lifecycle::Status::ALL {
            assert_eq!(
                serde_json::to_value(Status::from(status)).unwrap(),
                status.as_str()
            );
        }
        let outcome = verdict::Outcome::StaleToken;
        assert_eq!(
            serde_json::to_value(Outcome::from(outcome)).unwrap(),
            outcome.as_str()
        );
        let lang = message::Lang::ZhHk;
        assert_eq!(
            serde_json::to_value(Lang::from(lang)).unwrap(),
            serde_json::to_value(lang).unwrap()
        );
    }
}
