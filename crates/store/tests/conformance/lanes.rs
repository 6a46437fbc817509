//! Lanes: when an app pauses, how the app resumes, and at which pace.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::{lifecycle::Event, message::Draft, message::Priority, retry::Delay, verdict::Verdict};
use wxgate_store::{ClaimedMessage, LaneChange, LanePause, QUOTA_EXHAUSTED, Store, THROTTLED};

use crate::{
    common::{appid, at, draft, intake, on_both},
    queue::{Sender, accepted, claim, settle},
};

on_both! {
    one_goes_ahead_when_a_pause_is_over
    a_probe_that_tells_nothing_is_followed_by_another
    a_probe_that_is_refused_pauses_anew
    a_lost_probe_is_followed_by_another
    a_minutes_limit_is_learnt_and_tried_again
    wechats_smaller_count_is_taken_over
}

async fn queue(store: &Store, count: u16) -> Sender<'_> {
    let mut sender = Sender::new(store, 1).await;
    for n in 0..count {
        sender.send(1, draft(&format!("o{n}")), at(0)).await;
    }
    sender
}

fn pause(reason: &str, until: DateTime<Utc>, refused: u32, by_probe: bool) -> LaneChange {
    LaneChange::Pause(LanePause {
        appid: appid(1),
        until,
        reason: reason.to_owned(),
        detail: "said so".to_owned(),
        refused,
        by_probe,
    })
}

async fn tell(store: &Store, news: LaneChange, now: DateTime<Utc>) {
    store
        .platform()
        .record::<wxgate_store::Settlement>(&[], &[news], now)
        .await
        .unwrap();
}

async fn record(
    store: &Store,
    flight: &ClaimedMessage,
    event: Event,
    news: LaneChange,
    now: DateTime<Utc>,
) {
    let settled = [settle(flight, &event, now)];
    let recorded = store.platform().record(&settled, &[news], now).await;
    assert_eq!(recorded.unwrap().changed.len(), 1);
}

/// The probe, the only message that a claim at `now` returns.
async fn probe(store: &Store, now: DateTime<Utc>) -> ClaimedMessage {
    let mut claimed = claim(store, 8, now).await;
    assert_eq!(claimed.len(), 1);
    assert!(claimed[0].is_probe);
    assert!(claim(store, 8, now).await.is_empty(), "others wait for it");
    claimed.remove(0)
}

async fn one_goes_ahead_when_a_pause_is_over(store: Store) {
    queue(&store, 5).await;
    tell(&store, pause("wrong_secret", at(60), 1, false), at(0)).await;
    assert!(claim(&store, 8, at(59)).await.is_empty());
    let probe = probe(&store, at(60)).await;
    record(
        &store,
        &probe,
        accepted(1),
        LaneChange::Open(appid(1)),
        at(61),
    )
    .await;
    let rest = claim(&store, 8, at(61)).await;
    assert_eq!(rest.len(), 4);
    assert!(rest.iter().all(|flight| !flight.is_probe));
}

async fn a_probe_that_tells_nothing_is_followed_by_another(store: Store) {
    queue(&store, 5).await;
    tell(&store, pause("wrong_secret", at(60), 1, false), at(0)).await;
    let first = probe(&store, at(60)).await;
    let nothing = LaneChange::StillPaused(appid(1), at(66));
    let busy = Event::Answered(Verdict::Later(Delay::Backoff));
    record(&store, &first, busy, nothing, at(61)).await;
    assert!(claim(&store, 8, at(65)).await.is_empty());
    probe(&store, at(66)).await;
}

async fn a_probe_that_is_refused_pauses_anew(store: Store) {
    queue(&store, 5).await;
    tell(&store, pause(QUOTA_EXHAUSTED, at(600), 1, false), at(0)).await;
    let first = probe(&store, at(600)).await;
    // Shorter than the probe's own lease, until which the lane was paused.
    let again = pause("wrong_secret", at(630), 1, true);
    record(
        &store,
        &first,
        Event::Answered(Verdict::QuotaSpent),
        again,
        at(601),
    )
    .await;
    assert!(claim(&store, 8, at(629)).await.is_empty());
    probe(&store, at(630)).await;
}

async fn a_lost_probe_is_followed_by_another(store: Store) {
    queue(&store, 5).await;
    tell(&store, pause("wrong_secret", at(60), 1, false), at(0)).await;
    probe(&store, at(60)).await;
    assert!(claim(&store, 8, at(119)).await.is_empty());
    probe(&store, at(120)).await;
}

async fn a_minutes_limit_is_learnt_and_tried_again(store: Store) {
    let mut sender = queue(&store, 0).await;
    // at(0) is not the start of a minute: the next minute starts within sixty seconds.
    let minute = |n: i64| {
        let next = at(0).timestamp().div_euclid(60) + n;
        DateTime::from_timestamp(next * 60, 0).unwrap()
    };
    let messages: Vec<_> = (0..2_700)
        .map(|n| sender.new_message(1, draft(&format!("o{n}")), minute(1)))
        .collect();
    for some in messages.chunks(300) {
        intake(&store, some, minute(1)).await;
    }
    assert_eq!(claim(&store, 800, minute(1)).await.len(), 800);
    // WeChat refused a hundred messages.
    tell(&store, pause(THROTTLED, minute(2), 100, false), minute(1)).await;
    let ahead = probe(&store, minute(2)).await;
    record(
        &store,
        &ahead,
        accepted(1),
        LaneChange::Open(appid(1)),
        minute(2),
    )
    .await;
    // Nine tenths of the seven hundred accepted messages, plus a quarter, less the probe.
    assert_eq!(claim(&store, 1_000, minute(2)).await.len(), 787);
    assert!(
        claim(&store, 1_000, minute(2) + Duration::from_secs(59))
            .await
            .is_empty()
    );
    assert_eq!(claim(&store, 1_000, minute(3)).await.len(), 986);
    let app = async || store.tenant(sender.tenant).app(&appid(1)).await.unwrap();
    let paced = app().await;
    assert_eq!((paced.pace, paced.pause), (Some(986), None));
    // Few messages were sent in this minute, so the refusal says nothing about WeChat's limit.
    assert_eq!(claim(&store, 10, minute(4)).await.len(), 10);
    tell(&store, pause(THROTTLED, minute(5), 1, false), minute(4)).await;
    assert_eq!(app().await.pace, Some(600));
}

async fn wechats_smaller_count_is_taken_over(store: Store) {
    let mut sender = queue(&store, 3).await;
    let door = store.tenant(sender.tenant);
    let platform = store.platform();
    claim(&store, 3, at(1)).await;
    platform
        .cap_quota(&appid(1), 2_000_000, at(2))
        .await
        .unwrap();
    assert_eq!(door.quota_use(&appid(1), at(2)).await.unwrap().used, 3);
    platform.cap_quota(&appid(1), 2, at(2)).await.unwrap();
    assert_eq!(
        door.quota_use(&appid(1), at(2)).await.unwrap().used,
        999_998
    );
    for n in 10..15 {
        let high = Draft {
            priority: Priority::High,
            ..draft(&format!("o{n}"))
        };
        sender.send(1, high, at(2)).await;
    }
    assert_eq!(claim(&store, 8, at(3)).await.len(), 2);
}
