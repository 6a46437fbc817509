//! Many concurrent callers, and the check of all messages afterwards.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap, HashSet},
};

use futures::stream::{self, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use simulator::Control;

use super::{
    World,
    client::attempt,
    fleet::Roster,
    tenant::{Tenant, id, message_with},
    wait::eventually,
};

/// The number of concurrent callers.
const CALLERS: usize = 16;

/// Callers that submit messages, each to a different user (`o0`, `o1` …), to all replicas in rotation. A caller without
/// an answer, or with a 503, repeats the request at another replica under the same idempotency key.
pub(crate) struct Load {
    tenant: Tenant,
    appid: String,
    roster: Roster,
    wechat: Control,
    messages: usize,
    ahead: usize,
    more: Value,
}

/// The answers of the gateways to the callers.
pub(crate) struct Accepted {
    /// The bodies of the answers that accepted a message.
    pub(crate) messages: Vec<Value>,
    /// The number of 503 answers.
    pub(crate) refused: usize,
    /// The number of requests without an answer.
    pub(crate) unanswered: usize,
}

impl Load {
    /// Submits this number of messages of the tenant's app.
    pub(crate) fn new(world: &World, tenant: &Tenant, appid: &str, messages: usize) -> Self {
        Self {
            tenant: tenant.clone(),
            appid: appid.to_owned(),
            roster: world.roster.clone(),
            wechat: world.wechat(),
            messages,
            ahead: messages,
            more: json!({}),
        }
    }

    /// Keeps at most `ahead` accepted messages that WeChat has not taken, so that callers continue during the sends.
    pub(crate) fn ahead(mut self, ahead: usize) -> Self {
        self.ahead = ahead;
        self
    }

    /// Adds these fields to each message.
    pub(crate) fn with(mut self, more: Value) -> Self {
        self.more = more;
        self
    }

    /// Submits all messages. The test must not advance the clock meanwhile: replicas would count one caller's requests
    /// at different times.
    pub(crate) async fn run(self) -> Accepted {
        // Fetch the token while the first replica still runs.
        self.tenant.client.token().await;
        let (refused, unanswered) = (Cell::new(0), Cell::new(0));
        let messages = stream::iter(0..self.messages)
            .map(|number| self.hand_in(number, &refused, &unanswered))
            .buffer_unordered(CALLERS)
            .collect()
            .await;
        Accepted {
            messages,
            refused: refused.get(),
            unanswered: unanswered.get(),
        }
    }

    async fn hand_in(
        &self,
        number: usize,
        refused: &Cell<usize>,
        unanswered: &Cell<usize>,
    ) -> Value {
        eventually("WeChat has taken what was accepted before", || async {
            let taken = self.taken();
            (number < taken + self.ahead).then_some(())
        })
        .await;
        let message = message_with(&format!("o{number}"), self.more.clone());
        let path = format!("/v1/apps/{}/messages", self.appid);
        let key = format!("{}-{number}", self.appid);
        let turn = Cell::new(number);
        eventually(&format!("message {number} is accepted"), || async {
            let url = self.roster.pick(turn.replace(turn.get() + 1))?;
            let caller = self.tenant.client.at(&url);
            let request = caller.request(Method::POST, &path).await;
            let request = request.header("Idempotency-Key", &key).json(&message);
            match attempt(request).await {
                Ok(answer) if answer.status == 202 => Some(answer.body),
                Ok(answer) => {
                    answer.problem(503, "overloaded");
                    refused.set(refused.get() + 1);
                    None
                }
                Err(_) => {
                    unanswered.set(unanswered.get() + 1);
                    None
                }
            }
        })
        .await
    }

    fn taken(&self) -> usize {
        usize::try_from(self.wechat.app_stats(&self.appid).accepted).unwrap_or(usize::MAX)
    }
}

/// Checks an app of which all messages have ended, each to a different user: the gateway has exactly the accepted
/// messages, each message is `sent` or `uncertain`, no user got a message twice, and WeChat has every message that is
/// `sent`. Returns the number of uncertain messages.
pub(crate) async fn reckon(
    world: &World,
    tenant: &Tenant,
    appid: &str,
    accepted: &[Value],
) -> usize {
    let kept: HashMap<String, Value> = tenant
        .all(appid)
        .await
        .into_iter()
        .map(|message| (id(&message).to_owned(), message))
        .collect();
    let lost: Vec<&Value> = accepted
        .iter()
        .filter(|message| !kept.contains_key(id(message)))
        .collect();
    assert!(lost.is_empty(), "accepted and lost: {lost:?}");
    assert_eq!(kept.len(), accepted.len(), "messages that nobody accepted");
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for message in kept.values() {
        let status = message["status"].as_str().unwrap_or_default();
        assert!(matches!(status, "sent" | "uncertain"), "{message}");
        *counts.entry(status).or_default() += 1;
    }

    let duplicates = world.wechat().duplicates(appid);
    assert!(
        duplicates.openids.is_empty(),
        "sent more than once: {:?}",
        duplicates.openids
    );
    let taken: HashSet<String> = world
        .wechat()
        .sent(appid)
        .into_iter()
        .map(|sent| sent.touser)
        .collect();
    let unsent: Vec<&Value> = kept
        .values()
        .filter(|message| message["status"] == "sent")
        .filter(|message| !taken.contains(message["touser"].as_str().unwrap_or_default()))
        .collect();
    assert!(
        unsent.is_empty(),
        "`sent`, but WeChat has it not: {unsent:?}"
    );
    eprintln!("{appid}: {counts:?}, {} at WeChat", taken.len());
    counts.get("uncertain").copied().unwrap_or(0)
}
