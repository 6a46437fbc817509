//! The strings that move the simulator, as direct calls.

use std::sync::Arc;
use std::time::Duration;

use crate::account::AppSettings;
use crate::clock::SimClock;
use crate::faults::{Fault, FaultReport};
use crate::form_ids::FormId;
use crate::journal::{Duplicates, Sent};
use crate::push::{Letter, PushError, PushEvent};
use crate::stats::Stats;
use crate::sync::lock;
use crate::world::World;

/// Everything a test may change or ask. Cloning is cheap; all clones move the same simulator.
///
/// A call that changes something of an account registers the account if there was none, whatever its appid looks like.
/// A question about an unknown account is answered with nothing: zero, an empty list.
#[derive(Clone, Debug)]
pub struct Control {
    world: Arc<World>,
}

impl Control {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    /// The simulated time.
    pub fn clock(&self) -> &SimClock {
        &self.world.clock
    }

    /// Forgets accounts, tokens, faults and counters, and releases the clock.
    pub fn reset(&self) {
        self.world.reset();
    }

    /// Replaces all settings of an account.
    pub fn put_app(&self, appid: &str, settings: AppSettings) {
        self.world.register(appid).set(settings);
    }

    /// Changes some settings of an account.
    pub fn change_app(&self, appid: &str, change: impl FnOnce(&mut AppSettings)) {
        let app = self.world.register(appid);
        let mut settings = AppSettings::clone(&app.settings());
        change(&mut settings);
        app.set(settings);
    }

    /// The settings of an account.
    pub fn app(&self, appid: &str) -> Option<AppSettings> {
        self.world
            .find(appid)
            .map(|app| AppSettings::clone(&app.settings()))
    }

    /// All accounts.
    pub fn appids(&self) -> Vec<String> {
        self.world
            .apps()
            .iter()
            .map(|app| app.appid.to_string())
            .collect()
    }

    /// How long every answer takes where the account has no latency of its own.
    pub fn set_latency(&self, latency: Duration) {
        self.world.set_latency(latency);
    }

    /// Puts a fault into force, and returns its number.
    pub fn add_fault(&self, fault: Fault) -> u64 {
        self.world.faults.add(fault)
    }

    /// Lifts one fault; false if there is none with this number.
    pub fn remove_fault(&self, id: u64) -> bool {
        self.world.faults.remove(id)
    }

    /// Lifts all faults.
    pub fn clear_faults(&self) {
        self.world.faults.clear();
    }

    /// The faults in force, with how often each has fired.
    pub fn faults(&self) -> Vec<FaultReport> {
        self.world.faults.report()
    }

    /// Somebody else fetches a legacy token of this account (no secret, no quota): the current one lives five more
    /// minutes, the one before it dies.
    pub fn foreign_fetch(&self, appid: &str) -> String {
        let app = self.world.register(appid);
        let ticket = self.world.issue_legacy(&app, self.world.clock.now_ms());
        ticket.text.to_string()
    }

    /// The tokens of this account that are out, and the ones before them, for a test that looks where they turn up.
    pub fn tokens(&self, appid: &str) -> Vec<String> {
        let app = self.world.find(appid);
        app.map_or_else(Vec::new, |app| lock(&app.tokens).texts())
    }

    /// Kills all tokens of this account at once, with no overlap: business calls answer 40001.
    pub fn kill_tokens(&self, appid: &str) {
        let app = self.world.register(appid);
        lock(&app.tokens).kill_all(self.world.clock.now_ms());
    }

    /// Lets users exist for accounts whose users are [`Known`](crate::UserPolicy::Known).
    pub fn add_users<'a>(&self, appid: &str, openids: impl IntoIterator<Item = &'a str>) {
        let app = self.world.register(appid);
        for openid in openids {
            app.users.insert(openid.into());
        }
    }

    /// A user accepts `count` more messages of a template. Counts only under
    /// [`GrantPolicy::Counted`](crate::GrantPolicy::Counted).
    pub fn grant(&self, appid: &str, openid: &str, template_id: &str, count: u32) {
        self.world
            .register(appid)
            .grants
            .add(openid, template_id, count);
    }

    /// A user takes back every accept of a template.
    pub fn revoke(&self, appid: &str, openid: &str, template_id: &str) {
        self.world
            .register(appid)
            .grants
            .revoke(openid, template_id);
    }

    /// How many messages of a template a user still accepts.
    pub fn grants_left(&self, appid: &str, openid: &str, template_id: &str) -> u32 {
        self.world
            .find(appid)
            .map_or(0, |app| app.grants.left(openid, template_id))
    }

    /// Registers a form id or prepay id.
    pub fn add_form_id(&self, appid: &str, form_id: FormId) {
        let now = self.world.clock.now_ms();
        self.world.register(appid).form_ids.add(form_id, now);
    }

    /// Pushes an event to the account's URL, in the background.
    pub fn push(&self, appid: &str, event: PushEvent) {
        let app = self.world.register(appid);
        self.world.push(&app, event);
    }

    /// What would be pushed now, for a test that posts it itself.
    pub fn letter(&self, appid: &str, event: &PushEvent) -> Result<Letter, PushError> {
        self.world.letter(&self.world.register(appid), event)
    }

    /// The numbers of all accounts together, and of calls that belong to none.
    pub fn stats(&self) -> Stats {
        self.world.stats()
    }

    /// The numbers of one account.
    pub fn app_stats(&self, appid: &str) -> Stats {
        self.world
            .find(appid)
            .map_or_else(Stats::default, |app| app.stats())
    }

    /// The accepted messages that the journal still holds, oldest first.
    pub fn sent(&self, appid: &str) -> Vec<Sent> {
        self.last_sent(appid, usize::MAX)
    }

    /// The last accepted messages, oldest first.
    pub fn last_sent(&self, appid: &str, most: usize) -> Vec<Sent> {
        self.world
            .find(appid)
            .map_or_else(Vec::new, |app| app.journal.last(most))
    }

    /// Forgets the accepted messages of an account and their counts.
    pub fn clear_sent(&self, appid: &str) {
        if let Some(app) = self.world.find(appid) {
            app.journal.clear();
        }
    }

    /// Which users and markers of an account got more than one message.
    pub fn duplicates(&self, appid: &str) -> Duplicates {
        self.world
            .find(appid)
            .map_or_else(Duplicates::default, |app| app.journal.duplicates())
    }
}
