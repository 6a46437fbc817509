//! Which token fetches succeed, and how long a token is valid.

use super::*;
use crate::account::AccountState;

#[test]
fn a_fetch_with_something_missing_or_wrong() {
    let fixture = SendContext::with(|app| app.secret = Some("right".into()));
    let get = |query: &str| code(&fixture.call("GET", &format!("/cgi-bin/token?{query}"), ""));
    assert_eq!(get("grant_type=client_credential&secret=s"), 41002);
    assert_eq!(
        get(&format!("grant_type=client_credential&appid={APP}")),
        41004
    );
    assert_eq!(
        get(&format!("grant_type=x&appid={APP}&secret=right")),
        40002
    );
    assert_eq!(
        get("grant_type=client_credential&appid=wxNO&secret=s"),
        40013
    );
    assert_eq!(code(&fixture.legacy("wrong")), 40125);
    assert_eq!(fixture.legacy("right")["expires_in"], 7200);
    assert_eq!(
        code(&fixture.call("GET", "/cgi-bin/stable_token", "")),
        43002
    );
    assert_eq!(code(&fixture.call("POST", "/cgi-bin/token", "")), 43001);
    assert_eq!(
        code(&fixture.call("POST", "/cgi-bin/stable_token", "")),
        44002
    );
    assert_eq!(
        code(&fixture.call("POST", "/cgi-bin/stable_token", "{")),
        47001
    );
    assert_eq!(code(&fixture.call("GET", "/cgi-bin/menu/get", "")), 40066);
}

#[test]
fn a_closed_simulator_knows_only_registered_accounts() {
    let options = Options {
        open: false,
        ..Options::default()
    };
    let fixture = SendContext {
        world: World::new(options, 1),
    };
    assert_eq!(code(&fixture.legacy("s")), 40013);
    fixture.world.register(APP);
    assert_eq!(code(&fixture.legacy("s")), 0);
}

#[test]
fn a_token_that_is_missing_unknown_overwritten_or_old() {
    let fixture = SendContext::new();
    let send = |token: &str| code(&fixture.subscribe(token, "o", &thing()));
    assert_eq!([send(""), send("75_nonsense")], [41001, 40014]);
    let first = text(&fixture.legacy("s"), "access_token");
    let second = text(&fixture.legacy("s"), "access_token");
    assert_eq!([send(&first), send(&second)], [0, 0]);
    fixture.advance(300);
    assert_eq!([send(&first), send(&second)], [40001, 0]);
    fixture.advance(6_900);
    assert_eq!(send(&second), 42001);
}

#[test]
fn legacy_and_stable_tokens_leave_each_other_alone() {
    let fixture = SendContext::new();
    let stable = fixture.token();
    let legacy = text(&fixture.legacy("s"), "access_token");
    assert_ne!(stable, legacy);
    let forced = text(&fixture.stable(true), "access_token");
    assert_ne!(stable, forced);
    let codes =
        [&stable, &legacy, &forced].map(|token| code(&fixture.subscribe(token, "o", &thing())));
    assert_eq!(codes, [40001, 0, 0]);
}

#[test]
fn a_forced_refresh_too_soon_answers_the_current_token() {
    let fixture = SendContext::with(|app| app.limits.forced_token = 2);
    let first = text(&fixture.stable(true), "access_token");
    fixture.advance(29);
    let same = fixture.stable(true);
    assert_eq!(
        (text(&same, "access_token"), &same["expires_in"]),
        (first.clone(), &json!(7171))
    );
    fixture.advance(1);
    assert_ne!(text(&fixture.stable(true), "access_token"), first);
    fixture.advance(30);
    assert_eq!(code(&fixture.stable(true)), 45009);
    assert_eq!(code(&fixture.stable(false)), 0);
    let stats = fixture.world.stats();
    assert_eq!(stats.count("/cgi-bin/stable_token#force_refresh", 0), 2);
    assert_eq!(stats.count("/cgi-bin/stable_token#force_refresh", 45009), 1);
}

#[test]
fn token_quotas_end_with_the_minute_and_the_day() {
    let fixture = SendContext::with(|app| {
        app.limits.token = 1;
        app.limits.stable_token_per_minute = 1;
    });
    // START is 00:00 in Shanghai.
    fixture.advance(-1);
    assert_eq!(
        [code(&fixture.legacy("s")), code(&fixture.legacy("s"))],
        [0, 45009]
    );
    assert_eq!(
        [code(&fixture.stable(false)), code(&fixture.stable(false))],
        [0, 45011]
    );
    fixture.advance(1);
    assert_eq!(
        [code(&fixture.legacy("s")), code(&fixture.stable(false))],
        [0, 0]
    );
}

#[test]
fn states_of_an_account() {
    let fixture = SendContext::new();
    let token = fixture.token();
    let both = |state| {
        let settings = AppSettings {
            state,
            ..AppSettings::default()
        };
        fixture.world.register(APP).set(settings);
        (
            code(&fixture.legacy("s")),
            code(&fixture.subscribe(&token, "o", &thing())),
        )
    };
    assert_eq!(both(AccountState::SecretFrozen), (40243, 0));
    assert_eq!(both(AccountState::IpNotAllowed), (40164, 0));
    assert_eq!(both(AccountState::TokensForbidden), (50004, 0));
    assert_eq!(both(AccountState::ApiForbidden), (0, 48004));
    assert_eq!(both(AccountState::Limited), (50002, 50002));
    assert_eq!(both(AccountState::Suspended), (50007, 50007));
}

#[test]
fn a_code_signs_its_user_in_once() {
    let fixture = SendContext::with(|app| app.secret = Some("right".into()));
    let sign_in = |query: &str| fixture.call("GET", &format!("/sns/jscode2session?{query}"), "");
    let given = |secret: &str, code: &str| {
        let query = format!("appid={APP}&secret={secret}&js_code={code}");
        sign_in(&format!("{query}&grant_type=authorization_code"))
    };
    assert_eq!(code(&given("wrong", "c1")), 40125);
    let session = given("right", "c1");
    assert_eq!(text(&session, "openid"), "oc1");
    assert_eq!(text(&session, "session_key").len(), 24);
    assert_eq!(code(&given("right", "c1")), 40163);
    assert_eq!(code(&given("right", "the+code+is+a+mock+one")), 40029);
    assert_eq!(code(&given("right", "")), 41008);
    assert_eq!(
        code(&sign_in(&format!("appid={APP}&secret=right&js_code=c2"))),
        40002
    );
    assert_eq!(
        code(&fixture.call("POST", "/sns/jscode2session", "")),
        43001
    );
}
