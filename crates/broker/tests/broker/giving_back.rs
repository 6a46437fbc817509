//! Refunds: what was booked for calls that brought nothing.

use domain::app::TokenMode;
use simulator::{Effect, Fault};
use wxgate_broker::BrokerError;

use crate::{LEGACY, SECOND, STABLE, World};

fn busy() -> Effect {
    Effect::Errcode {
        errcode: -1,
        errmsg: None,
    }
}

fn unavailable() -> Effect {
    Effect::Status {
        status: 503,
        body: None,
    }
}

#[tokio::test]
async fn one_failed_repair_stops_a_legacy_app_for_a_backoff_and_no_longer() {
    for effect in [
        busy(),
        unavailable(),
        Effect::BreakBefore,
        Effect::BreakAfter,
    ] {
        let world = World::new(TokenMode::Legacy).await;
        let broker = world.alone();
        let dead = world.token(&broker).await;
        let control = world.wechat.control();
        control.kill_tokens(world.appid.as_str());
        control.add_fault(Fault::next(1, effect.clone()).for_path(LEGACY));
        let failed = broker.stale(&world.appid, dead.generation).await;
        assert!(failed.is_err(), "{effect:?}");
        world.advance(SECOND);
        let fresh = broker.token(&world.appid).await;
        let fresh = fresh.unwrap_or_else(|error| panic!("{effect:?}: {error}"));
        assert!(fresh.generation > dead.generation);
    }
}

#[tokio::test]
async fn a_forced_refresh_that_wechat_did_not_make_is_not_counted() {
    for (effect, is_lost) in [
        (busy(), false),
        (unavailable(), false),
        (Effect::BreakBefore, true),
    ] {
        let world = World::new(TokenMode::Stable).await;
        let broker = world.alone();
        let token = world.token(&broker).await;
        world.refuse_checks();
        let control = world.wechat.control();
        // The first call asks whether there is a new token; the second call is the forced refresh.
        let shape = simulator::Shape::TextPlain;
        control.add_fault(Fault::next(1, Effect::OddAnswer { shape }).for_path(STABLE));
        control.add_fault(Fault::next(1, effect.clone()).for_path(STABLE));
        let failed = broker.stale(&world.appid, token.generation).await;
        assert!(failed.is_err(), "{effect:?}");
        assert_eq!(
            broker.state(&world.appid).unwrap().forced_today,
            u32::from(is_lost)
        );

        world.advance(SECOND);
        let again = broker.token(&world.appid).await;
        // WeChat may have made a token and lost the answer, and makes no second token within 30 s.
        assert_eq!(again.is_err(), is_lost, "{effect:?}: {again:?}");
        world.advance(SECOND * 30);
        let fresh = broker.token(&world.appid).await.unwrap();
        assert!(fresh.generation > token.generation);
        let forced = broker.state(&world.appid).unwrap().forced_today;
        assert_eq!(forced, 1 + u32::from(is_lost), "{effect:?}");
    }
}

#[tokio::test]
async fn who_asked_in_vain_may_ask_again_after_the_backoff() {
    for (mode, path) in [(TokenMode::Legacy, LEGACY), (TokenMode::Stable, STABLE)] {
        for effect in [busy(), unavailable()] {
            let world = World::new(mode).await;
            let broker = world.alone();
            let first = world.token(&broker).await;
            world
                .wechat
                .control()
                .add_fault(Fault::next(1, effect).for_path(path));
            let failed = broker.refresh(&world.appid).await.unwrap_err();
            assert!(matches!(failed, BrokerError::Later { .. }), "{failed:?}");
            world.advance(SECOND);
            let second = broker.refresh(&world.appid).await.unwrap();
            assert!(second.generation > first.generation);
            let again = broker.refresh(&world.appid).await.unwrap_err();
            assert!(matches!(again, BrokerError::TooSoon { .. }), "{again:?}");
        }
    }
}

#[tokio::test]
async fn fetches_that_wechat_never_saw_are_not_counted() {
    for mode in [TokenMode::Legacy, TokenMode::Stable] {
        let world = World::new(mode).await;
        let broker = world.alone();
        let control = world.wechat.control();
        control.add_fault(Fault::next(5, unavailable()));
        for _ in 0..5 {
            broker.token(&world.appid).await.unwrap_err();
            world.advance(SECOND * 60);
        }
        assert_eq!(broker.state(&world.appid).unwrap().fetches_today, 0);
        world.token(&broker).await;
        assert_eq!(broker.state(&world.appid).unwrap().fetches_today, 1);
        // WeChat may count the calls that it answers.
        world.advance(SECOND * 7200);
        control.add_fault(Fault::next(1, busy()));
        broker.token(&world.appid).await.unwrap_err();
        assert_eq!(broker.state(&world.appid).unwrap().fetches_today, 2);
    }
}
