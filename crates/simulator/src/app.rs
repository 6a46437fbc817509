//! One account in the simulator: the settings, and the state that calls change.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use dashmap::{DashMap, DashSet};

use crate::account::{AppSettings, UserPolicy};
use crate::form_ids::FormIds;
use crate::grants::AccountGrants;
use crate::journal::Journal;
use crate::quota::Quotas;
use crate::refusal::Refusal;
use crate::stats::{Counters, Stats};
use crate::sync::{read, write};
use crate::token::TokenBook;

/// How long an official account's `client_msg_id` is remembered.
const CLIENT_ID_LIFE_MS: i64 = 600_000;

/// An account, shared by all calls. Each part has a separate lock, so that sends of one account do not wait for each
/// other.
#[derive(Debug)]
pub(crate) struct SimulatedApp {
    pub(crate) appid: Box<str>,
    settings: RwLock<Arc<AppSettings>>,
    pub(crate) tokens: Mutex<TokenBook>,
    pub(crate) quotas: Quotas,
    pub(crate) grants: AccountGrants,
    pub(crate) form_ids: FormIds,
    pub(crate) users: DashSet<Box<str>>,
    pub(crate) journal: Journal,
    pub(crate) counters: Counters,
    /// Codes of `wx.login()` that were used.
    pub(crate) spent_codes: DashSet<Box<str>>,
    busy: DashSet<Box<str>>,
    in_flight: AtomicU64,
    /// By openid and `client_msg_id`: the message's id, and the time of the send.
    client_ids: DashMap<Box<str>, (u64, i64)>,
}

impl SimulatedApp {
    pub(crate) fn new(appid: &str, settings: AppSettings, journal: Journal) -> Self {
        Self {
            appid: appid.into(),
            settings: RwLock::new(Arc::new(settings)),
            tokens: Mutex::default(),
            quotas: Quotas::default(),
            grants: AccountGrants::default(),
            form_ids: FormIds::default(),
            users: DashSet::new(),
            journal,
            counters: Counters::default(),
            spent_codes: DashSet::new(),
            busy: DashSet::new(),
            in_flight: AtomicU64::new(0),
            client_ids: DashMap::new(),
        }
    }

    /// The present settings.
    pub(crate) fn settings(&self) -> Arc<AppSettings> {
        Arc::clone(&read(&self.settings))
    }

    /// Replaces the settings; the state that calls have changed stays.
    pub(crate) fn set(&self, settings: AppSettings) {
        *write(&self.settings) = Arc::new(settings);
    }

    /// Fails with 40003 if the user does not exist.
    pub(crate) fn knows(&self, openid: &str, policy: UserPolicy) -> Result<(), Refusal> {
        let known = match policy {
            UserPolicy::Any => !openid.is_empty(),
            UserPolicy::Known => self.users.contains(openid),
        };
        if known {
            Ok(())
        } else {
            Err(Refusal::known(40003))
        }
    }

    /// Begins a send to a user: 43108 while another send to the user is in flight. A send without latency ends at once:
    /// such a send is refused beside another one, but marks nothing as in flight.
    pub(crate) fn occupy(
        self: &Arc<Self>,
        openid: &str,
        latency: Duration,
    ) -> Result<Option<InFlightGuard>, Refusal> {
        if latency.is_zero() {
            let concurrent =
                self.in_flight.load(Ordering::Acquire) > 0 && self.busy.contains(openid);
            return if concurrent {
                Err(Refusal::known(43108))
            } else {
                Ok(None)
            };
        }
        if !self.busy.insert(openid.into()) {
            return Err(Refusal::known(43108));
        }
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        Ok(Some(InFlightGuard {
            app: Arc::clone(self),
            openid: openid.into(),
        }))
    }

    /// Sends once per user and client id within ten minutes: calls `send`, which returns the message's id, or returns
    /// the earlier id.
    pub(crate) fn once(
        &self,
        openid: &str,
        client_id: &str,
        now: i64,
        send: impl FnOnce() -> u64,
    ) -> u64 {
        if client_id.is_empty() {
            return send();
        }
        let mut last = self
            .client_ids
            .entry(format!("{openid}\0{client_id}").into())
            .or_insert((0, i64::MIN));
        if now.saturating_sub(last.1) >= CLIENT_ID_LIFE_MS {
            *last = (send(), now);
        }
        last.0
    }

    /// The account's counts.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            accepted: self.journal.accepted(),
            in_flight: self.in_flight.load(Ordering::Acquire),
            ..self.counters.report()
        }
    }
}

/// Marks a send to a user as in flight; dropping the value ends the send.
#[derive(Debug)]
pub(crate) struct InFlightGuard {
    app: Arc<SimulatedApp>,
    openid: Box<str>,
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.app.busy.remove(&self.openid);
        self.app.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> Arc<SimulatedApp> {
        Arc::new(SimulatedApp::new(
            "wx",
            AppSettings::default(),
            Journal::new(1, true),
        ))
    }

    #[test]
    fn one_user_gets_one_send_at_a_time() {
        let app = app();
        let latency = Duration::from_millis(5);
        let first = app.occupy("o", latency).unwrap();
        assert_eq!(app.occupy("o", latency).unwrap_err().code, 43108);
        assert_eq!(app.occupy("o", Duration::ZERO).unwrap_err().code, 43108);
        assert!(app.occupy("p", latency).is_ok());
        assert_eq!(app.stats().in_flight, 1, "p's place was given back at once");
        drop(first);
        assert!(app.occupy("o", Duration::ZERO).unwrap().is_none());
    }

    #[test]
    fn a_client_id_is_remembered_for_ten_minutes() {
        let app = app();
        assert_eq!(app.once("o", "c", 0, || 1), 1);
        assert_eq!(app.once("o", "c", 599_999, || 2), 1);
        assert_eq!(app.once("p", "c", 0, || 3), 3);
        assert_eq!(app.once("o", "c", 600_000, || 4), 4);
        assert_eq!(app.once("o", "", 0, || 5), 5);
    }
}
