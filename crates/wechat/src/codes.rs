//! WeChat's error codes: the meaning of each code at each endpoint, and the gateway's reaction.
//!
//! One table covers all calls of this crate, so that documentation can be generated from the behaviour of the program.
//! One code can have different meanings at different endpoints (40001 is a wrong `AppSecret` at the token endpoints and
//! a dead token everywhere else), so every lookup needs the code and the [`Endpoint`].
//!
//! Sources: the official pages of the endpoints, WeChat's global return-code table, and threads of the developer
//! community where a wording was only observed.

use std::{fmt, time::Duration};

use domain::{
    message::Channel,
    retry::Delay,
    verdict::{BlockReason, FailureCode, Verdict},
};

/// An endpoint, or a group of endpoints with the same error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `GET /cgi-bin/token` and `POST /cgi-bin/stable_token`.
    Token,
    /// [`Channel::Subscribe`].
    Subscribe,
    /// [`Channel::Template`].
    Template,
    /// [`Channel::Official`].
    Official,
    /// `POST /cgi-bin/openapi/quota/get`.
    Quota,
    /// The three lists of an account's templates, such as `GET /wxaapi/newtmpl/gettemplate`.
    Templates,
}

impl Endpoint {
    /// All endpoints.
    pub const ALL: &'static [Self] = &[
        Self::Token,
        Self::Subscribe,
        Self::Template,
        Self::Official,
        Self::Quota,
        Self::Templates,
    ];

    /// The name in the documentation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Subscribe => "subscribe",
            Self::Template => "template",
            Self::Official => "official",
            Self::Quota => "quota",
            Self::Templates => "templates",
        }
    }
}

impl From<Channel> for Endpoint {
    fn from(channel: Channel) -> Self {
        match channel {
            Channel::Subscribe => Self::Subscribe,
            Channel::Template => Self::Template,
            Channel::Official => Self::Official,
        }
    }
}

/// The path to which messages of a channel are posted; also the `cgi_path` of `openapi/quota/get`.
pub fn path(channel: Channel) -> &'static str {
    match channel {
        Channel::Subscribe => "/cgi-bin/message/subscribe/send",
        Channel::Template => "/cgi-bin/message/wxopen/template/send",
        Channel::Official => "/cgi-bin/message/template/send",
    }
}

/// The gateway's reaction to a code.
///
/// A send converts the action into a [`Verdict`], the other calls into a [`crate::TokenError`] or [`crate::CallError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// WeChat did nothing; the same call may succeed later.
    Later(Delay),
    /// WeChat refuses the access token: find out whether the token is dead, and repeat once.
    StaleToken,
    /// The message will never be sent. Only for the three sends.
    Reject(FailureCode),
    /// The app cannot make this call until a person repairs the cause.
    Block {
        /// The reason.
        reason: BlockReason,
        /// How long to wait before the next probe.
        pause: Duration,
    },
    /// The endpoint's calls of the day are used up.
    QuotaSpent,
    /// The gateway built an invalid request.
    Bug,
}

impl Action {
    /// The verdict of this action for a message.
    pub fn verdict(self) -> Verdict {
        match self {
            Self::Later(delay) => Verdict::Later(delay),
            Self::StaleToken => Verdict::StaleToken,
            Self::Reject(code) => Verdict::Rejected(code),
            Self::Block { reason, pause } => Verdict::AppBlocked { reason, pause },
            Self::QuotaSpent => Verdict::QuotaSpent,
            Self::Bug => Verdict::Rejected(FailureCode::GatewayBug),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Later(Delay::Backoff) => f.write_str("retried after a backoff"),
            Self::Later(Delay::NextMinute) => f.write_str("retried in the next minute"),
            Self::Later(Delay::Moment) => f.write_str("retried within the second"),
            Self::Later(Delay::After(wait)) => write!(f, "retried after {} s", wait.as_secs()),
            Self::Later(Delay::AtOnce) => f.write_str("retried at once"),
            Self::StaleToken => f.write_str("token checked and refreshed if dead, retried once"),
            Self::Reject(code) => write!(f, "message fails with `{}`", code.as_str()),
            Self::Block { pause, .. } => {
                write!(f, "app paused, probed after {} min", pause.as_secs() / 60)
            }
            Self::QuotaSpent => f.write_str("held until the quota resets"),
            Self::Bug => write!(
                f,
                "a defect of the gateway: message fails with `{}`",
                FailureCode::GatewayBug.as_str()
            ),
        }
    }
}

/// The meaning and the action of one code at a group of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeRow {
    /// WeChat's `errcode`.
    pub code: i64,
    /// The endpoints at which the code has this meaning.
    pub endpoints: &'static [Endpoint],
    /// The meaning, in a few words.
    pub meaning: &'static str,
    /// The gateway's reaction.
    pub action: Action,
}

/// All rows, by code.
pub fn table() -> impl Iterator<Item = &'static CodeRow> {
    TABLE.iter()
}

/// The action for `code` at `endpoint`; `None`: the table does not contain the code for this endpoint.
pub fn action(code: i64, endpoint: Endpoint) -> Option<Action> {
    let from = TABLE.partition_point(|row| row.code < code);
    let rows = TABLE.iter().skip(from).take_while(|row| row.code == code);
    rows.into_iter()
        .find(|row| row.endpoints.contains(&endpoint))
        .map(|row| row.action)
}

const ANY: &[Endpoint] = Endpoint::ALL;
const TOKEN: &[Endpoint] = &[Endpoint::Token];
const BUSINESS: &[Endpoint] = &[
    Endpoint::Subscribe,
    Endpoint::Template,
    Endpoint::Official,
    Endpoint::Quota,
    Endpoint::Templates,
];
const LISTS: &[Endpoint] = &[Endpoint::Quota, Endpoint::Templates];
const OTHERS: &[Endpoint] = &[Endpoint::Token, Endpoint::Quota, Endpoint::Templates];
const SENDS: &[Endpoint] = &[Endpoint::Subscribe, Endpoint::Template, Endpoint::Official];
const SUBSCRIBE: &[Endpoint] = &[Endpoint::Subscribe];
const TEMPLATE: &[Endpoint] = &[Endpoint::Template];
const OFFICIAL: &[Endpoint] = &[Endpoint::Official];
const QUOTA: &[Endpoint] = &[Endpoint::Quota];
const TEMPLATES: &[Endpoint] = &[Endpoint::Templates];
const SUBSCRIPTIONS: &[Endpoint] = &[Endpoint::Subscribe, Endpoint::Templates];

const BACKOFF: Action = Action::Later(Delay::Backoff);

/// A cause that a tenant can repair in minutes, so the pause is in minutes.
const fn misconfigured(reason: BlockReason) -> Action {
    Action::Block {
        reason,
        pause: Duration::from_mins(5),
    }
}

/// WeChat's punishments last days.
const SUSPENDED: Action = Action::Block {
    reason: BlockReason::Suspended,
    pause: Duration::from_mins(30),
};

/// The administrator refused the gateway's address, and WeChat remembers the refusal for `hours`.
const fn address_refused(hours: u64) -> Action {
    Action::Block {
        reason: BlockReason::IpRefused,
        pause: Duration::from_hours(hours),
    }
}

const fn row(
    code: i64,
    endpoints: &'static [Endpoint],
    action: Action,
    meaning: &'static str,
) -> CodeRow {
    CodeRow {
        code,
        endpoints,
        meaning,
        action,
    }
}

use Action::{Bug, QuotaSpent, Reject, StaleToken};
use BlockReason::{
    IpNotAllowed, IpUnconfirmed, NoPermission, NotUnderstood, SecretFrozen, SignatureRequired,
    UnknownAppid, WrongSecret,
};
use FailureCode::{
    BlockedContent, EndpointGone, InvalidFormId, InvalidPage, InvalidRecipient, InvalidTemplate,
    InvalidValue, NoGrant, RecipientRefuses, Refused,
};

/// The code for a used-up form id. After an attempt without an answer, the code means that this attempt used the id up.
pub const FORM_ID_USED_UP: i64 = 41029;

#[rustfmt::skip]
static TABLE: &[CodeRow] = &[
    row(-1,    ANY,       BACKOFF,                     "WeChat is busy"),
    row(40001, TOKEN,     misconfigured(WrongSecret),  "the AppSecret is wrong"),
    row(40001, BUSINESS,  StaleToken,                  "the access token was replaced by another fetch, or WeChat refuses a valid token"),
    row(40002, ANY,       Bug,                         "wrong grant_type"),
    row(40003, SENDS,     Reject(InvalidRecipient),    "the openid does not belong to this app"),
    row(40008, OFFICIAL,  Reject(Refused),             "wrong message type"),
    row(40013, ANY,       misconfigured(UnknownAppid), "unknown appid"),
    row(40014, BUSINESS,  StaleToken,                  "malformed access token"),
    row(40033, ANY,       Bug,                         "the body is not plain UTF-8"),
    row(40036, SENDS,     Reject(InvalidTemplate),     "the template id has the wrong length"),
    row(40037, SENDS,     Reject(InvalidTemplate),     "the template is not in this account"),
    row(40039, OFFICIAL,  Reject(InvalidPage),         "the url is too long"),
    row(40066, OTHERS, Bug,                       "unknown path"),
    row(40066, SENDS,     misconfigured(NotUnderstood), "unknown path: WeChat would refuse the next message too"),
    row(40125, TOKEN,     misconfigured(WrongSecret),  "the AppSecret is wrong or was reset"),
    // Official accounts enforce the whitelist for every API, mini-programs only for calls that take the AppSecret.
    row(40164, ANY,       misconfigured(IpNotAllowed), "the gateway's address is not on the app's IP whitelist"),
    row(40165, OFFICIAL,  Reject(InvalidPage),         "the linked mini-program has no such page"),
    row(40166, OFFICIAL,  Reject(InvalidPage),         "the linked mini-program cannot be used"),
    row(40234, ANY,       misconfigured(SignatureRequired), "the account accepts signed calls only"),
    row(40243, TOKEN,     misconfigured(SecretFrozen), "the AppSecret is frozen"),
    row(40249, OFFICIAL,  Reject(BlockedContent),      "marketing or illegal content"),
    row(41001, LISTS,     Bug,                         "the access token is missing"),
    row(41001, SENDS,     misconfigured(NotUnderstood), "the access token is missing: WeChat would refuse the next message too"),
    row(41002, TOKEN,     Bug,                         "the appid is missing"),
    row(41004, TOKEN,     Bug,                         "the AppSecret is missing"),
    row(41028, TEMPLATE,  Reject(InvalidFormId),       "the form id is wrong, expired, another user's, or of an unpaid order; a form id of the pool is dropped and the next one is taken"),
    row(41029, TEMPLATE,  Reject(InvalidFormId),       "the form id is used up: by the first attempt, if that attempt had no answer; otherwise a form id of the pool is dropped and the next one is taken"),
    row(41030, SENDS,     Reject(InvalidPage),         "the page is not in the released version"),
    row(41031, TEMPLATE,  Reject(InvalidFormId),       "the form id is blocked; a form id of the pool is dropped and the next one is taken"),
    row(41032, TEMPLATE,  SUSPENDED,                   "the account may not send with form ids, as a punishment"),
    row(41034, TEMPLATE,  SUSPENDED,                   "the account may not send with form ids, as a punishment"),
    row(41035, TEMPLATE,  SUSPENDED,                   "the account may not send with prepay ids, as a punishment"),
    row(42001, BUSINESS,  StaleToken,                  "the access token has expired"),
    row(43002, OTHERS, Bug,                       "POST required"),
    row(43002, SENDS,     misconfigured(NotUnderstood), "POST required: WeChat would refuse the next message too"),
    row(43003, OTHERS, Bug,                       "HTTPS required"),
    row(43003, SENDS,     misconfigured(NotUnderstood), "HTTPS required: WeChat would refuse the next message too"),
    row(43004, SENDS,     Reject(RecipientRefuses),    "the user does not follow the account"),
    row(43019, SENDS,     Reject(RecipientRefuses),    "the user is on the account's blacklist"),
    row(43101, SENDS,     Reject(NoGrant),             "never subscribed, used up, refused or cancelled: WeChat does not say which"),
    row(43102, SUBSCRIBE, misconfigured(NoPermission), "no permission for subscribe messages"),
    row(43104, SUBSCRIPTIONS, misconfigured(NoPermission), "the appid has no permission"),
    row(43105, SUBSCRIBE, misconfigured(NoPermission), "no permission for subscribe messages"),
    row(43106, SUBSCRIPTIONS, misconfigured(NoPermission), "no permission for subscribe messages"),
    row(43107, SUBSCRIBE, Reject(InvalidTemplate),     "the template, or the account's subscribe messages, are banned"),
    row(43108, SENDS,     Action::Later(Delay::Moment), "another send to the same openid is in progress"),
    row(43116, SENDS,     Reject(InvalidTemplate),     "the template is restricted"),
    row(44002, OTHERS, Bug,                       "empty body"),
    row(44002, SENDS,     misconfigured(NotUnderstood), "empty body: WeChat would refuse the next message too"),
    row(45009, ANY,       QuotaSpent,                  "the quota of the day is used up"),
    row(45011, ANY,       Action::Later(Delay::NextMinute), "the quota of the minute is used up"),
    row(45051, OFFICIAL,  misconfigured(NoPermission), "the account may not use this ability"),
    row(45102, ANY,       SUSPENDED,                   "temporarily blocked by the platform"),
    row(45103, SENDS,     Reject(EndpointGone),        "the endpoint is withdrawn"),
    row(45104, SENDS,     Reject(Refused),             "listed in WeChat's global table without a meaning that could be verified"),
    row(45109, SENDS,     Reject(EndpointGone),        "the endpoint is withdrawn"),
    row(45168, SENDS,     Reject(BlockedContent),      "a sensitive word in a value"),
    row(45501, ANY,       SUSPENDED,                   "temporarily blocked by the platform"),
    row(46101, SENDS,     Reject(EndpointGone),        "not supported since 2020-01-11"),
    row(47001, ANY,       Bug,                         "the body is not JSON"),
    row(47002, ANY,       Bug,                         "the body is not plain UTF-8"),
    row(47003, SENDS,     Reject(InvalidValue),        "a value breaks the rule of its type, is empty or missing"),
    row(48001, ANY,       misconfigured(NoPermission), "the account's type may not use this interface"),
    // The code is about one user, so the app must not pause.
    row(48002, SENDS,     Reject(RecipientRefuses),    "the user has switched the account's messages off"),
    row(48004, ANY,       SUSPENDED,                   "the interface is forbidden for irregularities"),
    row(50001, ANY,       SUSPENDED,                   "the account is not authorized"),
    row(50002, ANY,       SUSPENDED,                   "the account is frozen, cancelled or migrating"),
    row(50004, ANY,       SUSPENDED,                   "the account may not use access tokens, maybe as a punishment"),
    row(50007, ANY,       SUSPENDED,                   "the account is frozen"),
    row(61003, ANY,       misconfigured(NoPermission), "the account has not authorised the third-party platform"),
    row(61004, ANY,       misconfigured(IpNotAllowed), "the gateway's address is not registered"),
    row(61007, ANY,       misconfigured(NoPermission), "the third-party platform lacks the permission"),
    row(61024, TOKEN,     misconfigured(NoPermission), "the account is run by a third-party platform, which must fetch its tokens"),
    row(76021, QUOTA,     Bug,                         "unknown cgi_path"),
    row(76022, QUOTA,     misconfigured(NoPermission), "no permission for this cgi_path"),
    row(89501, ANY,       misconfigured(IpUnconfirmed), "the gateway's address waits for the administrator's answer"),
    row(89502, ANY,       misconfigured(IpUnconfirmed), "the gateway's address waits for the administrator's answer"),
    row(89503, ANY,       misconfigured(IpUnconfirmed), "the administrator must confirm the gateway's address"),
    row(89504, ANY,       misconfigured(IpUnconfirmed), "the gateway's address waits for the administrator's answer"),
    row(89505, ANY,       misconfigured(IpUnconfirmed), "the gateway's address waits for the administrator's answer"),
    row(89506, ANY,       address_refused(24),         "the administrator refused the gateway's address twice: blocked for 24 hours"),
    row(89507, ANY,       address_refused(1),          "the administrator refused the gateway's address: blocked for an hour"),
    row(200_011, TEMPLATES, SUSPENDED,                 "the account may not use templates, as a punishment"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_one_meaning_at_an_endpoint_and_the_table_is_in_order() {
        assert!(
            table()
                .zip(table().skip(1))
                .all(|(one, next)| one.code <= next.code)
        );
        for row in table() {
            for &endpoint in row.endpoints {
                let meanings = table()
                    .filter(|other| other.code == row.code && other.endpoints.contains(&endpoint));
                assert_eq!(meanings.count(), 1, "{} at {}", row.code, endpoint.as_str());
                assert_eq!(action(row.code, endpoint), Some(row.action));
            }
            assert!(!row.endpoints.is_empty() && !row.meaning.is_empty());
        }
    }

    #[test]
    fn only_sends_reject_messages_and_no_token_is_stale_where_tokens_are_issued() {
        for row in table() {
            if matches!(row.action, Reject(_)) {
                assert!(
                    row.endpoints
                        .iter()
                        .all(|endpoint| SENDS.contains(endpoint)),
                    "{}",
                    row.code
                );
            }
            if row.action == StaleToken {
                assert!(!row.endpoints.contains(&Endpoint::Token), "{}", row.code);
            }
        }
    }

    /// Codes that are about the message, its user, its template or its endpoint alone. With every other code WeChat
    /// would also refuse the next message of the app.
    const OF_ONE_MESSAGE: &[i64] = &[
        // The user.
        40003, 43004, 43019, 43101, 48002,
        // The template: the app's other templates still work. 43107 means either this or the whole account.
        40036, 40037, 43107, 43116, // The content: wording, values, page, link.
        40008, 40033, 40039, 40165, 40166, 40249, 41030, 45168, 47001, 47002, 47003,
        // The form id.
        41028, 41029, 41031, // The endpoint: the app's other channels are sent.
        45103, 45109, 46101, // Nobody knows.
        45104, // A constant of the gateway that no send has.
        40002,
    ];

    #[test]
    fn a_refusal_that_the_next_message_would_meet_is_a_pause() {
        for row in table() {
            let at_a_send = row
                .endpoints
                .iter()
                .any(|endpoint| SENDS.contains(endpoint));
            if at_a_send {
                let ends_the_message = matches!(row.action, Reject(_) | Bug);
                assert_eq!(
                    ends_the_message,
                    OF_ONE_MESSAGE.contains(&row.code),
                    "{}",
                    row.code
                );
            }
        }
    }

    #[test]
    fn a_code_is_known_only_where_it_is_listed() {
        assert_eq!(
            action(41028, Endpoint::Template),
            Some(Reject(InvalidFormId))
        );
        assert_eq!(action(41028, Endpoint::Subscribe), None);
        assert_eq!(action(99999, Endpoint::Subscribe), None);
        assert_eq!(action(0, Endpoint::Token), None);
    }
}
