//! Single flight: callers in this process share one fetch, and replicas share a short fetch lease.
//!
//! The lease saves fetches and is not needed for correctness. The holder reads the shared cell again, fetches, puts the
//! token into the cell and wakes the other replicas, which read the cell too. After the death of a holder the others
//! wait until the lease ends, which is after the longest time that the calls of WeChat may take: a second legacy fetch
//! before that would end the token of the first. When Redis is away every replica fetches without a lease.

use std::{sync::Arc, time::Duration};

use domain::{
    app::{AppId, TokenMode},
    secret::AppSecret,
};
use futures::FutureExt;
use tokio::select;

use crate::{
    BrokerError, Proof,
    fetch::Fetch,
    fetcher::Fetcher,
    goal::{Goal, Reason},
    memory::{Memory, SharedFetch},
    token::HeldToken,
};

/// The number of calls that a repair may take, each with the client's time-out.
const CALLS: u32 = 2;
/// The time of a fetch lease beyond the calls of WeChat: for reading the credentials and for the calls of Redis.
const REST: Duration = Duration::from_secs(5);
/// How often a replica that waits for the lease reads the cell, besides after wake-ups.
const POLL: Duration = Duration::from_millis(250);

/// How the wait for the fetch lease ended.
enum FetchLease {
    /// Another replica has fetched a suitable token.
    Found(HeldToken),
    /// This replica holds the lease.
    Leased,
    /// This replica fetches without a lease, because Redis does not answer.
    Alone,
}

/// Starts a fetch that continues without callers: a legacy token that was fetched and not kept would have ended the
/// token before for nothing.
pub(crate) fn launch(
    fetcher: &Arc<Fetcher>,
    appid: &AppId,
    memory: &Arc<Memory>,
    goal: Goal,
) -> SharedFetch {
    let asked = matches!(goal.reason, Reason::Asked(_));
    let task = {
        let (fetcher, appid, memory) = (Arc::clone(fetcher), appid.clone(), Arc::clone(memory));
        async move {
            let landed = fly(&fetcher, &appid, &memory, goal).await;
            if landed
                .as_ref()
                .is_err_and(|error| *error == BrokerError::UnknownApp)
            {
                fetcher.memories.remove_if_present(&appid, &memory);
            }
            let landed = memory.land(landed, asked);
            fetcher.deferred.ring();
            landed
        }
    };
    let task = fetcher.tasks.spawn(task);
    let (fetcher, memory) = (Arc::clone(fetcher), Arc::clone(memory));
    let landed = async move {
        // A fetch that panicked, or that the end of the runtime cancelled, has not called `land`.
        task.await.unwrap_or_else(|crash| {
            memory.land(Err(fetcher.later(&memory, crash.to_string())), asked)
        })
    };
    landed.boxed().shared()
}

async fn fly(
    fetcher: &Fetcher,
    appid: &AppId,
    memory: &Arc<Memory>,
    mut goal: Goal,
) -> Result<HeldToken, BrokerError> {
    let (name, owner) = (format!("token:{appid}"), fetcher.owner());
    let alone = match wait_for_lease(fetcher, appid, &mut goal, &name, &owner).await? {
        FetchLease::Found(held) => return Ok(held),
        FetchLease::Leased => false,
        FetchLease::Alone => true,
    };
    let landed = Fetch::begin(fetcher, appid, memory)
        .await
        .bring(&goal, alone)
        .await;
    if let Ok(held) = &landed
        && let Err(error) = fetcher.shared.put_token(appid, held).await
    {
        tracing::debug!(%appid, %error, "the token is not shared with the other replicas yet");
        fetcher.deferred.defer(appid, memory);
    }
    give_back(fetcher, &name, &owner).await;
    landed
}

/// Proves a secret under the fetch lease: after two concurrent legacy fetches, chance decides which token lives.
/// Continues without the caller, so that the lease is released.
pub(crate) async fn prove(
    fetcher: &Arc<Fetcher>,
    appid: &AppId,
    memory: &Arc<Memory>,
    secret: &AppSecret,
    mode: TokenMode,
) -> Result<Proof, BrokerError> {
    let task = {
        let (fetcher, appid, memory) = (Arc::clone(fetcher), appid.clone(), Arc::clone(memory));
        let secret = secret.clone();
        async move {
            let (name, owner) = (format!("token:{appid}"), fetcher.owner());
            // No existing token meets this goal.
            let mut goal = Goal {
                beyond: u64::MAX,
                reason: Reason::Missing,
            };
            wait_for_lease(&fetcher, &appid, &mut goal, &name, &owner).await?;
            let fetch = Fetch::begin(&fetcher, &appid, &memory).await;
            let proof = fetch.prove(&secret, mode).await;
            fetcher.deferred.ring();
            give_back(&fetcher, &name, &owner).await;
            proof
        }
    };
    let proven = fetcher.tasks.spawn(task).await;
    proven.unwrap_or_else(|crash| Err(fetcher.later(memory, crash.to_string())))
}

/// Releases the lease and wakes the waiting replicas. Redis may have granted the lease although no answer arrived.
async fn give_back(fetcher: &Fetcher, name: &str, owner: &str) {
    // Fails when Redis has just gone away; the lease then ends by its ttl.
    let _ = fetcher.coord.leases().release(name, owner).await;
    fetcher.coord.wakeups().wake(name, "");
}

/// Waits for the lease or for a suitable token, whichever comes first.
async fn wait_for_lease(
    fetcher: &Fetcher,
    appid: &AppId,
    goal: &mut Goal,
    name: &str,
    owner: &str,
) -> Result<FetchLease, BrokerError> {
    let lease = fetcher.client.timeout() * CALLS + REST;
    // An open topic costs tens of kilobytes, so only a replica that has to wait opens the topic.
    let mut woken = None;
    let turn = loop {
        if let Some(held) = look(fetcher, appid, goal).await {
            break FetchLease::Found(held);
        }
        match fetcher.coord.leases().take(name, owner, lease).await {
            // The token of the last holder may have arrived between the look and the lease.
            Ok(true) => {
                let Some(held) = look(fetcher, appid, goal).await else {
                    break FetchLease::Leased;
                };
                let _ = fetcher.coord.leases().release(name, owner).await;
                break FetchLease::Found(held);
            }
            Err(error) => {
                tracing::debug!(%appid, %error, "fetching an access token without a fetch lease");
                break FetchLease::Alone;
            }
            Ok(false) => {}
        }
        let Some(woken) = &mut woken else {
            // The next round looks again, for a token that arrived before the topic was open.
            woken = Some(fetcher.coord.wakeups().subscribe(name));
            continue;
        };
        select! {
            () = woken.notified() => {}
            () = fetcher.coord.clock().sleep(POLL) => {}
            () = fetcher.stop.cancelled() => return Err(fetcher.shutting_down()),
        }
    };
    if woken.take().is_some() && matches!(turn, FetchLease::Found(_)) {
        // Closes the topic if no other caller waits here. A replica that fetches wakes the topic anyway.
        fetcher.coord.wakeups().wake(name, "");
    }
    Ok(turn)
}

/// Reads the shared cell. An unsuitable token there still changes the goal: the new token must have a later generation,
/// and the token there may be the dead one that this replica does not know.
async fn look(fetcher: &Fetcher, appid: &AppId, goal: &mut Goal) -> Option<HeldToken> {
    let held = fetcher.shared.token(appid).await?;
    if goal.is_met_by(&held) {
        return Some(held);
    }
    goal.meet(held, fetcher.coord.clock().now());
    None
}
