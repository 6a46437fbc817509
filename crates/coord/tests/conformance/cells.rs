//! The rules of cells.

use wxgate_coord::Cell;

use crate::{Pair, SECOND};

pub(crate) fn cell(generation: u64, value: &[u8]) -> Cell {
    Cell {
        value: value.to_vec(),
        generation,
    }
}

pub(crate) async fn a_cell_keeps_its_newest_generation_until_its_deadline(
    Pair {
        one,
        two,
        clock,
        time,
    }: Pair,
) {
    let deadline = clock.now() + SECOND * 10;
    assert_eq!(one.cells().get("token").await.unwrap(), None);
    assert!(
        one.cells()
            .put("token", cell(9, b"nine"), deadline)
            .await
            .unwrap()
    );
    assert!(
        !two.cells()
            .put("token", cell(8, b"eight"), deadline)
            .await
            .unwrap()
    );
    assert_eq!(
        two.cells().get("token").await.unwrap(),
        Some(cell(9, b"nine"))
    );
    assert!(
        two.cells()
            .put("token", cell(9, b"again\0\xff"), deadline)
            .await
            .unwrap()
    );
    // Generations compare as numbers (10 > 9), above the 53 bits of a double too.
    let (big, bigger) = (u64::MAX - 1, u64::MAX);
    for generation in [10, big, bigger] {
        assert!(
            two.cells()
                .put("token", cell(generation, b"new"), deadline)
                .await
                .unwrap(),
            "{generation}"
        );
    }
    assert!(
        !two.cells()
            .put("token", cell(big, b"old"), deadline)
            .await
            .unwrap()
    );
    assert_eq!(
        one.cells().get("token").await.unwrap(),
        Some(cell(bigger, b"new"))
    );

    time.advance(SECOND * 10);

    assert_eq!(one.cells().get("token").await.unwrap(), None);
    assert!(
        !one.cells()
            .put("token", cell(1, b"too late"), deadline)
            .await
            .unwrap()
    );
    assert!(
        one.cells()
            .put("token", cell(1, b"first again"), deadline + SECOND)
            .await
            .unwrap()
    );
    assert_eq!(
        two.cells().get("token").await.unwrap(),
        Some(cell(1, b"first again"))
    );
}

pub(crate) async fn a_cell_is_dropped_by_its_generation_only(
    Pair {
        one, two, clock, ..
    }: Pair,
) {
    let deadline = clock.now() + SECOND;
    assert!(!one.cells().drop_if("token", 7).await.unwrap());
    one.cells()
        .put("token", cell(7, b"seven"), deadline)
        .await
        .unwrap();
    assert!(!two.cells().drop_if("token", 6).await.unwrap());
    assert!(two.cells().drop_if("token", 7).await.unwrap());
    assert_eq!(one.cells().get("token").await.unwrap(), None);
}
