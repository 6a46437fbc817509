//! Grants in the queue: what permits a send is taken by the claim and settled by the record, in their transactions.
//!
//! | permit | of | the claim | the record |
//! | --- | --- | --- | --- |
//! | free | messages that bring what they need, or whose app has no ledger | – | – |
//! | pool | template messages without a form id | takes the user's id that expires first | uses it up, gives it back or drops it |
//! | counted | subscribe messages, where the app has a ledger | – | counts it |
//! | reserved | subscribe messages under the strict policy | counts it | gives it back |
//!
//! Which one it is, is decided at intake and kept in the message's row, so whatever is free costs no statement.
//!
//! **An id that may have been used** is never given to another message. One that is good for one message stays with its
//! message: sent again, that takes the same id, and WeChat itself says whether it was used up (41029: the first try has
//! arrived). Of a prepay id one use is counted as spent.
//!
//! **Locks.** A claim holds the lane, and one message flies to a user at a time, so no two claims want one id. Ids are
//! changed by the claim that takes them and the record of the message that holds them. Accounts of the ledger are
//! locked in the order of their keys, after messages, by everybody.

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

use super::flight::Claimed;

pub use collect::{Collected, Collection, GrantEntry};
pub use count::{GrantCount, KeptCount, PoolCount, TemplateCount};
pub use ledger::LedgerNews;
pub use read::{GrantCursor, GrantCursorFormat, Reach};

pub(super) use ledger::enter as enter_ledger;
pub(super) use settle::{settle, undo};
pub(super) use take::{load_held, take};

const FREE: i64 = 0;
const POOL: i64 = 1;
const COUNTED: i64 = 2;
const RESERVED: i64 = 3;
/// The bits above: what the message itself asked for, to be shown with it.
const PERMIT: i64 = 3;
const ASKED_STRICT: i64 = 4;
const ASKED_OBSERVE: i64 = 8;

/// What permits the send of a message, as far as the gateway keeps books about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Permit {
    /// Nothing that is counted here.
    #[default]
    Free,
    /// An id of the pool; none before it is taken.
    Pool(Option<PoolId>),
    /// A grant of the user's, counted when WeChat has taken the message.
    Counted,
    /// A grant of the user's that is counted already.
    Reserved,
}

/// An id of the pool, held by a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolId {
    /// The id itself.
    pub value: String,
    /// What produced it.
    pub kind: IdKind,
    /// Until when it is used.
    pub usable_until: DateTime<Utc>,
    /// Whether an earlier try with it was not answered: it may be used up, and then the message has arrived.
    pub is_doubtful: bool,
}

/// What the end of a flight means for what permitted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantNews {
    /// For the id that the message holds.
    Pool {
        /// The id itself.
        value: String,
        /// What becomes of it.
        fate: Fate,
    },
    /// For the user's account in the ledger.
    Ledger(Step),
}

/// What becomes of an id that a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// One use of it is over.
    Spent,
    /// It was not used: the next message may take it.
    Back,
    /// WeChat does not take it.
    Refused,
}

/// What is entered into the ledger for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One message less may be sent.
    Debit,
    /// One message more: what was taken was not used.
    Back,
    /// None may be sent: WeChat says that there is no grant.
    Zero,
}

/// A grant as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// An id of the pool.
    Id(PooledId),
    /// An account of the ledger.
    Subscription(Subscription),
}

/// An id of the pool as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PooledId {
    /// What produced it.
    pub kind: IdKind,
    /// Who produced it.
    pub openid: String,
    /// The id itself.
    pub value: String,
    /// How many messages it still permits.
    pub uses_left: u32,
    /// Whether a message holds it.
    pub is_held: bool,
    /// When it was produced.
    pub collected_at: DateTime<Utc>,
    /// Until when it is used.
    pub usable_until: DateTime<Utc>,
}

/// An account of the ledger: one user and one template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Who.
    pub openid: String,
    /// Which template.
    pub template_id: String,
    /// How many messages may be sent.
    pub remaining: u32,
    /// Whether sending leaves that as it is.
    pub long_term: bool,
    /// When the tenant last reported an acceptance.
    pub reported_at: Option<DateTime<Utc>>,
    /// When WeChat last told of one.
    pub confirmed_at: Option<DateTime<Utc>>,
    /// When the user last wanted no messages any more.
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

/// What a new message needs, as its row keeps it, in an app with this policy.
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

/// The policy that a message itself asked for.
pub(crate) fn asked_policy(code: i64) -> Option<GrantPolicy> {
    if code & ASKED_STRICT != 0 {
        Some(GrantPolicy::Strict)
    } else {
        (code & ASKED_OBSERVE != 0).then_some(GrantPolicy::Observe)
    }
}

impl Claimed {
    /// Until when WeChat itself refuses a second copy of what this message's id has sent.
    pub(super) fn pool_window(&self) -> Option<DateTime<Utc>> {
        let Permit::Pool(Some(id)) = &self.permit else {
            return None;
        };
        // A try before may have used another id.
        let is_first = id.is_doubtful || self.maybe_sent_at().is_none();
        (id.kind.uses() == 1 && is_first).then_some(id.usable_until)
    }

    /// What `event` means for what permitted this send; none: nothing.
    pub fn grant_news(&self, event: &Event) -> Option<GrantNews> {
        match &self.permit {
            Permit::Free | Permit::Pool(None) => None,
            Permit::Pool(Some(id)) => id.fate(event).map(|fate| GrantNews::Pool {
                value: id.value.clone(),
                fate,
            }),
            Permit::Counted => counted(event).map(GrantNews::Ledger),
            Permit::Reserved => reserved(event).map(GrantNews::Ledger),
        }
    }
}

impl PoolId {
    fn fate(&self, event: &Event) -> Option<Fate> {
        match event {
            Event::Answered(Verdict::Accepted { .. }) => Some(Fate::Spent),
            Event::Answered(
                Verdict::Later(Delay::AtOnce) | Verdict::Rejected(FailureCode::InvalidFormId),
            ) => Some(Fate::Refused),
            Event::Answered(Verdict::Unknown) | Event::LeaseEnded => {
                (self.kind.uses() > 1).then_some(Fate::Spent)
            }
            _ => (!self.is_doubtful).then_some(Fate::Back),
        }
    }
}

fn counted(event: &Event) -> Option<Step> {
    match event {
        Event::Answered(Verdict::Accepted { .. } | Verdict::Unknown) => Some(Step::Debit),
        Event::Answered(Verdict::Rejected(FailureCode::NoGrant)) => Some(Step::Zero),
        _ => None,
    }
}

fn reserved(event: &Event) -> Option<Step> {
    match event {
        Event::Answered(Verdict::Accepted { .. } | Verdict::Unknown) | Event::LeaseEnded => None,
        Event::Answered(Verdict::Rejected(FailureCode::NoGrant)) => Some(Step::Zero),
        _ => Some(Step::Back),
    }
}
