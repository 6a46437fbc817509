//! The rules of wake-ups.

use std::{sync::Arc, time::Duration};

use wxgate_coord::{Coord, Wake, WakeupSubscription};

use crate::{LOST, Pair};

/// Returns the next payload, and skips the [`Wake::Missed`] of a connection that has only just been made.
pub(crate) async fn said(subscription: &mut WakeupSubscription) -> Arc<str> {
    let words = async {
        loop {
            if let Wake::Said(words) = subscription.next().await {
                return words;
            }
        }
    };
    tokio::time::timeout(LOST, words)
        .await
        .expect("the wake-up was lost")
}

/// Waits until wake-ups of `one` reach `two`. The first ones may be lost, because `two` does not listen yet.
pub(crate) async fn connect(one: &Coord, two: &Coord) {
    let mut hello = two.wakeups().subscribe("hello");
    loop {
        one.wakeups().wake("hello", "");
        if tokio::time::timeout(Duration::from_millis(50), said(&mut hello))
            .await
            .is_ok()
        {
            return;
        }
    }
}

pub(crate) async fn a_wake_up_reaches_both_replicas_once(Pair { one, two, .. }: Pair) {
    connect(&one, &two).await;
    connect(&two, &one).await;
    let mut here = one.wakeups().subscribe("message ended");
    let mut there = two.wakeups().subscribe("message ended");
    let mut elsewhere = two.wakeups().subscribe("queue");

    one.wakeups().wake("message ended", "msg_1\nline");
    two.wakeups().wake("message ended", "msg_2");
    // A local wake-up may arrive before one of another replica, so the order is not checked.
    let mut heard = [said(&mut there).await, said(&mut there).await];
    heard.sort();
    assert_eq!(
        heard.each_ref().map(|words| &**words),
        ["msg_1\nline", "msg_2"]
    );
    one.wakeups().wake("queue", "");
    two.wakeups().wake("message ended", "msg_3");

    let heard = [
        said(&mut here).await,
        said(&mut here).await,
        said(&mut here).await,
    ];
    assert_eq!(
        heard.each_ref().map(|words| &**words),
        ["msg_1\nline", "msg_2", "msg_3"]
    );
    assert_eq!(&*said(&mut elsewhere).await, "");
}

pub(crate) async fn a_wake_up_between_the_look_and_the_wait_is_kept(Pair { one, .. }: Pair) {
    let mut subscription = one.wakeups().subscribe("queue");
    one.wakeups().wake("queue", "");
    one.wakeups().wake("queue", "");
    tokio::time::timeout(LOST, subscription.notified())
        .await
        .expect("the wake-up was lost");
}

pub(crate) async fn a_slow_subscriber_learns_that_it_missed_some(Pair { one, .. }: Pair) {
    let mut subscription = one.wakeups().subscribe("queue");
    for n in 0..5000 {
        one.wakeups().wake("queue", &n.to_string());
    }
    assert_eq!(subscription.next().await, Wake::Missed);
    while &*said(&mut subscription).await != "4999" {}
}

pub(crate) async fn what_was_said_here_is_gathered(Pair { one, .. }: Pair) {
    let mut subscription = one.wakeups().subscribe("queue");
    for words in ["wx2", "wx1", "wx2"] {
        one.wakeups().wake("queue", words);
    }
    let gathered = tokio::time::timeout(LOST, subscription.gathered()).await;
    let gathered = gathered.expect("the wake-up was lost").expect("all of it");
    assert_eq!(
        gathered.iter().map(|words| &**words).collect::<Vec<_>>(),
        ["wx1", "wx2"]
    );
}
