//! The token check: a cheap call that shows whether WeChat accepts an access token.

use domain::{retry::Delay, secret::AccessToken, verdict::BlockReason};
use reqwest::{Method, Request};

use crate::{
    Client,
    answer::Cause,
    client::with_token,
    codes::{self, Action, Endpoint},
    decode::Reply,
    transport::{self, ExchangeResult},
};

/// The list of WeChat's API addresses. Any account's token permits the call; the call has no other requirements and
/// changes nothing.
pub(crate) const PATH: &str = "/cgi-bin/get_api_domain_ip";

/// WeChat's answer about an access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenCheck {
    /// WeChat accepts the token.
    Alive,
    /// WeChat refuses the token (40001, 40014, 42001).
    Refused(Cause),
    /// WeChat did not answer, or the answer does not show whether the token is alive.
    Unclear(Cause),
}

impl Client {
    /// `GET /cgi-bin/get_api_domain_ip`: whether WeChat accepts this token. The call depends on nothing but the token.
    pub async fn check_token(&self, token: &AccessToken) -> TokenCheck {
        let Some(route) = self.route(PATH) else {
            return TokenCheck::Unclear(Cause::of_connection("no route", token.expose()));
        };
        let request = Request::new(Method::GET, with_token(&route, token));
        match transport::exchange(self.http(), request).await {
            ExchangeResult::Reply(reply) => of_reply(*reply, token.expose()),
            ExchangeResult::NotDone(_, why) | ExchangeResult::Unclear(why) => {
                TokenCheck::Unclear(Cause::of_connection(&why, token.expose()))
            }
        }
    }
}

/// WeChat checks the token before quotas and permissions: a refusal because of a quota or permission proves a live
/// token.
fn of_reply(reply: Reply, secret: &str) -> TokenCheck {
    let Some(code) = reply.errcode.filter(|&code| code != 0) else {
        return if reply.has_addresses {
            TokenCheck::Alive
        } else {
            TokenCheck::Unclear(Cause::of_nothing(secret))
        };
    };
    match codes::action(code, Endpoint::Quota) {
        Some(Action::StaleToken) => TokenCheck::Refused(Cause::of_reply(reply, secret)),
        Some(
            Action::QuotaSpent
            | Action::Later(Delay::NextMinute)
            | Action::Block {
                reason: BlockReason::NoPermission,
                ..
            },
        ) => TokenCheck::Alive,
        _ => TokenCheck::Unclear(Cause::of_reply(reply, secret)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::decode;

    #[test]
    fn only_a_refusal_of_the_token_is_one() {
        let check = |body: &str| of_reply(decode(body.as_bytes()).unwrap(), "tok");
        for alive in [
            r#"{"ip_list":["101.226.103.0/25"]}"#,
            r#"{"errcode":0,"ip_list":"101.226.103.0"}"#,
            r#"{"errcode":45009,"errmsg":"reach max api daily quota limit"}"#,
            r#"{"errcode":"45011"}"#,
            r#"{"errcode":48001}"#,
        ] {
            assert_eq!(check(alive), TokenCheck::Alive, "{alive}");
        }
        for code in [40001, 40014, 42001] {
            let refused = check(&format!(r#"{{"errcode":{code},"errmsg":"tok"}}"#));
            assert!(matches!(refused, TokenCheck::Refused(_)), "{code}");
            assert!(!format!("{refused:?}").contains("tok\""), "{refused:?}");
        }
        for unclear in [
            "{}",
            r#"{"errcode":0}"#,
            r#"{"errcode":-1}"#,
            r#"{"errcode":40066}"#,
            r#"{"errcode":40164}"#,
            r#"{"errcode":99999}"#,
        ] {
            let check = check(unclear);
            assert!(matches!(check, TokenCheck::Unclear(_)), "{unclear}");
        }
    }
}
