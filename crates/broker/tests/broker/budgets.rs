//! The budgets of WeChat's limits: how the broker keeps and shows the budgets.

use std::sync::Arc;

use coord::Coord;
use domain::{app::TokenMode, secret::AppSecret};
use wxgate_broker::{BrokerError, BrokerEvent, BudgetKind};

use crate::{Diary, SECOND, SECRET, World};

#[tokio::test]
async fn a_spent_legacy_budget_is_told_not_overrun_and_keeps_its_last_for_repairs() {
    let world = World::new(TokenMode::Legacy).await;
    world.refuse_checks();
    let diary = Arc::new(Diary::default());
    let coord = Coord::in_process(world.clock.clone());
    let broker = world.replica(&coord).with_observer(Arc::clone(&diary) as _);
    let secret = AppSecret::new(SECRET);
    for _ in 0..1_899 {
        let proof = broker.prove(&world.appid, &secret, TokenMode::Legacy).await;
        broker.adopt(&world.appid, proof.unwrap()).await;
    }
    world.advance(SECOND * 7_200);
    let last = world.token(&broker).await;
    assert_eq!(world.fetches(), 1_900);

    let spent = broker.refresh(&world.appid).await.unwrap_err();
    assert!(
        matches!(spent, BrokerError::FetchesSpent { .. }),
        "{spent:?}"
    );
    assert_eq!(
        spent.retry_at(),
        Some("2026-03-01T16:00:00Z".parse().unwrap())
    );
    let budget = broker.state(&world.appid).unwrap().budgets.legacy_fetches;
    assert_eq!((budget.used, budget.limit), (1_900, 2_000));
    assert!(budget.is_low() && budget.is_nearly_spent());

    // A spent budget also stops a refresh ahead of the end, but not the repair of a dead token.
    world.advance(SECOND * 6_600);
    world.token(&broker).await;
    crate::until(async || broker.state(&world.appid).unwrap().failure).await;
    let repaired = broker.stale(&world.appid, last.generation).await.unwrap();
    assert!(repaired.generation > last.generation);
    assert_eq!(world.fetches(), 1_901);

    assert_eq!(legacy_marks(&diary), [1_600, 1_900], "each mark once");

    // The day ends at 16:00 UTC.
    world.advance(SECOND * 3_600 * 4);
    world.token(&broker).await;
    let budget = broker.state(&world.appid).unwrap().budgets.legacy_fetches;
    assert_eq!(budget.used, 1);
}

/// The numbers of used legacy fetches at which the observer got an event.
fn legacy_marks(diary: &Diary) -> Vec<u32> {
    let used = |event| match event {
        BrokerEvent::BudgetLow {
            kind: BudgetKind::LegacyFetches,
            budget,
        } => Some(budget.used),
        _ => None,
    };
    diary.events().into_iter().filter_map(used).collect()
}

#[tokio::test]
async fn budgets_are_counted_over_replicas_and_seen_on_all() {
    let world = World::new(TokenMode::Stable).await;
    world.refuse_checks();
    let coord = Coord::in_process(world.clock.clone());
    let [one, two, bystander] = [0; 3].map(|_| world.replica(&coord));
    let mut token = world.token(&one).await;
    for turn in 0..16 {
        world.advance(SECOND * 30);
        let replica = if turn % 2 == 0 { &two } else { &one };
        token = replica.stale(&world.appid, token.generation).await.unwrap();
    }
    assert_eq!(bystander.state(&world.appid), None);
    let seen = bystander.survey(&world.appid).await;
    let forced = seen.budgets.forced_refreshes;
    assert_eq!((forced.used, forced.limit), (16, 20));
    assert!(forced.is_low() && !forced.is_nearly_spent());
    assert_eq!(u64::from(seen.budgets.stable_calls.used), world.fetches());
    assert_eq!(seen.token.unwrap().generation, token.generation);
    assert_eq!(
        bystander.state(&world.appid),
        None,
        "a look leaves nothing behind"
    );
}
