//! What Redis could not be told: it is told as soon as it answers.
//!
//! A token that the other replicas do not see is one that they fetch again, and in legacy mode their fetch ends ours.
//! A ledger that they do not see is a budget overrun, or a death of a token blamed on a stranger. So whoever fails to
//! show either leaves the app here, and one task goes round them until all is shown. It is also where deaths of tokens
//! are judged that nobody could be asked about at the time.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use coord::{Clock, CoordError};
use dashmap::DashMap;
use domain::app::AppId;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::{select, sync::Notify};

use crate::{broker::Inner, memory::Memory};

/// How long to wait from round to round. One that fails costs one call, which fails at once while Redis rests.
const RETRY: Duration = Duration::from_secs(1);
/// How many apps are told at once.
const AT_ONCE: usize = 16;

/// The apps of which Redis is yet to be told.
#[derive(Default)]
pub(crate) struct Arrears {
    apps: DashMap<AppId, Owed>,
    /// Numbers what is owed.
    count: AtomicU64,
    /// Rung when there is something to do now.
    more: Notify,
}

#[derive(Clone)]
struct Owed {
    memory: Arc<Memory>,
    /// Tells it from what is owed of the same app later.
    number: u64,
}

impl Arrears {
    /// Leaves an app here; [`Arrears::ring`] when what is to be told is in its memory.
    pub(crate) fn owe(&self, appid: &AppId, memory: &Arc<Memory>) {
        let owed = Owed {
            memory: Arc::clone(memory),
            number: self.count.fetch_add(1, Ordering::Relaxed),
        };
        self.apps.insert(appid.clone(), owed);
    }

    /// Begins a round, if anything is owed.
    pub(crate) fn ring(&self) {
        if !self.apps.is_empty() {
            self.more.notify_one();
        }
    }
}

/// Goes round until the broker is gone.
pub(crate) async fn settle(inner: Weak<Inner>, arrears: Arc<Arrears>, clock: Clock) {
    loop {
        if arrears.apps.is_empty() {
            arrears.more.notified().await;
        } else {
            select! {
                () = arrears.more.notified() => {}
                () = clock.sleep(RETRY) => {}
            }
        }
        let Some(inner) = inner.upgrade() else { return };
        if let Err(error) = inner.settle_round(&arrears).await {
            tracing::debug!(%error, "not everything is shown to the other replicas yet");
        }
    }
}

impl Inner {
    /// Tells Redis what is owed; ends at the first failure, because the others would fail too.
    async fn settle_round(&self, arrears: &Arrears) -> Result<(), CoordError> {
        let owed: Vec<_> = arrears
            .apps
            .iter()
            .map(|entry| (entry.key().clone(), entry.value().clone()))
            .collect();
        stream::iter(owed)
            .map(Ok)
            .try_for_each_concurrent(AT_ONCE, async |(appid, Owed { memory, number })| {
                let is_settled = memory.is_idle(self.coord.clock().now())
                    || self.settle(&appid, &memory).await?;
                if is_settled {
                    arrears
                        .apps
                        .remove_if(&appid, |_, there| there.number == number);
                }
                Ok(())
            })
            .await
    }

    /// Tells Redis of one app; says whether that was all.
    async fn settle(&self, appid: &AppId, memory: &Memory) -> Result<bool, CoordError> {
        // What a flight brings comes into the memory at its end, which rings.
        let is_all = !memory.is_fetching();
        let theirs = self.shared.ledger(appid).await?;
        let now = self.coord.clock().now();
        memory.learn(self.shared.token(appid).await, theirs, now);
        if let Some(held) = memory.held(now).filter(|_| self.remembers(appid, memory)) {
            self.shared.put_token(appid, &held).await?;
        }
        for seen in memory.judge(now) {
            self.blame(appid, seen);
        }
        self.shared.add_to_ledger(appid, memory.ledger()).await?;
        Ok(is_all && !memory.suspects())
    }
}
