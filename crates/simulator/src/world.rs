//! All state of one simulator.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::account::{AppSettings, well_shaped};
use crate::app::SimulatedApp;
use crate::clock::SimClock;
use crate::faults::Faults;
use crate::ids::{IdGenerator, mix};
use crate::journal::Journal;
use crate::options::Options;
use crate::push::{CallbackRequest, Job, PushError, PushEvent, Stamp};
use crate::refusal::Refusal;
use crate::stats::{Counters, Stats};
use crate::sync::lock;
use crate::token::Ticket;

/// The accounts, the issued tokens, the clock and the faults. A send takes no global lock: maps are sharded, and the
/// parts of an account have separate locks.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) clock: SimClock,
    pub(crate) mint: IdGenerator,
    pub(crate) faults: Faults,
    /// The counters of calls without an account.
    pub(crate) orphans: Counters,
    latency_ms: AtomicU64,
    apps: DashMap<Box<str>, Arc<SimulatedApp>>,
    passes: DashMap<Box<str>, TokenEntry>,
    outbox: UnboundedSender<Job>,
    /// The receiving end of the outbox, until [`World::posts`] takes the receiver.
    posts: Mutex<Option<UnboundedReceiver<Job>>>,
}

/// A token with the token's account.
#[derive(Clone, Debug)]
struct TokenEntry {
    app: Arc<SimulatedApp>,
    ticket: Arc<Ticket>,
}

impl World {
    /// An empty world. `salt` makes the tokens differ from those of another simulator, or of an earlier simulator at
    /// the same port.
    pub(crate) fn new(options: Options, salt: u64) -> Self {
        let clock = SimClock::default();
        let (outbox, posts) = unbounded_channel();
        let started = clock.now_ms().unsigned_abs();
        Self {
            mint: IdGenerator::new(options.seed ^ salt.rotate_left(48) ^ started),
            faults: Faults::new(options.seed),
            orphans: Counters::default(),
            latency_ms: AtomicU64::new(millis(options.latency)),
            apps: DashMap::new(),
            passes: DashMap::new(),
            outbox,
            posts: Mutex::new(Some(posts)),
            clock,
            options,
        }
    }

    /// Restores the initial state, except that no id or token is issued again.
    pub(crate) fn reset(&self) {
        self.apps.clear();
        self.passes.clear();
        self.faults.clear();
        self.orphans.clear();
        self.clock.release();
        self.set_latency(self.options.latency);
    }

    /// Sets the delay of every answer of accounts without a latency setting.
    pub(crate) fn set_latency(&self, latency: Duration) {
        self.latency_ms.store(millis(latency), Ordering::Relaxed);
    }

    /// The base latency of a call.
    pub(crate) fn latency_of(&self, app: Option<&SimulatedApp>) -> Duration {
        let own = app.and_then(|app| app.settings().latency_ms);
        Duration::from_millis(own.unwrap_or_else(|| self.latency_ms.load(Ordering::Relaxed)))
    }

    /// The account, if registered.
    pub(crate) fn find(&self, appid: &str) -> Option<Arc<SimulatedApp>> {
        self.apps.get(appid).map(|app| Arc::clone(&app))
    }

    /// The account that a token fetch names; in open mode an unknown account is registered. 40013 otherwise.
    pub(crate) fn resolve(&self, appid: &str) -> Result<Arc<SimulatedApp>, Refusal> {
        match self.find(appid) {
            Some(app) => Ok(app),
            None if self.options.open && well_shaped(appid) => Ok(self.register(appid)),
            None => Err(Refusal::known(40013)),
        }
    }

    /// The account; an unknown account is registered with default settings.
    pub(crate) fn register(&self, appid: &str) -> Arc<SimulatedApp> {
        let app = self.apps.entry(appid.into()).or_insert_with(|| {
            let journal = Journal::new(self.options.journal, self.options.count_recipients);
            Arc::new(SimulatedApp::new(appid, AppSettings::default(), journal))
        });
        Arc::clone(&app)
    }

    /// All accounts, sorted by appid.
    pub(crate) fn apps(&self) -> Vec<Arc<SimulatedApp>> {
        let mut apps: Vec<_> = self.apps.iter().map(|app| Arc::clone(&app)).collect();
        apps.sort_by(|one, other| one.appid.cmp(&other.appid));
        apps
    }

    /// The account of a token, and whether the token is still valid.
    pub(crate) fn pass(
        &self,
        token: &str,
        now: i64,
    ) -> (Option<Arc<SimulatedApp>>, Result<(), Refusal>) {
        if token.is_empty() {
            return (None, Err(Refusal::known(41001)));
        }
        match self.passes.get(token) {
            Some(pass) => (Some(Arc::clone(&pass.app)), pass.ticket.check(now)),
            None => (None, Err(Refusal::known(40014))),
        }
    }

    /// Makes a token valid for the account.
    pub(crate) fn admit(&self, app: &Arc<SimulatedApp>, ticket: &Arc<Ticket>) {
        if !self.passes.contains_key(&ticket.text) {
            let pass = TokenEntry {
                app: Arc::clone(app),
                ticket: Arc::clone(ticket),
            };
            self.passes.insert(ticket.text.clone(), pass);
        }
    }

    /// Issues a new legacy token, as for a fetch that passed all checks.
    pub(crate) fn issue_legacy(&self, app: &Arc<SimulatedApp>, now: i64) -> Arc<Ticket> {
        let ttl_ms = ttl_ms(&app.settings());
        let ticket = lock(&app.tokens).fetch_legacy(self.mint.token(), now, ttl_ms);
        self.admit(app, &ticket);
        ticket
    }

    /// Hands an event to the task that posts callbacks.
    pub(crate) fn push(&self, app: &Arc<SimulatedApp>, event: PushEvent) {
        let app = Arc::clone(app);
        // Sending fails when the simulator has stopped: no more callbacks are sent then.
        let _ = self.outbox.send(Job { app, event });
    }

    /// The queue of events to post. Only the first call gets the queue.
    pub(crate) fn posts(&self) -> Option<UnboundedReceiver<Job>> {
        lock(&self.posts).take()
    }

    /// Writes the callback of an event at the present time.
    pub(crate) fn letter(
        &self,
        app: &SimulatedApp,
        event: &PushEvent,
    ) -> Result<CallbackRequest, PushError> {
        let settings = app.settings();
        let push = settings.push.as_ref().ok_or(PushError::NotSet)?;
        let (one, other) = (mix(self.mint.salt()), mix(self.mint.salt()));
        let mut random = [0; 16];
        for (place, number) in random
            .iter_mut()
            .zip(one.to_be_bytes().into_iter().chain(other.to_be_bytes()))
        {
            *place = b'0' + number % 10;
        }
        let stamp = Stamp {
            now: self.clock.now_ms() / 1_000,
            nonce: u32::try_from(one % 1_000_000_000).unwrap_or_default(),
            random,
        };
        push.write(&app.appid, event, stamp)
    }

    /// The counts of all accounts and of the calls without an account.
    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.orphans.report();
        for app in self.apps() {
            stats.add(app.stats());
        }
        stats
    }
}

/// The lifetime of a new token, in milliseconds.
pub(crate) fn ttl_ms(settings: &AppSettings) -> i64 {
    i64::from(settings.token_ttl) * 1_000
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
