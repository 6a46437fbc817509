//! Verdicts: what an answer of WeChat, or a missing answer, means for a message and its app.
//!
//! The table that maps error codes to verdicts is in the WeChat client; [`crate::lifecycle`] decides how a verdict
//! changes a message.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::retry::Delay;

/// The result of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// WeChat accepted the message (errcode 0).
    Accepted {
        /// WeChat's id of the message, where WeChat returns an id. The id can exceed 2^53.
        msgid: Option<u64>,
    },
    /// Not sent; the same send may succeed later.
    Later(Delay),
    /// Not sent: WeChat refuses the access token. The worker repeats the attempt once, with another token if the
    /// refused token is dead.
    StaleToken,
    /// Not sent: WeChat refuses this message permanently.
    Rejected(FailureCode),
    /// Not sent: the app cannot send until a person repairs the configuration or the account.
    AppBlocked {
        /// The reason.
        reason: BlockReason,
        /// How long to wait before the next probe.
        pause: Duration,
    },
    /// Not sent: the app's daily quota is used up.
    QuotaSpent,
    /// The request left and no answer came: the outcome is unknown.
    Unknown,
}

impl Verdict {
    /// Whether this is WeChat's final answer about the message. A final answer counts even after the lease has ended.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Accepted { .. } | Self::Rejected(_))
    }

    /// The outcome under which the attempt is recorded.
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

/// How an attempt ended, as a name in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// WeChat accepted the message.
    Accepted,
    /// Not sent; the worker retries later.
    Retry,
    /// Not sent: WeChat refused the access token.
    StaleToken,
    /// Not sent, final.
    Rejected,
    /// Not sent: the app is misconfigured or suspended.
    AppBlocked,
    /// Not sent: the daily quota is used up.
    QuotaSpent,
    /// The outcome is unknown.
    Unknown,
}

impl Outcome {
    /// The name.
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
            /// All values.
            pub const ALL: &'static [Self] = &[$(Self::$code,)*];

            /// The name in the API and the database.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$code => $text,)* }
            }

            /// What happened and what to do, as a sentence for the tenant.
            pub fn advice(self) -> &'static str {
                match self { $(Self::$code => $advice,)* }
            }

            /// The value with the name `text`.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.as_str() == text)
            }
        }
    };
}

codes! {
    /// Why a message ended without being sent.
    FailureCode {
        /// 43101 and similar codes.
        NoGrant = "no_grant": "the user has not subscribed to this template, has used the subscription up, or refuses the template: ask the user again with wx.requestSubscribeMessage",
        /// 40003 and similar codes.
        InvalidRecipient = "invalid_recipient": "the openid does not belong to this app: check which app the user signed in to",
        /// 43004, 43019, 48002.
        RecipientRefuses = "recipient_refuses": "the user does not follow the account, or is on the account's blacklist",
        /// 40037 and similar codes.
        InvalidTemplate = "invalid_template": "the template is not in this account, or WeChat has disabled the template: sync the templates and use a listed template",
        /// 41030, 40165, 40166, 40039.
        InvalidPage = "invalid_page": "the page, url or linked mini-program does not exist or is not released",
        /// 47003.
        InvalidValue = "invalid_value": "a value breaks the rule of its type or is empty, or a key of the template is missing",
        /// 45168, 40249.
        BlockedContent = "blocked_content": "WeChat refuses the wording of the message: change the wording",
        /// 41028, 41029, 41031.
        InvalidFormId = "invalid_form_id": "the form id or prepay id is used up, has expired, or belongs to another user",
        /// 45103, 46101, 45109.
        EndpointGone = "endpoint_gone": "WeChat has withdrawn the interface of this channel: use channel `subscribe`",
        /// Any other refusal.
        Refused = "refused": "WeChat refuses the message: see the attempt's errcode and errmsg",
        /// 40002, 40033, 47001, 47002: the gateway built an invalid request.
        GatewayBug = "gateway_bug": "the gateway built a request that WeChat does not understand: please report this error with the attempt's rid",
        /// The ttl ended before the message was sent.
        Expired = "expired": "the message could not be sent within its ttl",
        /// The connection broke after the request left.
        Unanswered = "unanswered": "the connection broke after the request had left, so WeChat may or may not have the message: retry the message if a second copy does no harm",
        /// WeChat's receipt says that the message was not delivered.
        Undelivered = "undelivered": "WeChat accepted the message and reported later that the message could not be delivered",
    }
}

codes! {
    /// Why an app cannot send at all.
    BlockReason {
        /// 40001 on a token endpoint, 40125: the AppSecret is wrong or was reset.
        WrongSecret = "wrong_secret": "the AppSecret is wrong or was reset: take the current one from WeChat's console (for a registered app, set the AppSecret with `wxgate app set-secret` or PUT /v1/apps/{appid}/secret)",
        /// 40013: the appid does not exist.
        UnknownAppid = "unknown_appid": "WeChat does not know this appid: check the appid in WeChat's console, then remove and add the app again",
        /// 40164, 61004: the gateway's address is not on the app's IP whitelist.
        IpNotAllowed = "ip_not_allowed": "the gateway's address is not on the app's IP whitelist: add the address named in errmsg in WeChat's console",
        /// 89501–89505: the app's administrator has not yet confirmed the gateway's address to WeChat.
        IpUnconfirmed = "ip_unconfirmed": "WeChat has asked the app's administrator whether the gateway's address may call: ask the administrator to confirm the address in WeChat",
        /// 89506, 89507: the administrator refused the gateway's address.
        IpRefused = "ip_refused": "the app's administrator refused the gateway's address, so WeChat blocks the address for an hour, or for a day after the second refusal: put the address on the IP whitelist in WeChat's console, or ask the administrator to confirm the address when WeChat asks again",
        /// 40243: the AppSecret is frozen.
        SecretFrozen = "secret_frozen": "the AppSecret is frozen: unfreeze the AppSecret in WeChat's console, which takes about ten minutes",
        /// 48001, 61007 …: the account lacks the permission.
        NoPermission = "no_permission": "the account may not use this interface: check the account's type and permissions in WeChat's console",
        /// 40234: the account takes signed calls only.
        SignatureRequired = "signature_required": "the account accepts signed API calls only, which the gateway does not make yet: switch the signature of API calls off in WeChat's console (development settings, API security)",
        /// 40066, 41001, 43002, 43003, 44002: requests reach WeChat in another form than the gateway sends.
        NotUnderstood = "not_understood": "WeChat receives the gateway's calls in another form: check that WXGATE_WECHAT_BASE_URL is https://api.weixin.qq.com and that no proxy changes requests; if both are right, report this error with the attempt's rid",
        /// 48004, 50002, 50004, 50007 …: the platform suspended or punished the account.
        Suspended = "suspended": "WeChat has suspended or punished the account: only the account's owner can repair this in WeChat's console",
        /// WeChat refuses fresh tokens repeatedly.
        TokenRefused = "token_refused": "WeChat refuses fresh access tokens: look for another system that fetches tokens with the same AppSecret",
    }
}

/// One attempt to send a message, as stored in the message's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    /// When the request started.
    pub started_at: DateTime<Utc>,
    /// Milliseconds from the start of the request to the answer.
    pub duration_ms: u64,
    /// How the attempt ended.
    pub outcome: Outcome,
    /// WeChat's error code, if WeChat answered.
    pub errcode: Option<i64>,
    /// WeChat's error text without the rid, or the error of the connection.
    pub errmsg: Option<String>,
    /// WeChat's request id, which WeChat's support asks for.
    pub rid: Option<String>,
}
