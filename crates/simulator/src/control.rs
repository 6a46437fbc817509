//! The control interface of the simulator, as direct calls.

use std::sync::Arc;
use std::time::Duration;

use crate::account::AppSettings;
use crate::clock::SimClock;
use crate::faults::{Fault, FaultReport};
use crate::form_ids::FormId;
use crate::journal::{Duplicates, Sent};
use crate::push::{CallbackRequest, PushError, PushEvent};
use crate::stats::Stats;
use crate::sync::lock;
use crate::world::World;

/// Changes and reads the state of a simulator. Clones are cheap and control the same simulator.
///
/// A call that changes an account registers the account if necessary, whatever the appid looks like. A query about an
/// unknown account returns an empty result: zero, an empty list.
#[derive(Clone, Debug)]
pub struct Control {
    world: Arc<World>,
}

impl Control {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    /// The clock of the simulated time.
    pub fn clock(&self) -> &SimClock {
        &self.world.clock
    }

    /// Removes accounts, tokens, faults and counters, and releases the clock.
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

    /// The appids of all accounts.
    pub fn appids(&self) -> Vec<String> {
        self.world
            .apps()
            .iter()
            .map(|app| app.appid.to_string())
            .collect()
    }

    /// Sets the delay of every answer of accounts without a latency setting.
    pub fn set_latency(&self, latency: Duration) {
        self.world.set_latency(latency);
    }

    /// Adds a fault, and returns the fault's number.
    pub fn add_fault(&self, fault: Fault) -> u64 {
        self.world.faults.add(fault)
    }

    /// Removes one fault; false if no fault has this number.
    pub fn remove_fault(&self, id: u64) -> bool {
        self.world.faults.remove(id)
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.world.faults.clear();
    }

    /// The active faults, with how often each has fired.
    pub fn faults(&self) -> Vec<FaultReport> {
        self.world.faults.report()
    }

    /// Fetches a legacy token of this account as another system would (no secret, no quota): the current token stays
    /// valid for five more minutes, the token before ends at once.
    pub fn foreign_fetch(&self, appid: &str) -> String {
        let app = self.world.register(appid);
        let ticket = self.world.issue_legacy(&app, self.world.clock.now_ms());
        ticket.text.to_string()
    }

    /// The current and previous tokens of this account, for a test that checks where tokens appear.
    pub fn tokens(&self, appid: &str) -> Vec<String> {
        let app = self.world.find(appid);
        app.map_or_else(Vec::new, |app| lock(&app.tokens).texts())
    }

    /// Ends all tokens of this account at once, with no overlap: business calls answer 40001.
    pub fn kill_tokens(&self, appid: &str) {
        let app = self.world.register(appid);
        lock(&app.tokens).kill_all(self.world.clock.now_ms());
    }

    /// Registers users of an account with the policy [`Known`](crate::UserPolicy::Known).
    pub fn add_users<'a>(&self, appid: &str, openids: impl IntoIterator<Item = &'a str>) {
        let app = self.world.register(appid);
        for openid in openids {
            app.users.insert(openid.into());
        }
    }

    /// Adds `count` grants of a user for a template. Has an effect only under
    /// [`GrantRule::Counted`](crate::GrantRule::Counted).
    pub fn grant(&self, appid: &str, openid: &str, template_id: &str, count: u32) {
        self.world
            .register(appid)
            .grants
            .add(openid, template_id, count);
    }

    /// Removes all grants of a user for a template.
    pub fn revoke(&self, appid: &str, openid: &str, template_id: &str) {
        self.world
            .register(appid)
            .grants
            .revoke(openid, template_id);
    }

    /// Registers a form id or prepay id.
    pub fn add_form_id(&self, appid: &str, form_id: FormId) {
        let now = self.world.clock.now_ms();
        self.world.register(appid).form_ids.add(form_id, now);
    }

    /// Sends an event to the account's callback URL, in the background.
    pub fn push(&self, appid: &str, event: PushEvent) {
        let app = self.world.register(appid);
        self.world.push(&app, event);
    }

    /// The callback for `event` at this moment, for a test that posts the callback.
    pub fn letter(&self, appid: &str, event: &PushEvent) -> Result<CallbackRequest, PushError> {
        self.world.letter(&self.world.register(appid), event)
    }

    /// The counts of all accounts together, including calls without an account.
    pub fn stats(&self) -> Stats {
        self.world.stats()
    }

    /// The counts of one account.
    pub fn app_stats(&self, appid: &str) -> Stats {
        self.world
            .find(appid)
            .map_or_else(Stats::default, |app| app.stats())
    }

    /// The accepted messages that the journal still holds, oldest first.
    pub fn sent(&self, appid: &str) -> Vec<Sent> {
        self.last_sent(appid, usize::MAX)
    }

    /// The last `most` accepted messages, oldest first.
    pub fn last_sent(&self, appid: &str, most: usize) -> Vec<Sent> {
        self.world
            .find(appid)
            .map_or_else(Vec::new, |app| app.journal.last(most))
    }

    /// Removes the accepted messages of an account and the counts of these messages.
    pub fn clear_sent(&self, appid: &str) {
        if let Some(app) = self.world.find(appid) {
            app.journal.clear();
        }
    }

    /// The users and markers of an account with more than one message.
    pub fn duplicates(&self, appid: &str) -> Duplicates {
        self.world
            .find(appid)
            .map_or_else(Duplicates::default, |app| app.journal.duplicates())
    }
}
