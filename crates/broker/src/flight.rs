//! One fetch for everybody: in this process by the flight, over replicas by a short lease.
//!
//! The lease saves fetches and is not needed for correctness. Its holder looks into the shared cell again, fetches,
//! leaves the token there and wakes the others, who look too. A holder that dies is waited for until its lease ends,
//! which is after all that its calls of WeChat may take: sooner, a second legacy fetch would end the first one's
//! token. When Redis is away everybody is the holder.

use std::{sync::Arc, time::Duration};

use domain::{
    app::{AppId, TokenMode},
    secret::AppSecret,
};
use futures::FutureExt;
use tokio::select;

use crate::{
    BrokerError,
    broker::Inner,
    fetch::{Fetch, Proof},
    goal::{Goal, Held, Reason},
    memory::{Flight, Memory},
};

/// How many calls a repair may take, each with the client's time-out.
const CALLS: u32 = 2;
/// How much longer than its calls a turn may take: for the credentials and what Redis is told.
const REST: Duration = Duration::from_secs(5);
/// How often who waits for the lease looks, beside being woken.
const POLL: Duration = Duration::from_millis(250);

/// Whose turn it is.
enum Turn {
    /// Nobody's: another replica has left what is wanted.
    Found(Held),
    /// Ours, by the lease.
    Leased,
    /// Ours, because nobody can say otherwise.
    Alone,
}

/// Starts a fetch that goes on when its callers leave: a fetched legacy token that nobody kept would have killed the
/// one before it for nothing.
pub(crate) fn launch(
    inner: &Arc<Inner>,
    appid: &AppId,
    memory: &Arc<Memory>,
    goal: Goal,
) -> Flight {
    let asked = matches!(goal.reason, Reason::Asked(_));
    let task = {
        let (inner, appid, memory) = (Arc::clone(inner), appid.clone(), Arc::clone(memory));
        async move {
            let landed = fly(&inner, &appid, &memory, goal).await;
            if landed
                .as_ref()
                .is_err_and(|error| *error == BrokerError::UnknownApp)
            {
                inner.drop_memory(&appid, &memory);
            }
            let landed = memory.land(landed, asked);
            inner.arrears.ring();
            landed
        }
    };
    let task = inner.tasks.spawn(task);
    let (inner, memory) = (Arc::clone(inner), Arc::clone(memory));
    let landed = async move {
        // A flight that panicked or was cut off by the runtime's end has not landed itself.
        task.await.unwrap_or_else(|crash| {
            memory.land(Err(inner.later(&memory, crash.to_string())), asked)
        })
    };
    landed.boxed().shared()
}

async fn fly(
    inner: &Inner,
    appid: &AppId,
    memory: &Arc<Memory>,
    mut goal: Goal,
) -> Result<Held, BrokerError> {
    let (name, owner) = (format!("token:{appid}"), inner.owner());
    let alone = match take_turn(inner, appid, &mut goal, &name, &owner).await? {
        Turn::Found(held) => return Ok(held),
        Turn::Leased => false,
        Turn::Alone => true,
    };
    let landed = Fetch::begin(inner, appid, memory)
        .await
        .bring(&goal, alone)
        .await;
    if let Ok(held) = &landed
        && let Err(error) = inner.shared.put_token(appid, held).await
    {
        tracing::debug!(%appid, %error, "the token is not shared yet");
        inner.arrears.owe(appid, memory);
    }
    give_back(inner, &name, &owner).await;
    landed
}

/// Proves a secret in a turn of its own: a legacy fetch beside another one would leave it to chance whose token lives.
/// Goes on when its caller leaves, so that the turn ends.
pub(crate) async fn prove(
    inner: &Arc<Inner>,
    appid: &AppId,
    memory: &Arc<Memory>,
    secret: &AppSecret,
    mode: TokenMode,
) -> Result<Proof, BrokerError> {
    let task = {
        let (inner, appid, memory) = (Arc::clone(inner), appid.clone(), Arc::clone(memory));
        let secret = secret.clone();
        async move {
            let (name, owner) = (format!("token:{appid}"), inner.owner());
            // No token that is there will do.
            let mut goal = Goal {
                beyond: u64::MAX,
                reason: Reason::Missing,
            };
            take_turn(&inner, &appid, &mut goal, &name, &owner).await?;
            let fetch = Fetch::begin(&inner, &appid, &memory).await;
            let proof = fetch.prove(&secret, mode).await;
            inner.arrears.ring();
            give_back(&inner, &name, &owner).await;
            proof
        }
    };
    let proven = inner.tasks.spawn(task).await;
    proven.unwrap_or_else(|crash| Err(inner.later(memory, crash.to_string())))
}

/// Ends a turn. One that was taken without an answer of Redis may be held all the same.
async fn give_back(inner: &Inner, name: &str, owner: &str) {
    // Fails when Redis has just gone; then the lease ends by itself.
    let _ = inner.coord.leases().release(name, owner).await;
    inner.coord.wakeups().wake(name, "");
}

/// Waits for a turn or for what is wanted, whichever comes first.
async fn take_turn(
    inner: &Inner,
    appid: &AppId,
    goal: &mut Goal,
    name: &str,
    owner: &str,
) -> Result<Turn, BrokerError> {
    let lease = inner.client.timeout() * CALLS + REST;
    // A topic costs tens of kilobytes as long as it is open, so only who has to wait opens it.
    let mut woken = None;
    let turn = loop {
        if let Some(held) = look(inner, appid, goal).await {
            break Turn::Found(held);
        }
        match inner.coord.leases().take(name, owner, lease).await {
            // What the last holder brought may have arrived between the look and the lease.
            Ok(true) => {
                let Some(held) = look(inner, appid, goal).await else {
                    break Turn::Leased;
                };
                let _ = inner.coord.leases().release(name, owner).await;
                break Turn::Found(held);
            }
            Err(error) => {
                tracing::debug!(%appid, %error, "fetching without a lease");
                break Turn::Alone;
            }
            Ok(false) => {}
        }
        let Some(woken) = &mut woken else {
            // And look again, for what came before it was open.
            woken = Some(inner.coord.wakeups().subscribe(name));
            continue;
        };
        select! {
            () = woken.notified() => {}
            () = inner.coord.clock().sleep(POLL) => {}
            () = inner.stop.cancelled() => return Err(inner.shutting_down()),
        }
    };
    if woken.take().is_some() && matches!(turn, Turn::Found(_)) {
        // Closes the topic, if nobody else waits here. Who fetches wakes it anyway.
        inner.coord.wakeups().wake(name, "");
    }
    Ok(turn)
}

/// Looks into the shared cell. A token there that will not do still moves the goal: what is fetched must be later, and
/// the dead one may be known to the others only.
async fn look(inner: &Inner, appid: &AppId, goal: &mut Goal) -> Option<Held> {
    let held = inner.shared.token(appid).await?;
    if goal.is_met_by(&held) {
        return Some(held);
    }
    goal.meet(held, inner.coord.clock().now());
    None
}
