use domain::id::Sequence;

use super::*;

fn tenants(count: u64) -> Vec<TenantId> {
    let ids = Sequence::default();
    let at = chrono::DateTime::UNIX_EPOCH;
    (0..count).map(|n| ids.id(at, n)).collect()
}

/// Takes calls of `bytes` bytes while there is memory. Returns the number of calls.
fn take_all(rooms: &MemoryBudget, tenant: TenantId, bytes: usize) -> usize {
    (0..1000)
        .take_while(|_| rooms.0.try_take(tenant, 1, bytes))
        .count()
}

#[test]
fn tenants_that_take_all_they_can_leave_room_for_the_next() {
    for greedy in 1..8 {
        let rooms = MemoryBudget::of(100_000);
        let ids = tenants(greedy + 1);
        let (next, greedy) = ids.split_last().unwrap();
        // One tenant after the other in turn, until none gets more.
        while greedy.iter().any(|tenant| rooms.0.try_take(*tenant, 0, 10)) {}
        let left = (0..greedy.len()).fold(100_000, |left, _| left * 2 / 3);
        let slack = 20 * greedy.len();
        assert!(
            rooms.0.try_take(*next, 1, left / 2 - slack),
            "{}",
            greedy.len()
        );
    }
}

#[test]
fn the_calls_of_one_tenant_have_a_bound_and_others_none_of_it() {
    let rooms = MemoryBudget::of(1000);
    let tenants = tenants(2);
    assert_eq!(take_all(&rooms, tenants[0], 0), CALLS_OF_ONE_TENANT);
    assert!(rooms.0.try_take(tenants[1], 1, 500));
}

#[tokio::test]
async fn what_is_given_back_is_there_for_who_waits() {
    let rooms = MemoryBudget::of(100);
    let tenant = tenants(1)[0];
    let first = rooms.take(tenant, 30).await.unwrap();
    let (second, ()) = tokio::join!(rooms.take(tenant, 40), async { drop(first) });
    let mut second = second.unwrap();
    second.grow_to(30).await.unwrap();
    assert_eq!(rooms.0.lock().bytes, 40);
    assert!(!rooms.0.try_take(tenant, 0, 10));
    drop(second);
    assert_eq!(rooms.0.lock().bytes, 0);
    assert!(rooms.0.lock().tenants.is_empty());
}

#[tokio::test]
async fn an_answer_holds_its_room_until_it_is_taken() {
    let rooms = MemoryBudget::of(100);
    let ids = tenants(2);
    let room = rooms.take(ids[0], 10).await.unwrap();
    let answer = room.holding(Bytes::from_static(&[7; 120]));
    let part = answer.slice(..60);
    drop(answer);
    assert_eq!(rooms.0.lock().bytes, 130);
    // A call without a body is still accepted, until twice the budget is held.
    assert!(rooms.0.try_take(ids[1], 1, 0) && !rooms.0.try_take(ids[1], 1, 1));
    rooms.0.lock().add(ids[1], 0, 70);
    assert!(!rooms.0.try_take(tenants(3)[2], 1, 0));
    drop(part);
    assert_eq!(rooms.0.lock().bytes, 70);
}
