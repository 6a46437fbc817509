//! What a larger form-id pool and a larger subscription ledger do to taking and counting.

use std::time::{Duration, Instant};

use domain::{
    app::AppId,
    grant::{GrantPolicy, IdKind, NewGrant},
    message::{Channel, Content},
};
use serde_json::Map;
use store::{GrantEntry, Page};

use crate::{
    growth::drain,
    load::{Load, TEMPLATE, Wish, content},
    place::{APP, Place, Production},
    run::Run,
};

/// Ids in the pool and entries in the ledger; each belongs to another user.
const SIZES: [usize; 3] = [10_000, 100_000, 1_000_000];
/// Grants that one transaction writes.
const BATCH: usize = 1000;
/// How often a cheap read is repeated.
const READS: usize = 200;
/// How many users one estimate of the reach asks about.
const REACH: usize = 10_000;

/// Drains messages that are only counted, that take an id of the pool, that take a grant under the strict policy; then
/// counts.
pub(crate) async fn grants(mode: &str, production: Option<Production>, count: usize) {
    let place = Place::start(production).await;
    let load = Load::prepare(&place, APP).await;
    let bench = Bench {
        appid: AppId::parse(APP).expect("an appid"),
        place,
        load,
    };
    let part = count.min(SIZES[0] / 2);
    println!("\n{mode}: {part} messages of each kind; ids in the pool, accounts in the ledger");
    println!(
        "     size   collect/s observed/s       id/s   strict/s   user p50   user p99   count 1st   count 2nd   reach {REACH}"
    );
    let mut size = 0;
    for wanted in SIZES {
        let collected = bench.collect(size, wanted).await;
        size = wanted;
        let free = bench.send(part, size, None, |_| content()).await;
        let ids = bench.send(part, size, None, |_| template()).await;
        let strict = Some(GrantPolicy::Strict);
        let strict = bench.send(part, size, strict, |_| content()).await;
        bench.collect_again(part, size).await;
        let user = bench.read_users(size).await;
        let first = bench.summarize().await;
        let second = bench.summarize().await;
        let reach = bench.reach(size).await;
        println!(
            "{size:>9} {collected:>11.0} {:>10.0} {:>10.0} {:>10.0} {:>7.2} ms {:>7.2} ms {:>8} ms {:>8} ms {:>8} ms",
            free.rate(),
            ids.rate(),
            strict.rate(),
            user.percentile(50).unwrap_or_default(),
            user.percentile(99).unwrap_or_default(),
            first.as_millis(),
            second.as_millis(),
            reach.as_millis(),
        );
    }
    bench.place.stop().await;
}

struct Bench {
    appid: AppId,
    place: Place,
    load: Load,
}

/// Consecutive numbers give users far apart.
fn user(number: usize, size: usize) -> String {
    format!("u{}", number * 7919 % size)
}

fn template() -> Content {
    Content::Template {
        data: Map::new(),
        page: None,
        form_id: None,
        emphasis_keyword: None,
    }
}

impl Bench {
    /// Adds an id and a ledger entry for each of these users. Returns the grants a second.
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of grants are far below 2^52"
    )]
    async fn collect(&self, from: usize, to: usize) -> f64 {
        let started = Instant::now();
        self.collect_for((from..to).map(|number| format!("u{number}")), "first")
            .await;
        2.0 * (to - from) as f64 / started.elapsed().as_secs_f64()
    }

    /// Puts back the grants that messages have taken.
    async fn collect_again(&self, part: usize, size: usize) {
        let name = format!("again at {size}");
        self.collect_for((0..part).map(|number| user(number, size)), &name)
            .await;
    }

    async fn collect_for(&self, users: impl Iterator<Item = String>, name: &str) {
        let now = self.place.now();
        let grants = users.flat_map(|openid| {
            let id = NewGrant::Id {
                kind: IdKind::FormId,
                value: format!("{openid} {name}"),
                openid: openid.clone(),
                collected_at: now,
            };
            let accepted = NewGrant::Subscription {
                openid,
                template_id: TEMPLATE.to_owned(),
                count: 1,
                long_term: false,
                accepted_at: now,
            };
            [GrantEntry::Grant(id), GrantEntry::Grant(accepted)]
        });
        let grants: Vec<GrantEntry> = grants.collect();
        for batch in grants.chunks(BATCH) {
            let grants = self.place.gateway.delivery().grants();
            let tenant = self.load.tenant();
            let collected = grants.collect(tenant, &self.appid, batch, None).await;
            collected.expect("a transaction");
        }
    }

    /// Sends one message to each of `part` users.
    async fn send(
        &self,
        part: usize,
        size: usize,
        grant_policy: Option<GrantPolicy>,
        content: impl Fn(usize) -> Content,
    ) -> Run {
        self.load.let_send("suspended").await;
        let wish = |number: usize| Wish {
            appid: self.appid.clone(),
            // Messages that are only counted go to other users, so that the ledger stays unchanged.
            touser: match (content(number), grant_policy) {
                (Content::Subscribe { .. }, None) => format!("o{number}"),
                _ => user(number, size),
            },
            content: content(number),
            grant_policy,
        };
        self.load.fill_with(part, self.place.now(), wish).await;
        drain(&self.place, &self.load, part).await
    }

    /// Lists the grants of users.
    async fn read_users(&self, size: usize) -> Run {
        let page = Page {
            limit: 50,
            after: None,
        };
        let mut latencies = Vec::with_capacity(READS);
        for number in 0..READS {
            let (door, openid) = (self.load.door(), user(number, size));
            let started = Instant::now();
            let listing = door.grants(&self.appid, &openid, &page, self.place.now());
            let listing = listing.await.expect("a list");
            latencies.push(started.elapsed());
            assert_eq!(listing.items.len(), 2, "{openid}");
        }
        let cost = crate::cost::Cpu::now().each(READS);
        Run::new(READS, Duration::ZERO, cost, latencies)
    }

    /// Measures how long a summary of all users takes.
    async fn summarize(&self) -> Duration {
        let grants = self.place.gateway.delivery().grants();
        let started = Instant::now();
        let summary = grants.summary(self.load.tenant(), &self.appid).await;
        assert!(summary.expect("a count").pool.users > 0);
        started.elapsed()
    }

    /// Measures how long an estimate of the reach of a list of users takes.
    async fn reach(&self, size: usize) -> Duration {
        let openids: Vec<String> = (0..REACH).map(|number| user(number, size)).collect();
        let openids: Vec<&str> = openids.iter().map(String::as_str).collect();
        let (door, now) = (self.load.door(), self.place.now());
        let started = Instant::now();
        let reach = door.reach(&self.appid, Channel::Subscribe, TEMPLATE, &openids, now);
        let reach = reach.await.expect("an estimate");
        let took = started.elapsed();
        assert_eq!(reach.reachable, reach.users);
        took
    }
}
