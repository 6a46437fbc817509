//! Many concurrent callers, and replicas that die at a bad moment.

use std::time::Duration;

use coord::Coord;
use domain::app::{AppId, TokenMode};
use futures::{FutureExt, future::join_all};
use simulator::{Effect, Fault};
use testkit::Redis;
use wxgate_broker::{Broker, Token};

use crate::{LEGACY, SECOND, STABLE, World, accepts, over, until};

#[tokio::test]
async fn six_hundred_cold_callers_on_three_replicas_cause_one_legacy_fetch() {
    let redis = Redis::start();
    for shared in [false, true] {
        let mut world = World::new(TokenMode::Legacy).await;
        if shared {
            // A replica that missed a wake-up polls, which needs a clock that moves.
            world.clock = coord::Clock::system();
            world.wechat.control().clock().release();
        }
        let in_process = Coord::in_process(world.clock.clone());
        let replicas = [0; 3].map(|_| {
            let coord = if shared {
                over(&redis, &world)
            } else {
                in_process.clone()
            };
            world.replica(&coord)
        });
        let tokens = join_all((0..600).map(|n| world.token(&replicas[n % 3]))).await;
        assert_eq!(world.fetches(), 1, "over Redis: {shared}");
        assert!(
            tokens
                .iter()
                .all(|token| token.value.expose() == tokens[0].value.expose())
        );
        assert!(accepts(&world.client(), &tokens[0]).await);
    }
}

/// Returns every app's token on every replica, without waiting.
fn all_at_once(replicas: &[Broker], apps: &[AppId]) -> Vec<Token> {
    let everywhere = replicas
        .iter()
        .flat_map(|replica| apps.iter().map(move |appid| replica.token(appid)));
    everywhere
        .map(|token| token.now_or_never().expect("nobody waits").unwrap())
        .collect()
}

/// Waits until every replica has a later token for every app.
async fn all_renewed(replicas: &[Broker], apps: &[AppId]) {
    let old = all_at_once(replicas, apps);
    let is_later = |(new, old): (&Token, &Token)| new.generation > old.generation;
    let settled = || {
        let now = all_at_once(replicas, apps);
        now.iter().zip(&old).all(is_later)
    };
    until(async || settled().then_some(())).await;
}

#[tokio::test]
async fn redis_may_die_and_come_back_empty_under_load() {
    for (mode, due) in [
        (TokenMode::Stable, SECOND * 6_930),
        (TokenMode::Legacy, SECOND * 6_570),
    ] {
        let redis = Redis::start();
        let world = World::new(mode).await;
        let coords = [0; 3].map(|_| over(&redis, &world));
        let replicas = coords.each_ref().map(|coord| world.replica(coord));
        let apps: Vec<_> = (0..20)
            .map(|n| AppId::parse(format!("wx{n:016x}")).unwrap())
            .collect();
        for replica in &replicas {
            join_all(apps.iter().map(|appid| replica.token(appid))).await;
        }
        let fetches = || {
            let stats = world.wechat.control().stats();
            stats.total(STABLE) + stats.total(LEGACY)
        };
        assert_eq!(fetches(), 20, "{mode:?}");

        redis.kill();
        for _ in 0..30 {
            world.advance(SECOND);
            all_at_once(&replicas, &apps);
            tokio::task::yield_now().await;
        }
        assert_eq!(fetches(), 20, "{mode:?}: nobody needs Redis for a token");

        redis.restart();
        for (coord, appid) in coords
            .iter()
            .flat_map(|coord| apps.iter().map(move |app| (coord, app)))
        {
            let key = format!("token:{appid}");
            until(async || coord.cells().get(&key).await.ok().flatten()).await;
        }
        all_at_once(&replicas, &apps);
        assert_eq!(fetches(), 20, "{mode:?}: the tokens are put back");

        // The replicas refresh again at the same time.
        world.advance(due);
        all_renewed(&replicas, &apps).await;
        assert_eq!(fetches(), 40, "{mode:?}: one fetch for each app");
        world.advance(SECOND * 310);
        let client = world.client();
        for token in all_at_once(&replicas, &apps) {
            assert!(accepts(&client, &token).await, "{mode:?}: no 40001");
        }
    }
}

/// A gateway with its own runtime that can be killed: its tasks end at any point.
struct Doomed(tokio::runtime::Runtime);

impl Doomed {
    fn run<T: Send + 'static>(
        &self,
        what: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.0.handle().spawn(what)
    }

    fn kill(self) {
        self.0.shutdown_background();
    }
}

#[tokio::test]
async fn a_replica_killed_in_the_middle_of_its_refresh_is_replaced_within_the_lease() {
    let redis = Redis::start();
    for (mode, due, shared) in [
        (TokenMode::Stable, SECOND * 6_960, false),
        (TokenMode::Legacy, SECOND * 6_600, false),
        (TokenMode::Legacy, SECOND * 6_600, true),
    ] {
        let world = World::new(mode).await;
        let in_process = Coord::in_process(world.clock.clone());
        let coord = || {
            if shared {
                over(&redis, &world)
            } else {
                in_process.clone()
            }
        };
        let survivor = world.replica(&coord());
        let first = world.token(&survivor).await;
        kill_in_the_middle(&world, coord, due).await;

        // The survivor needs the same lease, uses the old token meanwhile, and gets a new one after the lease.
        let before = world.fetches();
        for _ in 0..15 * 4 {
            let token = survivor.token(&world.appid).now_or_never();
            let token = token.expect("nobody waits").unwrap();
            assert!(token.expires_at > world.clock.now());
            assert_eq!(world.fetches(), before);
            world.time.sleepers(1).await;
            world.advance(SECOND / 4);
        }
        let second = world.later_than(&survivor, first.generation).await;
        assert_eq!(world.fetches(), before + 1, "{mode:?}");
        assert!(accepts(&world.client(), &second).await);
    }
}

/// Runs another replica until the refresh, which is due in `due`, waits for WeChat with the lease held; then kills it.
async fn kill_in_the_middle(world: &World, coord: impl Fn() -> Coord, due: Duration) {
    let doomed = Doomed(tokio::runtime::Runtime::new().unwrap());
    let killed = {
        let _inside = doomed.0.enter();
        world.replica(&coord())
    };
    let ask = async || {
        let (broker, appid) = (killed.clone(), world.appid.clone());
        let token = doomed.run(async move { broker.token(&appid).await });
        token.await.unwrap().unwrap().generation
    };
    let held = ask().await;
    let control = world.wechat.control();
    let hang = control.add_fault(Fault::always(Effect::Hang { acted: false }));
    world.advance(due);
    assert_eq!(ask().await, held, "nobody waits");
    let broken = || control.app_stats(world.appid.as_str()).broken;
    until(async || broken().contains_key("hang").then_some(())).await;
    doomed.kill();
    control.remove_fault(hang);
}
