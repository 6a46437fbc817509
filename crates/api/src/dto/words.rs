//! The words of the API for the enumerations of the domain. Each match is exhaustive, so that a new variant does not
//! compile without a word.

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

// The schema is written by hand: `derive(ToSchema)` does not see a `rename` that comes out of a macro.
macro_rules! words {
    ($($(#[doc = $doc:literal])* $name:ident = $module:ident::$domain:ident { $($choice:ident = $word:literal,)* })*) => {$(
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
        pub(crate) enum $name { $(#[serde(rename = $word)] $choice,)* }

        // serde's derived code reports a value of another type than string as broken JSON.
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

    /// The order of messages within an app, and how much of the daily quota a message may use.
    Priority = message::Priority {
        High = "high",
        Normal = "normal",
        Low = "low",
    }

    /// What to do when it is unknown whether WeChat has a message: `hold` ends as `uncertain`, `retry` sends again.
    OnUncertain = message::OnUncertain {
        Hold = "hold",
        Retry = "retry",
    }

    /// What to do with a value that is too long: `reject` refuses the message, `truncate` cuts a `thing` to 20
    /// characters, the last of them `…`. The gateway never cuts other types.
    OnTooLong = message::OnTooLong {
        Reject = "reject",
        Truncate = "truncate",
    }

    /// `one_time`, `long_term`: subscribe messages, one acceptance permits one message or any number. `form_id`:
    /// mini-program template message. `official`: official-account template message.
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

    /// The status of a message. Every status but `scheduled`, `queued` and `sending` is an end.
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

    /// How one attempt to send a message ended.
    Outcome = verdict::Outcome {
        Accepted = "accepted",
        Retry = "retry",
        StaleToken = "stale_token",
        Rejected = "rejected",
        AppBlocked = "app_blocked",
        QuotaSpent = "quota_spent",
        Unknown = "unknown",
    }

    /// The kind of account behind an appid.
    AppKind = app::AppKind {
        MiniProgram = "mini_program",
        OfficialAccount = "official_account",
    }

    /// How the gateway fetches an app's access token: `stable` with `stable_token`, `legacy` with `/cgi-bin/token`.
    TokenMode = app::TokenMode {
        Stable = "stable",
        Legacy = "legacy",
    }

    /// What the subscription ledger decides about subscribe messages: `observe` counts and sends, `strict` fails a
    /// message with `no_grant` if the recipient has no grant left.
    GrantPolicy = grant::GrantPolicy {
        Observe = "observe",
        Strict = "strict",
    }

    /// What to do with a message with a value that breaks the rule of its type: `strict` refuses the message before a
    /// grant is used, `warn` sends the message with a sentence in `warnings`. An empty value is refused in either case.
    ValueRules = app::ValueRules {
        Strict = "strict",
        Warn = "warn",
    }

    /// `form_id`: permits one template message within seven days. `prepay_id`: permits three. `subscription`: a
    /// template that the user accepted.
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

    /// The API's word is the same word everywhere: in the database, in logs, in the domain's own tests.
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
