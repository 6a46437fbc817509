//! The results of the calls.

use std::{fmt, net::IpAddr, time::Duration};

use domain::{
    message::Channel,
    retry::Delay,
    secret::AccessToken,
    verdict::{BlockReason, FailureCode, Verdict},
};

use crate::{
    codes::{self, Action, Endpoint},
    decode::{self, ErrorText, Reply},
    listed::WireTemplate,
    transport::ExchangeResult,
};

/// The longest token lifetime that the gateway accepts.
const MAX_TOKEN_LIFE: Duration = Duration::from_hours(24);

/// The result of one send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The meaning for the message and its app.
    pub verdict: Verdict,
    /// WeChat's error code, if WeChat answered.
    pub errcode: Option<i64>,
    /// WeChat's error text without the request id, or the error of the connection. At most 1 KiB.
    pub errmsg: String,
    /// WeChat's request id, if the answer contains an id.
    pub rid: Option<String>,
    /// The time from the start of the request to the end of the answer.
    pub duration: Duration,
}

/// A fresh access token.
#[derive(Clone, Debug)]
pub struct FetchedToken {
    /// The token.
    pub token: AccessToken,
    /// The remaining life: at most 7200 s today, and at most a day for any answer of WeChat.
    pub expires_in: Duration,
}

/// The state of an endpoint's daily quota, as WeChat counts calls (with an error of about 1 %).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WechatQuota {
    /// Calls a day.
    pub daily_limit: u64,
    /// Calls made today.
    pub used: u64,
    /// Calls left today.
    pub remain: u64,
}

/// What WeChat answered, or how the connection failed, when a call failed. Contains no tokens and no secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// WeChat's error code; `None`: WeChat did not answer.
    pub errcode: Option<i64>,
    /// WeChat's error text without the request id, or the error of the connection.
    pub errmsg: String,
    /// WeChat's request id, if the answer contains an id.
    pub rid: Option<String>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(errcode) = self.errcode {
            write!(f, "errcode {errcode}: ")?;
        }
        f.write_str(&self.errmsg)?;
        self.rid
            .as_ref()
            .map_or(Ok(()), |rid| write!(f, " (rid {rid})"))
    }
}

/// Why no token was fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// WeChat gives the app no tokens until a person repairs the cause. Every further fetch costs quota.
    #[error("{}: {cause}", reason.advice())]
    Blocked {
        /// The reason.
        reason: BlockReason,
        /// How long to wait before the next probe.
        pause: Duration,
        /// The gateway's address as WeChat saw the address, where WeChat refuses the address (40164). May differ
        /// between calls.
        seen_ip: Option<IpAddr>,
        /// WeChat's error.
        cause: Cause,
    },
    /// WeChat is busy or unreachable, or the answer is unintelligible.
    #[error("WeChat gives no token now: {cause}")]
    Later {
        /// The time of the next fetch.
        delay: Delay,
        /// The cause.
        cause: Cause,
    },
    /// The request left and no usable answer came: WeChat may have made a token.
    #[error("WeChat gives no token now: {0}")]
    Unclear(Cause),
    /// The day's fetches are used up (45009). A token that is still alive stays usable.
    #[error("the token fetches of the day are used up: {0}")]
    QuotaSpent(Cause),
    /// The gateway built an invalid request.
    #[error("the gateway asked for a token in a way that WeChat does not understand: {0}")]
    Bug(Cause),
}

impl TokenError {
    /// WeChat's error or the error of the connection.
    pub fn cause(&self) -> &Cause {
        match self {
            Self::Blocked { cause, .. }
            | Self::Later { cause, .. }
            | Self::Unclear(cause)
            | Self::QuotaSpent(cause)
            | Self::Bug(cause) => cause,
        }
    }

    /// Whether the request certainly never reached WeChat.
    pub fn is_unseen(&self) -> bool {
        matches!(self, Self::Later { cause, .. } if cause.errcode.is_none())
    }
}

/// Why a call for the quota or the templates failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The access token is dead: refresh the token and repeat the call once.
    #[error("the access token is dead: {0}")]
    StaleToken(Cause),
    /// WeChat is busy or unreachable, or the answer is unintelligible.
    #[error("WeChat gives no answer now: {cause}")]
    Later {
        /// The time of the next call.
        delay: Delay,
        /// The cause.
        cause: Cause,
    },
    /// The app cannot make the call until a person repairs the cause.
    #[error("{}: {cause}", reason.advice())]
    Blocked {
        /// The reason.
        reason: BlockReason,
        /// How long to wait before the next probe.
        pause: Duration,
        /// WeChat's error.
        cause: Cause,
    },
    /// WeChat refuses for another reason.
    #[error("WeChat refuses the call: {0}")]
    Refused(Cause),
}

impl CallError {
    /// WeChat's error or the error of the connection.
    pub fn cause(&self) -> &Cause {
        match self {
            Self::StaleToken(cause)
            | Self::Later { cause, .. }
            | Self::Blocked { cause, .. }
            | Self::Refused(cause) => cause,
        }
    }
}

impl Answer {
    /// Converts the result of the transport into the answer to a send.
    pub(crate) fn send_result(
        heard: ExchangeResult,
        channel: Channel,
        secret: &str,
        duration: Duration,
    ) -> Self {
        let (verdict, cause) = match heard {
            ExchangeResult::Reply(reply) => {
                return Self::of_reply(*reply, channel, secret, duration);
            }
            ExchangeResult::NotDone(delay, why) => {
                (Verdict::Later(delay), Cause::of_connection(&why, secret))
            }
            ExchangeResult::Unclear(why) => (Verdict::Unknown, Cause::of_connection(&why, secret)),
        };
        Self::with_cause(verdict, cause, duration)
    }

    fn of_reply(reply: Reply, channel: Channel, secret: &str, duration: Duration) -> Self {
        match (reply.errcode, reply.msgid) {
            // A message id without a code is also a success.
            (Some(0), msgid) | (None, msgid @ Some(_)) => {
                let (verdict, errcode) = (Verdict::Accepted { msgid }, reply.errcode);
                let cause = Cause::of_reply(reply, secret);
                Self {
                    errcode,
                    ..Self::with_cause(verdict, cause, duration)
                }
            }
            (Some(code), _) => {
                // WeChat answered and did not accept, so an unknown code is a refusal.
                let refused = Verdict::Rejected(FailureCode::Refused);
                let verdict = codes::action(code, channel.into()).map_or(refused, Action::verdict);
                Self::with_cause(verdict, Cause::of_reply(reply, secret), duration)
            }
            (None, None) => Self::with_cause(Verdict::Unknown, Cause::of_nothing(secret), duration),
        }
    }

    /// The answer for a message that the gateway cannot serialise.
    pub(crate) fn unserialised(error: &serde_json::Error, duration: Duration) -> Self {
        let cause = Cause {
            errcode: None,
            errmsg: format!("the message is not JSON: {error}"),
            rid: None,
        };
        Self::with_cause(Action::Bug.verdict(), cause, duration)
    }

    fn with_cause(verdict: Verdict, cause: Cause, duration: Duration) -> Self {
        Self {
            verdict,
            errcode: cause.errcode,
            errmsg: cause.errmsg,
            rid: cause.rid,
            duration,
        }
    }
}

/// Converts the result of the transport into the result of a token fetch.
pub(crate) fn fetch_result(
    heard: ExchangeResult,
    secret: &str,
) -> Result<FetchedToken, TokenError> {
    let later = |delay, cause| Err(TokenError::Later { delay, cause });
    let reply = match heard {
        ExchangeResult::Reply(reply) => *reply,
        ExchangeResult::Unclear(why) => {
            return Err(TokenError::Unclear(Cause::of_connection(&why, secret)));
        }
        ExchangeResult::NotDone(delay, why) => {
            return later(delay, Cause::of_connection(&why, secret));
        }
    };
    let Some(code) = reply.errcode.filter(|&code| code != 0) else {
        return match (reply.access_token, reply.expires_in) {
            (Some(token), Some(seconds)) => Ok(FetchedToken {
                token,
                expires_in: Duration::from_secs(seconds).min(MAX_TOKEN_LIFE),
            }),
            _ => Err(TokenError::Unclear(Cause::of_nothing(secret))),
        };
    };
    let cause = Cause::of_reply(reply, secret);
    Err(match codes::action(code, Endpoint::Token) {
        Some(Action::Block { reason, pause }) => {
            let seen_ip = match reason {
                BlockReason::IpNotAllowed | BlockReason::IpUnconfirmed | BlockReason::IpRefused => {
                    find_ip(&cause.errmsg)
                }
                _ => None,
            };
            TokenError::Blocked {
                reason,
                pause,
                seen_ip,
                cause,
            }
        }
        Some(Action::Later(delay)) => TokenError::Later { delay, cause },
        Some(Action::QuotaSpent) => TokenError::QuotaSpent(cause),
        Some(Action::Bug) => TokenError::Bug(cause),
        Some(Action::StaleToken | Action::Reject(_)) | None => TokenError::Later {
            delay: Delay::Backoff,
            cause,
        },
    })
}

/// Converts the result of the transport into the result of a quota call.
pub(crate) fn quota_result(heard: ExchangeResult, secret: &str) -> Result<WechatQuota, CallError> {
    let told = |reply: &mut Reply| {
        let (daily_limit, used, remain) = reply.quota?;
        Some(WechatQuota {
            daily_limit,
            used,
            remain,
        })
    };
    to_call(heard, Endpoint::Quota, secret, told)
}

/// Converts the result of the transport into a list of templates.
pub(crate) fn list_result(
    heard: ExchangeResult,
    secret: &str,
) -> Result<Vec<WireTemplate>, CallError> {
    to_call(heard, Endpoint::Templates, secret, |reply| {
        reply.templates.take()
    })
}

/// Converts the result of a call that may be repeated. The last argument extracts the value from a success.
fn to_call<T>(
    heard: ExchangeResult,
    endpoint: Endpoint,
    secret: &str,
    told: impl FnOnce(&mut Reply) -> Option<T>,
) -> Result<T, CallError> {
    let later = |delay, cause| Err(CallError::Later { delay, cause });
    let mut reply = match heard {
        ExchangeResult::Reply(reply) => *reply,
        ExchangeResult::Unclear(why) => {
            return later(Delay::Backoff, Cause::of_connection(&why, secret));
        }
        ExchangeResult::NotDone(delay, why) => {
            return later(delay, Cause::of_connection(&why, secret));
        }
    };
    let Some(code) = reply.errcode.filter(|&code| code != 0) else {
        return match told(&mut reply) {
            Some(told) => Ok(told),
            None => later(Delay::Backoff, Cause::of_nothing(secret)),
        };
    };
    let cause = Cause::of_reply(reply, secret);
    Err(match codes::action(code, endpoint) {
        Some(Action::StaleToken) => CallError::StaleToken(cause),
        Some(Action::Later(delay)) => CallError::Later { delay, cause },
        Some(Action::Block { reason, pause }) => CallError::Blocked {
            reason,
            pause,
            cause,
        },
        Some(Action::QuotaSpent | Action::Bug | Action::Reject(_)) | None => {
            CallError::Refused(cause)
        }
    })
}

impl Cause {
    pub(crate) fn of_reply(reply: Reply, secret: &str) -> Self {
        let said = redact(&reply.errmsg.unwrap_or_default(), secret);
        let ErrorText { errmsg, rid } = decode::split_errmsg(&said);
        Self {
            errcode: reply.errcode,
            errmsg,
            rid,
        }
    }

    pub(crate) fn of_connection(why: &str, secret: &str) -> Self {
        Self {
            errcode: None,
            errmsg: redact(why, secret),
            rid: None,
        }
    }

    pub(crate) fn of_nothing(secret: &str) -> Self {
        Self::of_connection("an answer without its required fields", secret)
    }
}

/// Removes the token or the secret of the call from WeChat's text.
fn redact(text: &str, secret: &str) -> String {
    if secret.is_empty() {
        text.to_owned()
    } else {
        text.replace(secret, "…")
    }
}

/// The first address in the text of a 40164: `invalid ip A ipv6 ::ffff:A, not in whitelist`.
fn find_ip(errmsg: &str) -> Option<IpAddr> {
    let mut words = errmsg.split(|c: char| c.is_whitespace() || c == ',');
    words
        .find_map(|word| word.parse().ok())
        .map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refused_address_is_found() {
        let seen = |text| find_ip(text).map(|ip| ip.to_string());
        assert_eq!(
            seen("invalid ip 203.0.113.24 ipv6 ::ffff:203.0.113.24, not in whitelist").as_deref(),
            Some("203.0.113.24")
        );
        assert_eq!(
            seen("invalid ip ::ffff:203.0.113.24, not in whitelist").as_deref(),
            Some("203.0.113.24")
        );
        assert_eq!(seen("not in whitelist"), None);
    }

    #[test]
    fn an_empty_secret_redacts_nothing() {
        assert_eq!(redact("said", ""), "said");
        assert_eq!(redact("url?secret=abc&x", "abc"), "url?secret=…&x");
    }
}
