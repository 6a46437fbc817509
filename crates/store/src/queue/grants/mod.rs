//! Grants in the queue: the claim takes what permits a send, and the record settles the permit, in the same
//! transactions.
//!
//! | permit | of | the claim | the record |
//! | --- | --- | --- | --- |
//! | free | messages that bring a grant along, or have an app without a ledger | – | – |
//! | pool | template messages without a form id | takes the recipient's first id to expire | spends, returns or drops the id |
//! | counted | subscribe messages, where the app has a ledger | – | counts the grant |
//! | reserved | subscribe messages under the strict policy | counts the grant | gives the grant back |
//!
//! Intake decides on the permit and stores the permit in the message's row, so a free message costs no statement.
//!
//! Only settlements that counted change a grant. WeChat's codes 41028, 41029 and 41031 remove an id from the pool, and
//! the message is ready at once for the next id. Under the policy `observe`, one batched statement counts the grants of
//! all sent messages, and only in apps that have a ledger (`app.counts_grants`). A message without a grant ends as
//! `failed` with `no_grant` and uses no quota.
//!
//! **An id that may have been used** is never given to another message. An id that is good for one message stays with
//! that message. A repeat of the send takes the same id, and WeChat's answer shows whether the id was used up (41029:
//! the first attempt was accepted). Of a prepay id one use is counted as spent.
//!
//! **Locks.** A claim holds the lane, and at most one message is in flight to a recipient, so no two claims want the
//! same id. Only the claim that takes an id and the record of the message that holds the id change the id. All
//! transactions lock ledger rows in the order of the keys, after messages.

mod collect;
mod count;
mod ledger;
mod pool;
mod read;
mod settle;
mod take;

use chrono::{DateTime, Utc};
use domain::{
    grant::{Balance, GrantPolicy, IdKind},
    lifecycle::Event,
    message::{Content, Draft},
    retry::Delay,
    verdict::{FailureCode, Verdict},
};
use serde::{Deserialize, Serialize};

use super::claimed::ClaimedMessage;

pub use collect::{Collected, Collection, GrantEntry};
pub use count::{GrantCount, KeptCount, PoolCount, TemplateCount};
pub use ledger::LedgerChange;
pub use read::{GrantCursor, GrantCursorFormat, Reach};

pub(super) use ledger::enter as enter_ledger;
pub(super) use settle::{settle, undo};
pub(super) use take::{load_held, take};

const FREE: i64 = 0;
const POOL: i64 = 1;
const COUNTED: i64 = 2;
const RESERVED: i64 = 3;
/// The bits above [`PERMIT`] store the policy that the message itself requested, for display.
const PERMIT: i64 = 3;
const ASKED_STRICT: i64 = 4;
const ASKED_OBSERVE: i64 = 8;

/// What permits the send of a message, as far as the gateway counts grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Permit {
    /// No grant that is counted here.
    #[default]
    Free,
    /// An id of the pool. `None` before the claim has taken an id.
    Pool(Option<PoolId>),
    /// A grant of the ledger, counted when WeChat has accepted the message.
    Counted,
    /// A grant of the ledger that the claim has counted already.
    Reserved,
}

/// An id of the pool that a message holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolId {
    /// The id itself.
    pub value: String,
    /// The event that produced the id: a form or a payment.
    pub kind: IdKind,
    /// The end of the time in which the gateway uses the id.
    pub usable_until: DateTime<Utc>,
    /// Whether an earlier attempt with this id had no answer. Then the id may be used up, and the message was accepted.
    pub maybe_used: bool,
}

/// What the outcome of an attempt means for the grant of the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantChange {
    /// The news is about the id that the message holds.
    Pool {
        /// The id itself.
        value: String,
        /// What happens to the id.
        fate: IdFate,
    },
    /// The news is about the recipient's row in the ledger.
    Ledger(LedgerStep),
}

/// What happens to an id that a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdFate {
    /// One use of the id is spent.
    Spent,
    /// The id was not used: the next message may take the id.
    Back,
    /// WeChat refuses the id.
    Refused,
}

/// The change of the ledger that a message causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerStep {
    /// One grant fewer.
    Debit,
    /// One grant more: the reserved grant was not used.
    Back,
    /// No grant left: WeChat reports that there is none.
    Zero,
}

/// A stored grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// An id of the pool.
    Id(PooledId),
    /// A row of the ledger.
    Subscription(Subscription),
}

/// A stored id of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PooledId {
    /// The event that produced the id: a form or a payment.
    pub kind: IdKind,
    /// The openid of the user for the id: the id permits messages to this user only.
    pub openid: String,
    /// The id itself.
    pub value: String,
    /// The number of messages that the id still permits.
    pub uses_left: u32,
    /// Whether a message holds the id.
    pub is_held: bool,
    /// The time at which the id was produced.
    pub collected_at: DateTime<Utc>,
    /// The end of the time in which the gateway uses the id.
    pub usable_until: DateTime<Utc>,
}

/// A row of the ledger, for one user and one template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// The user.
    pub openid: String,
    /// The template.
    pub template_id: String,
    /// The number of messages that may be sent.
    pub remaining: u32,
    /// Whether a send leaves `remaining` unchanged, because the subscription is a long-term one.
    pub long_term: bool,
    /// The time of the last acceptance that the tenant reported.
    pub reported_at: Option<DateTime<Utc>>,
    /// The time of the last acceptance that WeChat reported.
    pub confirmed_at: Option<DateTime<Utc>>,
    /// The time at which the user last withdrew the subscription.
    pub revoked_at: Option<DateTime<Utc>>,
}

impl Subscription {
    fn of(openid: &str, template_id: &str, balance: &Balance) -> Self {
        Self {
            openid: openid.to_owned(),
            template_id: template_id.to_owned(),
            remaining: balance.remaining,
            long_term: balance.long_term,
            reported_at: balance.reported_at,
            confirmed_at: balance.confirmed_at,
            revoked_at: balance.revoked_at,
        }
    }
}

impl Permit {
    pub(super) fn read(code: i64) -> Self {
        match code & PERMIT {
            POOL => Self::Pool(None),
            COUNTED => Self::Counted,
            RESERVED => Self::Reserved,
            _ => Self::Free,
        }
    }
}

/// The permit of a new message in an app with this policy, as the message's row stores the permit.
pub(super) fn permit_code(draft: &Draft, of_app: GrantPolicy, has_ledger: bool) -> i64 {
    let policy = draft.grant_policy.unwrap_or(of_app);
    let permit = match &draft.content {
        Content::Template { form_id: None, .. } => POOL,
        Content::Subscribe { .. } if policy == GrantPolicy::Strict => RESERVED,
        Content::Subscribe { .. } if has_ledger => COUNTED,
        _ => FREE,
    };
    let asked = match draft.grant_policy {
        None => 0,
        Some(GrantPolicy::Strict) => ASKED_STRICT,
        Some(GrantPolicy::Observe) => ASKED_OBSERVE,
    };
    permit | asked
}

/// The policy that the message itself requested. `None` if the app's policy holds.
pub(crate) fn asked_policy(code: i64) -> Option<GrantPolicy> {
    if code & ASKED_STRICT != 0 {
        Some(GrantPolicy::Strict)
    } else {
        (code & ASKED_OBSERVE != 0).then_some(GrantPolicy::Observe)
    }
}

impl ClaimedMessage {
    /// The time until which WeChat itself refuses a second copy of the message, because the held id permits one message
    /// only. `None` if WeChat would accept a second copy.
    pub(super) fn pool_window(&self) -> Option<DateTime<Utc>> {
        let Permit::Pool(Some(id)) = &self.permit else {
            return None;
        };
        // An earlier attempt may have used another id.
        let is_first = id.maybe_used || self.maybe_sent_at().is_none();
        (id.kind.uses() == 1 && is_first).then_some(id.usable_until)
    }

    /// What `event` means for the grant of this send. `None` if nothing changes.
    pub fn grant_news(&self, event: &Event) -> Option<GrantChange> {
        match &self.permit {
            Permit::Free | Permit::Pool(None) => None,
            Permit::Pool(Some(id)) => id.fate(event).map(|fate| GrantChange::Pool {
                value: id.value.clone(),
                fate,
            }),
            Permit::Counted => counted(event).map(GrantChange::Ledger),
            Permit::Reserved => reserved(event).map(GrantChange::Ledger),
        }
    }
}

impl PoolId {
    fn fate(&self, event: &Event) -> Option<IdFate> {
        match event {
            Event::Answered(Verdict::Accepted { .. }) => Some(IdFate::Spent),
            Event::Answered(
                Verdict::Later(Delay::AtOnce) | Verdict::Rejected(FailureCode::InvalidFormId),
            ) => Some(IdFate::Refused),
            Event::Answered(Verdict::Unknown) | Event::LeaseEnded => {
                (self.kind.uses() > 1).then_some(IdFate::Spent)
            }
            _ => (!self.maybe_used).then_some(IdFate::Back),
        }
    }
}

fn counted(event: &Event) -> Option<LedgerStep> {
    match event {
        Event::Answered(Verdict::Accepted { .. } | Verdict::Unknown) => Some(LedgerStep::Debit),
        Event::Answered(Verdict::Rejected(FailureCode::NoGrant)) => Some(LedgerStep::Zero),
        _ => None,
    }
}

fn reserved(event: &Event) -> Option<LedgerStep> {
    match event {
        Event::Answered(Verdict::Accepted { .. } | Verdict::Unknown) | Event::LeaseEnded => None,
        Event::Answered(Verdict::Rejected(FailureCode::NoGrant)) => Some(LedgerStep::Zero),
        _ => Some(LedgerStep::Back),
    }
}
