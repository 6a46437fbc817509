//! Verdicts: what an answer of WeChat, or the lack of one, means for a message and its app.
//!
//! The table that turns error codes into verdicts lives with the WeChat client; what a verdict does to a
//! message is decided in [`crate::lifecycle`].

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::retry::Delay;

/// What one send came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// WeChat took the message (errcode 0).
    Accepted {
        /// WeChat's id for it, where it names one. It passes 2^53.
        msgid: Option<u64>,
    },
    /// Not sent; the same send may succeed later.
    Later(Delay),
    /// Not sent: WeChat refuses the access token. Repeat once, with another if it is dead.
    StaleToken,
    /// Not sent, and never will be.
    Rejected(FailureCode),
    /// Not sent: the app cannot send at all until somebody repairs it.
    AppBlocked {
        /// Why.
        reason: BlockReason,
        /// How long to leave WeChat alone before the next probe.
        pause: Duration,
    },
    /// Not sent: the app's quota for the day is spent.
    QuotaSpent,
    /// The request left and no answer came: nobody knows.
    Unknown,
}

impl Verdict {
    /// Whether it is WeChat's last word about this message: true whenever it comes, even after the lease of its send.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Accepted { .. } | Self::Rejected(_))
    }

    /// The word an attempt is recorded with.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Accepted { .. } => Outcome::Accepted,
            Self::Later(_) => Outcome::Retry,
            Self::StaleToken => Outcome::StaleToken,
            Self::Rejected(_) => Outcome::Rejected,
            Self::AppBlocked { .. } => Outcome::AppBlocked,
            Self::QuotaSpent => Outcome::QuotaSpent,
            Self::Unknown => Outcome::Unknown,
        }
    }
}

/// How an attempt ended, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// WeChat took the message.
    Accepted,
    /// Not sent; comes back later.
    Retry,
    /// Not sent: the token was dead.
    StaleToken,
    /// Not sent, final.
    Rejected,
    /// Not sent: the app is misconfigured or suspended.
    AppBlocked,
    /// Not sent: the day's quota is spent.
    QuotaSpent,
    /// Nobody knows.
    Unknown,
}

impl Outcome {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Retry => "retry",
            Self::StaleToken => "stale_token",
            Self::Rejected => "rejected",
            Self::AppBlocked => "app_blocked",
            Self::QuotaSpent => "quota_spent",
            Self::Unknown => "unknown",
        }
    }
}

macro_rules! codes {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $code:ident = $text:literal: $advice:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $code,)* }

        impl $name {
            /// Every one there is.
            pub const ALL: &'static [Self] = &[$(Self::$code,)*];

            /// The word in the API and the database.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$code => $text,)* }
            }

            /// What happened and what to do, as a sentence for the tenant.
            pub fn advice(self) -> &'static str {
                match self { $(Self::$code => $advice,)* }
            }

            /// The one named `text`.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.as_str() == text)
            }
        }
    };
}

codes! {
    /// Why a message ended without being sent.
    FailureCode {
        /// 43101 and kin.
        NoGrant = "no_grant": "the user has not subscribed to this template, has used the subscription up, or refuses it: ask again with wx.requestSubscribeMessage",
        /// 40003 and kin.
        InvalidRecipient = "invalid_recipient": "the openid is not one of this app: check which app the user signed in to",
        /// 43004, 43019, 48002.
        RecipientRefuses = "recipient_refuses": "the user does not follow the account or is on its blacklist",
        /// 40037 and kin.
        InvalidTemplate = "invalid_template": "the template is not in this account, or WeChat has disabled it: sync the templates and use one that is listed",
        /// 41030, 40165, 40039.
        InvalidPage = "invalid_page": "the page, url or linked mini-program does not exist or is not released",
        /// 47003.
        InvalidValue = "invalid_value": "a value breaks the rule of its type, is empty, or a key of the template is missing",
        /// 45168, 40249.
        BlockedContent = "blocked_content": "WeChat refuses the wording",
        /// 41028, 41029, 41031.
        InvalidFormId = "invalid_form_id": "the form id or prepay id is used up, expired, or was made by another user",
        /// 45103, 46101, 45109.
        EndpointGone = "endpoint_gone": "WeChat has withdrawn this way of sending: use channel `subscribe`",
        /// Any other refusal.
        Refused = "refused": "WeChat refuses the message: see the attempt's errcode and errmsg",
        /// 41001, 44002, 47001: the request was built wrong.
        GatewayBug = "gateway_bug": "the gateway built a request that WeChat does not understand: please report it with the attempt's rid",
        /// The ttl ran out first.
        Expired = "expired": "the message could not be sent within its ttl",
        /// The connection broke after the request left.
        Unanswered = "unanswered": "the connection broke after the request had left, so WeChat may or may not have the message: ask for another send if a second copy does no harm",
        /// WeChat's event says that it was not delivered.
        Undelivered = "undelivered": "WeChat took the message and reported later that it could not deliver it",
    }
}

codes! {
    /// Why an app cannot send at all.
    BlockReason {
        /// 40001 on a token endpoint, 40125: the AppSecret is wrong or was reset.
        WrongSecret = "wrong_secret": "the AppSecret is wrong or was reset: take the current one from WeChat's console (a registered app gets it by `wxgate app set-secret` or PUT /v1/apps/{appid}/secret)",
        /// 40013: no such appid.
        UnknownAppid = "unknown_appid": "WeChat knows no such appid: check it in the console, then remove and add the app again",
        /// 40164, 61004: the gateway's address is not on the app's IP whitelist.
        IpNotAllowed = "ip_not_allowed": "the gateway's address is not on the app's IP whitelist: add the address named in errmsg in WeChat's console",
        /// 89501–89505: the app's administrator has not answered WeChat's question about the gateway's address yet.
        IpUnconfirmed = "ip_unconfirmed": "WeChat has asked the app's administrator whether the gateway's address may call: let the administrator confirm it in WeChat",
        /// 89506, 89507: the administrator said no.
        IpRefused = "ip_refused": "the app's administrator refused the gateway's address, so WeChat blocks it for an hour, or for a day after the second time: put it on the IP whitelist in WeChat's console, or let the administrator confirm it when WeChat asks again",
        /// 40243: the AppSecret is frozen.
        SecretFrozen = "secret_frozen": "the AppSecret is frozen: unfreeze it in WeChat's console; that takes about ten minutes",
        /// 48001, 61007 …: the account lacks the permission.
        NoPermission = "no_permission": "the account may not use this interface: check its type and permissions in WeChat's console",
        /// 40234: the account takes signed calls only.
        SignatureRequired = "signature_required": "the account accepts signed API calls only, which the gateway does not make yet: switch the signature of API calls off in WeChat's console (development settings, API security)",
        /// 40066, 41001, 43002, 43003, 44002: whatever is sent arrives otherwise than the gateway sends it.
        NotUnderstood = "not_understood": "WeChat does not get the gateway's calls as they are made: check that WXGATE_WECHAT_BASE_URL is https://api.weixin.qq.com and that no proxy changes requests; if so, report it with the attempt's rid",
        /// 48004, 50002, 50004, 50007 …: the platform suspended or punished the account.
        Suspended = "suspended": "WeChat has suspended or punished the account: only its owner can repair that in WeChat's console",
        /// Fresh tokens are refused again and again.
        TokenRefused = "token_refused": "WeChat refuses fresh access tokens: look for another system that fetches tokens with the same AppSecret",
    }
}

/// One try to send a message, as kept in its history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    /// When the request started.
    pub started_at: DateTime<Utc>,
    /// From start to answer.
    pub duration_ms: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// WeChat's code, when it answered.
    pub errcode: Option<i64>,
    /// WeChat's words without the rid, or what went wrong with the connection.
    pub errmsg: Option<String>,
    /// WeChat's request id, for its support.
    pub rid: Option<String>,
}
