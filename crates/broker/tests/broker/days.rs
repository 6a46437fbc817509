//! Days of steady traffic under a clock that moves.

use domain::app::TokenMode;
use futures::FutureExt;

use crate::{SECOND, World, accepts, until};

const DAYS: u32 = 3;
const DAY: u32 = 24 * 60;

#[tokio::test]
async fn no_sender_waits_for_days_and_fetches_are_as_few_as_lifetimes_allow() {
    // The range of minutes before the end at which a token of two hours is replaced; a use comes each minute.
    for (mode, margins) in [(TokenMode::Stable, [4, 5]), (TokenMode::Legacy, [10, 15])] {
        let world = World::new(mode).await;
        let (broker, client) = (world.alone(), world.client());
        let mut last = world.token(&broker).await;

        for minute in 0..DAYS * DAY {
            world.advance(SECOND * 60);
            let token = broker.token(&world.appid).now_or_never();
            let token = token.expect("nobody waits").unwrap();
            assert!(token.expires_at > world.clock.now(), "{mode:?} {minute}");
            assert!(token.generation >= last.generation);
            last = token;
            until(async || (!broker.state(&world.appid)?.is_fetching).then_some(())).await;
            if minute % 15 == 0 {
                assert!(accepts(&client, &last).await, "{mode:?} {minute}");
            }
        }

        let [fewest, most] = [120 - margins[0] + 1, 120 - margins[1]]
            .map(|interval| u64::from(1 + DAYS * DAY / interval));
        let fetches = world.fetches();
        assert!(
            (fewest..=most).contains(&fetches),
            "{mode:?}: {fetches} not in {fewest}..={most}"
        );
        let state = broker.state(&world.appid).unwrap();
        assert_eq!((state.failure, state.foreign_refresh), (None, None));
    }
}
