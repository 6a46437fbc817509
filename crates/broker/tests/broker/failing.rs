//! Apps and connections that fail.

use domain::{app::TokenMode, secret::AppSecret, verdict::BlockReason};
use futures::{FutureExt, future::join_all};
use simulator::{AccountState, Effect, Fault};
use wxgate_broker::BrokerError;

use crate::{SECOND, SECRET, World};

#[tokio::test]
async fn a_blocked_app_is_left_alone_until_its_pause_ends() {
    let world = World::new(TokenMode::Stable).await;
    let broker = world.alone();
    world.register("wrong", TokenMode::Stable);
    let errors = join_all((0..100).map(|_| broker.token(&world.appid))).await;
    let error = errors[0].as_ref().unwrap_err().clone();
    assert!(
        matches!(
            error,
            BrokerError::Blocked {
                reason: BlockReason::WrongSecret,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(
        errors
            .iter()
            .all(|other| other.as_ref().unwrap_err() == &error),
        "all waiters get the same"
    );
    let remembered = broker
        .token(&world.appid)
        .now_or_never()
        .expect("no waiting");
    assert_eq!(
        (remembered.unwrap_err(), world.fetches()),
        (error.clone(), 1)
    );
    assert_eq!(
        broker.state(&world.appid).unwrap().failure.as_ref(),
        Some(&error)
    );

    world.register(SECRET, TokenMode::Stable);
    world.advance(
        (error.retry_at().unwrap() - world.clock.now())
            .to_std()
            .unwrap(),
    );
    world.token(&broker).await;
    assert_eq!(world.fetches(), 2);
    assert_eq!(broker.state(&world.appid).unwrap().failure, None);
}

#[tokio::test]
async fn a_proven_secret_ends_the_pause() {
    let world = World::new(TokenMode::Stable).await;
    let coord = coord::Coord::in_process(world.clock.clone());
    let (one, two) = (world.replica(&coord), world.replica(&coord));
    world.register("wrong", TokenMode::Stable);
    for replica in [&one, &two] {
        replica.token(&world.appid).await.unwrap_err();
    }
    let secret = AppSecret::new(SECRET);
    let proof = one.prove(&world.appid, &secret, TokenMode::Stable).await;
    one.adopt(&world.appid, proof.unwrap()).await;
    world.token(&one).await;
    crate::until(async || two.token(&world.appid).await.ok()).await;
    assert_eq!(world.fetches(), 3);
}

#[tokio::test]
async fn the_refused_address_is_told() {
    let world = World::new(TokenMode::Stable).await;
    world
        .wechat
        .control()
        .change_app(world.appid.as_str(), |app| {
            app.state = AccountState::IpNotAllowed;
        });
    let error = world.alone().token(&world.appid).await.unwrap_err();
    assert!(
        matches!(error, BrokerError::Blocked { seen_ip: Some(ip), .. } if ip.is_loopback()),
        "{error:?}"
    );
}

#[tokio::test]
async fn each_refusal_has_its_pause_and_says_what_to_do() {
    use BlockReason::{
        IpNotAllowed, IpRefused, IpUnconfirmed, SecretFrozen, Suspended, UnknownAppid, WrongSecret,
    };
    const MINUTE: u32 = 60;
    let refusals = [
        (40_125, WrongSecret, 5 * MINUTE, "take the current one"),
        (
            40_013,
            UnknownAppid,
            5 * MINUTE,
            "check the appid in WeChat's console",
        ),
        (40_164, IpNotAllowed, 5 * MINUTE, "(WeChat saw 203.0.113.9)"),
        (40_243, SecretFrozen, 5 * MINUTE, "unfreeze the AppSecret"),
        (
            50_007,
            Suspended,
            30 * MINUTE,
            "only the account's owner can repair",
        ),
        (
            89_501,
            IpUnconfirmed,
            5 * MINUTE,
            "confirm the address in WeChat",
        ),
        (
            89_503,
            IpUnconfirmed,
            5 * MINUTE,
            "confirm the address in WeChat",
        ),
        (
            89_506,
            IpRefused,
            24 * 60 * MINUTE,
            "when WeChat asks again",
        ),
        (89_507, IpRefused, 60 * MINUTE, "when WeChat asks again"),
    ];
    for (errcode, reason, pause, words) in refusals {
        let world = World::new(TokenMode::Stable).await;
        let broker = world.alone();
        let refusal = Effect::Errcode {
            errcode,
            errmsg: Some("refused for 203.0.113.9, not in whitelist".to_owned()),
        };
        world
            .wechat
            .control()
            .add_fault(Fault::always(refusal.clone()));

        let error = broker.token(&world.appid).await.unwrap_err();

        let advice = error.advice().unwrap_or_default();
        assert!(
            advice.contains(words) && error.to_string().contains(words),
            "{errcode}: {error}"
        );
        assert!(
            matches!(&error, BrokerError::Blocked { reason: why, .. } if *why == reason),
            "{error:?}"
        );
        assert_eq!(
            error.retry_at(),
            Some(world.clock.now() + SECOND * pause),
            "{errcode}"
        );
        // Until then no call of WeChat is made, for any number of callers.
        world.advance(SECOND * (pause - 1));
        for _ in 0..100 {
            broker.token(&world.appid).await.unwrap_err();
        }
        assert_eq!(world.fetches(), 1, "{errcode}");
        world.advance(SECOND);
        broker.token(&world.appid).await.unwrap_err();
        assert_eq!(world.fetches(), 2, "{errcode}");
    }
}

#[tokio::test]
async fn broken_connections_back_off() {
    let world = World::new(TokenMode::Stable).await;
    let broker = world.alone();
    world
        .wechat
        .control()
        .add_fault(Fault::always(Effect::BreakBefore));
    let mut waits = Vec::new();
    for _ in 0..8 {
        let error = broker.token(&world.appid).await.unwrap_err();
        assert_eq!(
            broker
                .token(&world.appid)
                .now_or_never()
                .expect("no waiting")
                .unwrap_err(),
            error
        );
        let wait = (error.retry_at().unwrap() - world.clock.now())
            .to_std()
            .unwrap();
        waits.push(wait);
        world.advance(wait);
    }
    assert!(waits[0] <= SECOND && waits[7] >= SECOND * 64, "{waits:?}");
    world.wechat.control().clear_faults();
    world.token(&broker).await;
}

#[tokio::test]
async fn spent_fetches_are_probed_slowly() {
    let world = World::new(TokenMode::Legacy).await;
    let broker = world.alone();
    world.wechat.control().add_fault(Fault::next(
        1,
        Effect::Errcode {
            errcode: 45009,
            errmsg: None,
        },
    ));
    let error = broker.token(&world.appid).await.unwrap_err();
    assert!(
        matches!(error, BrokerError::FetchesSpent { .. }),
        "{error:?}"
    );
    assert_eq!(error.retry_at(), Some(world.clock.now() + SECOND * 1800));
    world.advance(SECOND * 1800);
    world.token(&broker).await;
}

#[tokio::test]
async fn an_unknown_app_is_not_remembered() {
    let world = World::new(TokenMode::Stable).await;
    let broker = world.alone();
    let credentials = world.app.0.lock().unwrap().take();
    assert_eq!(
        broker.token(&world.appid).await.unwrap_err(),
        BrokerError::UnknownApp
    );
    assert_eq!(broker.state(&world.appid), None);
    *world.app.0.lock().unwrap() = credentials;
    world.token(&broker).await;
}

#[tokio::test]
async fn nothing_shows_a_token_or_a_secret() {
    let world = World::new(TokenMode::Legacy).await;
    let broker = world.alone();
    let token = world.token(&broker).await;
    let shown = format!("{token:?} {:?}", broker.state(&world.appid));
    assert!(!shown.contains(token.value.expose()), "{shown}");
    world.advance(SECOND * 7200);
    world
        .wechat
        .control()
        .add_fault(Fault::always(Effect::Errcode {
            errcode: 40125,
            errmsg: Some(format!("invalid appsecret {SECRET}")),
        }));
    let error = broker.token(&world.appid).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
}
