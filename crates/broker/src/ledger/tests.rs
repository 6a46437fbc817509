use super::*;

const FORCED_A_DAY: u32 = 20;

fn at(time: &str) -> DateTime<Utc> {
    format!("2026-03-01T{time}Z").parse().unwrap()
}

#[test]
fn forced_refreshes_are_spaced_and_counted() {
    let mut now = at("00:00:00");
    let mut ledger = Ledger::default().at(now);
    for _ in 0..FORCED_A_DAY {
        assert_eq!(ledger.repair(now, true), Ok(()));
        assert_eq!(ledger.repair(now, true), Err(now + REPAIR_INTERVAL));
        now += REPAIR_INTERVAL;
    }
    assert_eq!(ledger.repair(now, true), Err(now + SPENT_PAUSE));
    assert_eq!(
        ledger.repair(now, false),
        Ok(()),
        "a legacy repair is no forced one"
    );

    // 16:00 UTC is midnight in Shanghai.
    assert_eq!(ledger.repair(at("15:59:00"), true), Err(at("16:00:00")));
    assert_eq!(
        ledger.at(at("16:00:00")).repair(at("16:00:00"), true),
        Ok(())
    );
}

#[test]
fn the_last_of_a_day_is_kept_for_repairs() {
    let now = at("12:00:00");
    let mut ledger = Ledger::default().at(now);
    let fetch = |ledger: &mut Ledger, repair| ledger.spend(TokenMode::Legacy, repair);
    let spent = |used| {
        Err(SpentBudget {
            kind: BudgetKind::LegacyFetches,
            used,
        })
    };
    while fetch(&mut ledger, false).is_ok() {}
    assert_eq!(ledger.budgets().legacy_fetches.used, 1_900);
    assert_eq!(fetch(&mut ledger, false), spent(1_900));
    while fetch(&mut ledger, true).is_ok() {}
    assert_eq!(ledger.budgets().legacy_fetches.used, 2_000);
    assert_eq!(fetch(&mut ledger, true), spent(2_000));

    let mut tomorrow = ledger.at(at("16:00:00"));
    assert_eq!(tomorrow.spend(TokenMode::Legacy, false), Ok(()));
}

#[test]
fn stable_calls_are_counted_by_the_minute_too() {
    let now = at("12:00:59");
    let mut ledger = Ledger::default().at(now);
    while ledger.spend(TokenMode::Stable, false).is_ok() {}
    let budget = ledger.budgets().stable_calls_a_minute;
    assert_eq!((budget.used, budget.is_low()), (9_500, true));
    while ledger.spend(TokenMode::Stable, true).is_ok() {}
    assert_eq!(ledger.budgets().stable_calls_a_minute.used, 10_000);
    let spent = SpentBudget {
        kind: BudgetKind::StableCallsAMinute,
        used: 10_000,
    };
    assert_eq!(ledger.spend(TokenMode::Stable, true), Err(spent));
    let mut next = ledger.at(at("12:01:00"));
    assert_eq!(next.spend(TokenMode::Stable, false), Ok(()));
    assert_eq!(next.budgets().stable_calls.used, 10_001);
}

#[test]
fn only_a_call_during_a_tokens_life_explains_its_end() {
    let mut ledger = Ledger::default();
    assert!(!ledger.explains(at("12:00:00"), at("13:00:00")));
    ledger.replace(at("12:30:00"));
    assert!(ledger.explains(at("12:00:00"), at("13:00:00")));
    assert!(
        !ledger.explains(at("12:30:00"), at("13:00:00")),
        "it brought this token"
    );
    assert!(
        !ledger.explains(at("12:00:00"), at("12:29:00")),
        "it came after"
    );
    for n in 0..REPLACEMENTS - 1 {
        ledger.replace(at("13:00:00") + SPENT_PAUSE * u32::try_from(n).unwrap());
    }
    assert!(ledger.explains(at("12:00:00"), at("12:40:00")));
    let known = ledger.merge(
        Ledger::from_text(&ledger.to_text()).unwrap(),
        at("14:00:00"),
    );
    assert_eq!(known, ledger.at(at("14:00:00")), "known is known");
}

#[test]
fn replicas_add_up_what_they_know() {
    let now = at("12:00:00");
    let mut one = Ledger::default().at(now);
    one.spend(TokenMode::Stable, false).unwrap();
    one.spend(TokenMode::Legacy, false).unwrap();
    let mut two = Ledger::default().at(now);
    two.spend(TokenMode::Stable, false).unwrap();
    two.repair(now, true).unwrap();
    two.replace(now);
    two.count_foreign(now);

    let both = one.merge(Ledger::from_text(&two.to_text()).unwrap(), now);

    assert_eq!((both.fetches(), both.forced()), (2, 1));
    assert_eq!(both.foreign(now).map(|seen| seen.count_today), Some(1));
    assert!(both.generation() > two.generation());
    let tomorrow = both.at(at("16:00:00"));
    assert!(tomorrow.generation() > both.generation());
    assert_eq!(tomorrow.foreign(at("16:00:00")).unwrap().last_at, now);
    assert_eq!(both.foreign(now + FOREIGN_SHOWN), None);
    assert_eq!(Ledger::from_text(&both.to_text()), Some(both));
    assert_eq!(Ledger::from_text("damaged"), None);
}
