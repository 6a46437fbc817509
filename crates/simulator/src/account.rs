//! The settings of an account that a test chooses: secret, kind, state, limits and policies.

use serde::{Deserialize, Serialize};

use crate::endpoint::CallEndpoint;
use crate::push::PushSettings;
use crate::refusal::Refusal;
use crate::template::ListedTemplate;

/// All settings of one account. An account that no test registered has the default settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppSettings {
    /// The only right `AppSecret`; every other secret answers 40125. `None` accepts any secret.
    pub secret: Option<String>,
    /// Which endpoints accept the account's tokens.
    pub kind: AccountKind,
    /// Whether WeChat restricts or freezes the account.
    pub state: AccountState,
    /// Lifetime of a new token in seconds.
    pub token_ttl: u32,
    /// The limits on the account's calls.
    pub limits: CallLimits,
    /// The account's templates. An empty list accepts every template id; with a non-empty list, any other id answers
    /// 40037.
    pub templates: Vec<ListedTemplate>,
    /// The templates of form-id messages, which WeChat lists separately. An empty list accepts every template id.
    pub wxopen_templates: Vec<ListedTemplate>,
    /// Whether a subscribe message needs a grant of the recipient.
    pub grants: GrantRule,
    /// Which form ids exist.
    pub form_ids: FormIdPolicy,
    /// Which openids exist; any other answers 40003.
    pub users: UserPolicy,
    /// `message/wxopen/template/send` and the list of form-id templates answer this code, as WeChat's endpoints have
    /// since 2020 (45103; 46101 is documented too). `None` keeps the endpoints working.
    pub wxopen_withdrawn: Option<i64>,
    /// The delay of each answer of this account, in milliseconds; `None` uses the simulator's latency.
    pub latency_ms: Option<u64>,
    /// The data key with the value that marks a message for duplicate detection, for senders that cannot put `marker=…`
    /// into the page.
    pub marker_key: Option<String>,
    /// The callback settings of the account; `None` sends no callbacks.
    pub push: Option<PushSettings>,
}

impl Default for AppSettings {
    fn default() -> Self {
        Self {
            secret: None,
            kind: AccountKind::default(),
            state: AccountState::default(),
            token_ttl: 7200,
            limits: CallLimits::default(),
            templates: Vec::new(),
            wxopen_templates: Vec::new(),
            grants: GrantRule::default(),
            form_ids: FormIdPolicy::default(),
            users: UserPolicy::default(),
            wxopen_withdrawn: None,
            latency_ms: None,
            marker_key: None,
            push: None,
        }
    }
}

/// The two kinds of account. A token of one kind does not work at the endpoints of the other kind: 48001.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountKind {
    /// Sends subscribe messages and (before 2020) form-id messages.
    #[default]
    MiniProgram,
    /// Sends `message/template/send`.
    OfficialAccount,
}

/// The restriction of an account by WeChat or by the tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountState {
    /// No restriction.
    #[default]
    Active,
    /// The tenant froze the secret: token fetches answer 40243; valid tokens keep working.
    SecretFrozen,
    /// The caller's address is not on the whitelist, 40164: affects token fetches of a mini program, and every call of
    /// an official account.
    IpNotAllowed,
    /// Tokens are forbidden as a punishment: token fetches answer 50004.
    TokensForbidden,
    /// Sending is forbidden: business calls answer 48004.
    ApiForbidden,
    /// The account is limited, cancelled or migrating: every call answers 50002.
    Limited,
    /// The account is frozen: every call answers 50007.
    Suspended,
}

impl AccountState {
    /// Fails if the state refuses a token fetch, or a business call if `issuing` is false.
    pub(crate) fn check(self, kind: AccountKind, issuing: bool, ip: &str) -> Result<(), Refusal> {
        let code = match self {
            Self::SecretFrozen if issuing => 40243,
            Self::TokensForbidden if issuing => 50004,
            Self::ApiForbidden if !issuing => 48004,
            Self::Limited => 50002,
            Self::Suspended => 50007,
            Self::IpNotAllowed if issuing || kind == AccountKind::OfficialAccount => {
                return Err(Refusal::worded(
                    40164,
                    format!("invalid ip {ip} ipv6 ::ffff:{ip}, not in whitelist"),
                ));
            }
            Self::Active
            | Self::SecretFrozen
            | Self::TokensForbidden
            | Self::ApiForbidden
            | Self::IpNotAllowed => return Ok(()),
        };
        Err(Refusal::known(code))
    }
}

/// Calls allowed per day (Asia/Shanghai), minute and month. Counters saturate at 2^32 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CallLimits {
    /// `GET /cgi-bin/token` a day.
    pub token: u64,
    /// `POST /cgi-bin/stable_token` a day.
    pub stable_token: u64,
    /// `POST /cgi-bin/stable_token` a minute; beyond that 45011.
    pub stable_token_per_minute: u64,
    /// Effective `force_refresh` calls a day.
    pub forced_token: u64,
    /// `message/subscribe/send` a day.
    pub subscribe_send: u64,
    /// `message/wxopen/template/send` a day.
    pub wxopen_send: u64,
    /// `message/template/send` a day.
    pub template_send: u64,
    /// Calls of each send endpoint a minute; beyond that 45011. WeChat does not publish this limit.
    pub sends_per_minute: u64,
    /// `clear_quota` and `clear_quota/v2` together, a month.
    pub clear_quota: u64,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            token: 2_000,
            stable_token: 500_000,
            stable_token_per_minute: 10_000,
            forced_token: 20,
            subscribe_send: 30_000_000,
            wxopen_send: 1_000_000,
            template_send: 100_000,
            sends_per_minute: 4_200_000,
            clear_quota: 10,
        }
    }
}

/// The limit of an endpoint without a documented limit.
const UNLIMITED: u64 = 10_000_000;

impl CallLimits {
    /// The daily limit of one endpoint.
    pub(crate) fn of_day(&self, endpoint: CallEndpoint) -> u64 {
        match endpoint {
            CallEndpoint::Token => self.token,
            CallEndpoint::StableToken => self.stable_token,
            CallEndpoint::ForcedToken => self.forced_token,
            CallEndpoint::SubscribeSend => self.subscribe_send,
            CallEndpoint::WxopenSend => self.wxopen_send,
            CallEndpoint::TemplateSend => self.template_send,
            CallEndpoint::GetTemplate
            | CallEndpoint::WxopenTemplates
            | CallEndpoint::PrivateTemplates
            | CallEndpoint::QuotaGet
            | CallEndpoint::ClearQuota
            | CallEndpoint::ClearQuotaV2
            | CallEndpoint::CodeToSession
            | CallEndpoint::ApiDomainIp
            | CallEndpoint::Unknown => UNLIMITED,
        }
    }

    /// The limit per minute of one endpoint.
    pub(crate) fn of_minute(&self, endpoint: CallEndpoint) -> u64 {
        match endpoint {
            CallEndpoint::StableToken => self.stable_token_per_minute,
            send if send.is_send() => self.sends_per_minute,
            _ => UNLIMITED,
        }
    }
}

/// Whether a subscribe message uses up a grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantRule {
    /// Every user has accepted every message, for ever.
    #[default]
    Unlimited,
    /// A user has only the grants added through [`Control`](crate::Control); without a grant left, a send answers
    /// 43101.
    Counted,
}

/// Which form ids exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FormIdPolicy {
    /// Every id: an unknown id counts as created at the first use, by the recipient of that message.
    #[default]
    Any,
    /// Only ids registered through [`Control`](crate::Control); any other answers 41028.
    Known,
}

/// Which users exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserPolicy {
    /// Every openid that is not empty.
    #[default]
    Any,
    /// Only openids registered through [`Control`](crate::Control).
    Known,
}

/// Whether an appid has WeChat's shape: `wx` and sixteen lower-case letters or digits.
pub(crate) fn well_shaped(appid: &str) -> bool {
    appid.len() == 18
        && appid.strip_prefix("wx").is_some_and(|rest| {
            rest.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appids_are_case_sensitive_and_take_no_blank() {
        assert!(well_shaped("wx0a1b2c3d4e5f6789"));
        for wrong in [
            "wx0A1b2c3d4e5f6789",
            " wx0a1b2c3d4e5f678",
            "wx12",
            "gh0a1b2c3d4e5f6789",
        ] {
            assert!(!well_shaped(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_mini_programs_whitelist_guards_only_token_fetches() {
        let state = AccountState::IpNotAllowed;
        let refused = state
            .check(AccountKind::MiniProgram, true, "203.0.113.24")
            .unwrap_err();
        assert_eq!(
            refused.text,
            "invalid ip 203.0.113.24 ipv6 ::ffff:203.0.113.24, not in whitelist"
        );
        assert!(state.check(AccountKind::MiniProgram, false, "").is_ok());
        assert!(
            state
                .check(AccountKind::OfficialAccount, false, "")
                .is_err()
        );
    }

    #[test]
    fn settings_can_be_partial_but_not_misspelled() {
        let settings: AppSettings =
            serde_json::from_str(r#"{"secret":"s","limits":{"token":3}}"#).unwrap();
        assert_eq!(
            (settings.limits.token, settings.limits.forced_token),
            (3, 20)
        );
        assert!(serde_json::from_str::<AppSettings>(r#"{"secrt":"s"}"#).is_err());
    }
}
