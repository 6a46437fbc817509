//! The error table and the bodies against the documented examples.

use domain::{
    message::{Channel, Content},
    retry::Delay,
    template::{Template, TemplateKind},
    verdict::{BlockReason, FailureCode, Verdict},
};
use serde_json::{Value, json};

use super::{SECRET, TOKEN};

use crate::{
    Answer, CallError, Outgoing, TokenError, answer,
    codes::{self, Action, Endpoint},
    decode, listed,
    transport::ExchangeResult,
};

/// The endpoints of this crate, by the names in the fixtures.
const CALLS: &[(&str, Endpoint)] = &[
    ("token_legacy", Endpoint::Token),
    ("token_stable", Endpoint::Token),
    ("subscribe_send", Endpoint::Subscribe),
    ("wxopen_template_send", Endpoint::Template),
    ("mp_template_send", Endpoint::Official),
    ("quota_get", Endpoint::Quota),
    ("subscribe_gettemplate", Endpoint::Templates),
];

fn fixture(name: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("../../fixtures/fixtures.json")).unwrap();
    let endpoints = all["endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), CALLS.len());
    endpoints
        .iter()
        .find(|endpoint| endpoint["name"] == name)
        .unwrap()
        .clone()
}

fn heard(body: &Value) -> ExchangeResult {
    ExchangeResult::Reply(Box::new(
        decode::decode(body.to_string().as_bytes()).unwrap(),
    ))
}

/// Whether the table's action is the one that the fixture's word names.
fn agrees(word: &str, action: Action) -> bool {
    use FailureCode::{
        BlockedContent, EndpointGone, InvalidFormId, InvalidPage, InvalidRecipient,
        InvalidTemplate, InvalidValue, NoGrant, RecipientRefuses,
    };
    match word {
        // 43108 is retried within the second: the colliding send takes no longer.
        "retry_backoff" => matches!(action, Action::Later(Delay::Backoff | Delay::Moment)),
        "retry_next_minute" => action == Action::Later(Delay::NextMinute),
        "refresh_token_retry_once" => action == Action::StaleToken,
        "app_misconfigured" => {
            matches!(action, Action::Block { reason, .. } if reason != BlockReason::Suspended)
        }
        "app_suspended" => matches!(
            action,
            Action::Block {
                reason: BlockReason::Suspended,
                ..
            }
        ),
        "quota_stop" => action == Action::QuotaSpent,
        "drop_form_id" => action == Action::Reject(InvalidFormId),
        // Deliberately finer: a user who does not follow (43004) or is on the blacklist (43019) never had a grant, and
        // the tenant gets this reason.
        "grant_exhausted" => matches!(action, Action::Reject(NoGrant | RecipientRefuses)),
        // 40036, a template id of the wrong length, is for the tenant to repair, like any wrong template id.
        "reject_request" => matches!(
            action,
            Action::Reject(
                InvalidRecipient | InvalidPage | InvalidValue | BlockedContent | InvalidTemplate
            )
        ),
        // Deliberately by message: there is no switch that stops a template. 40249 is about the wording.
        "template_disabled" => matches!(action, Action::Reject(InvalidTemplate | BlockedContent)),
        "endpoint_gone" => action == Action::Reject(EndpointGone),
        // At the sends a pause, where WeChat would refuse the next message for the same reason.
        "bug" => matches!(
            action,
            Action::Bug
                | Action::Block {
                    reason: BlockReason::NotUnderstood,
                    ..
                }
        ),
        _ => panic!("unknown word {word}"),
    }
}

#[test]
fn every_documented_error_does_what_it_should() {
    let mut checked = 0;
    for &(name, endpoint) in CALLS {
        for example in fixture(name)["error_examples"].as_array().unwrap() {
            let code = example["body"]["errcode"].as_i64().unwrap();
            let word = example["action"].as_str().unwrap();
            let action = codes::action(code, endpoint)
                .unwrap_or_else(|| panic!("{code} is not in the table for {name}"));
            assert!(
                agrees(word, action),
                "{code} at {name}: {word}, but {action:?}"
            );
            comes_out(endpoint, action, &example["body"]);
            checked += 1;
        }
    }
    assert!(checked > 90, "only {checked} examples");
}

/// The row's action reaches the caller, with WeChat's text and the request id separate.
fn comes_out(endpoint: Endpoint, action: Action, body: &Value) {
    let rid = Some("68c1f0a2-2b9d47e1-5f03ab9c".to_owned());
    let cause = match endpoint {
        Endpoint::Token => {
            let error = answer::fetch_result(heard(body), SECRET).unwrap_err();
            match (&error, action) {
                (
                    TokenError::Blocked { reason, pause, .. },
                    Action::Block {
                        reason: wanted,
                        pause: wait,
                    },
                ) => {
                    assert_eq!((*reason, *pause), (wanted, wait));
                }
                (TokenError::Later { delay, .. }, Action::Later(wanted)) => {
                    assert_eq!(*delay, wanted);
                }
                (TokenError::QuotaSpent(_), Action::QuotaSpent)
                | (TokenError::Bug(_), Action::Bug) => {}
                _ => panic!("{action:?} became {error:?}"),
            }
            error.cause().clone()
        }
        Endpoint::Quota => answer::quota_result(heard(body), TOKEN)
            .unwrap_err()
            .cause()
            .clone(),
        Endpoint::Templates => match answer::list_result(heard(body), TOKEN) {
            Err(error) => error.cause().clone(),
            Ok(_) => panic!("{body} became a list"),
        },
        Endpoint::Subscribe | Endpoint::Template | Endpoint::Official => {
            let channel = match endpoint {
                Endpoint::Template => Channel::Template,
                Endpoint::Official => Channel::Official,
                _ => Channel::Subscribe,
            };
            let answer =
                Answer::send_result(heard(body), channel, TOKEN, std::time::Duration::ZERO);
            assert_eq!(answer.verdict, action.verdict());
            assert_eq!(
                (answer.errcode, answer.rid),
                (body["errcode"].as_i64(), rid)
            );
            return;
        }
    };
    assert_eq!((cause.errcode, cause.rid), (body["errcode"].as_i64(), rid));
    assert!(
        body["errmsg"].as_str().unwrap().starts_with(&cause.errmsg)
            && !cause.errmsg.contains(" rid:")
    );
}

#[test]
fn the_address_that_wechat_refused_is_offered() {
    let body = json!({"errcode": 40164, "errmsg": "invalid ip 203.0.113.24 ipv6 ::ffff:203.0.113.24, not in whitelist rid: a-b-c"});
    let Err(TokenError::Blocked { seen_ip, .. }) = answer::fetch_result(heard(&body), "secret")
    else {
        panic!()
    };
    assert_eq!(seen_ip, Some("203.0.113.24".parse().unwrap()));
}

#[test]
fn quota_errors_say_what_to_do() {
    let of = |code: i64| {
        answer::quota_result(heard(&json!({"errcode": code, "errmsg": "no"})), "token").unwrap_err()
    };
    assert!(matches!(of(40001), CallError::StaleToken(_)));
    assert!(matches!(
        of(-1),
        CallError::Later {
            delay: Delay::Backoff,
            ..
        }
    ));
    assert!(matches!(
        of(76022),
        CallError::Blocked {
            reason: BlockReason::NoPermission,
            ..
        }
    ));
    assert!(matches!(of(76021), CallError::Refused(_)));
    assert!(matches!(of(98765), CallError::Refused(_)));
}

#[test]
fn the_documented_successes_are_successes() {
    for &(name, endpoint) in CALLS {
        let success = &fixture(name)["success_example"];
        match endpoint {
            Endpoint::Token => {
                let fetched = answer::fetch_result(heard(success), "secret").unwrap();
                assert_eq!(json!(fetched.token.expose()), success["access_token"]);
                assert_eq!(json!(fetched.expires_in.as_secs()), success["expires_in"]);
            }
            Endpoint::Quota => {
                let quota = answer::quota_result(heard(success), "token").unwrap();
                let told = json!({"daily_limit": quota.daily_limit, "used": quota.used, "remain": quota.remain});
                assert_eq!(told, success["quota"]);
            }
            Endpoint::Templates => {
                let list = answer::list_result(heard(success), "token").unwrap();
                let list: Vec<Template> = listed::templates(list, TemplateKind::OneTime).collect();
                assert_eq!(list.len(), 2);
                assert_eq!(json!(list[0].title), success["data"][0]["title"]);
                assert_eq!(list[0].keys().count(), 5);
                assert_eq!(list[1].values["enum_string2"].len(), 3);
            }
            Endpoint::Subscribe | Endpoint::Template | Endpoint::Official => {
                let answer = Answer::send_result(
                    heard(success),
                    Channel::Subscribe,
                    "token",
                    std::time::Duration::ZERO,
                );
                assert_eq!(
                    answer.verdict,
                    Verdict::Accepted {
                        msgid: success["msgid"].as_u64()
                    }
                );
            }
        }
    }
}

#[test]
fn an_unknown_code_is_a_refusal_and_an_id_without_a_code_a_success() {
    let verdict = |body: Value| {
        Answer::send_result(
            heard(&body),
            Channel::Subscribe,
            "t",
            std::time::Duration::ZERO,
        )
        .verdict
    };
    assert_eq!(
        verdict(json!({"errcode": 98765, "errmsg": "new"})),
        Verdict::Rejected(FailureCode::Refused)
    );
    assert_eq!(
        verdict(json!({"errcode": 41028})),
        Verdict::Rejected(FailureCode::Refused)
    );
    assert_eq!(
        verdict(json!({"msgid": 7})),
        Verdict::Accepted { msgid: Some(7) }
    );
    assert_eq!(verdict(json!({})), Verdict::Unknown);
}

#[test]
fn bodies_and_paths_are_those_of_the_documentation() {
    for (name, channel) in [
        ("subscribe_send", "subscribe"),
        ("wxopen_template_send", "template"),
        ("mp_template_send", "official"),
    ] {
        let fixture = fixture(name);
        let wanted = &fixture["request_example"];
        let mut fields = wanted.clone();
        fields["channel"] = json!(channel);
        let content: Content = serde_json::from_value(fields).unwrap();
        let text = |key: &str| wanted[key].as_str().unwrap();
        let message = Outgoing {
            touser: text("touser"),
            template_id: text("template_id"),
            content: &content,
        };
        let body = message.to_bytes().unwrap();
        assert_eq!(&serde_json::from_slice::<Value>(&body).unwrap(), wanted);
        assert_eq!(serde_json::to_value(message).unwrap(), *wanted);
        assert_eq!(crate::path(content.channel()), fixture["path"]);
    }
}
