//! Receipts whose msgid no message has: of which message whose answer was lost they are.
//!
//! A send without an answer has no msgid, and its receipt is the only word about it that ever comes. It is that of an
//! `uncertain` message of the same app, user, channel and, where it names one, template, one of whose tries without an
//! answer was made about then. Where another message could be meant as well, it stays unsettled: one with such a try
//! too, one that WeChat took without naming its msgid, or one that is being sent. So does a message that two receipts fit.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Duration, Utc};
use domain::{
    lifecycle::Status,
    message::Channel,
    verdict::{Attempt, Outcome},
};
use sea_orm::{DbBackend, FromQueryResult};
use uuid::Uuid;

use super::{Circumstances, NewReceipt, write};
use crate::{
    PlatformStore, StoreError,
    messages::json,
    queue::{FLYING, choice::Person, sql::Sql, tell::Settled, unsent::MAYBE_SENT},
};

/// How many of a user's messages are looked at. Where there are more, a receipt settles none of them.
const MOST: usize = 64;
/// How long before the noted start of a try its receipt may have come: clocks differ.
const BEFORE: Duration = Duration::minutes(2);
/// How long after its end a receipt may come.
const AFTER: Duration = Duration::minutes(10);

/// The word that the database keeps a channel by.
pub(super) fn word(channel: Channel) -> &'static str {
    match channel {
        Channel::Subscribe => "subscribe",
        Channel::Template => "template",
        Channel::Official => "official",
    }
}

/// The channel of this word.
pub(super) fn channel(text: &str) -> Option<Channel> {
    [Channel::Subscribe, Channel::Template, Channel::Official]
        .into_iter()
        .find(|channel| word(*channel) == text)
}

/// The messages of users that receipts could be of. All of a user's are there, up to [`MOST`].
pub(super) type Rivals = HashMap<Person, Vec<Rival>>;

/// A message that a receipt could be of.
pub(super) struct Rival {
    id: Uuid,
    tenant: Uuid,
    template_id: String,
    /// How its content begins: with its channel.
    content: String,
    status: Option<Status>,
    is_flying: bool,
    has_msgid: bool,
    attempts: Vec<Attempt>,
}

#[derive(FromQueryResult)]
struct Row {
    id: Uuid,
    tenant_id: Uuid,
    appid: String,
    touser: String,
    template_id: String,
    content: String,
    status: String,
    phase: i64,
    msgid: Option<String>,
    attempts: Option<String>,
}

impl Row {
    fn read(self) -> Result<(Person, Rival), StoreError> {
        let attempts = self.attempts.as_deref().unwrap_or("[]");
        let rival = Rival {
            id: self.id,
            tenant: self.tenant_id,
            template_id: self.template_id,
            content: self.content,
            status: Status::parse(&self.status),
            is_flying: self.phase == FLYING,
            has_msgid: self.msgid.is_some(),
            attempts: json(attempts, "message.attempts")?,
        };
        Ok(((self.appid, self.touser), rival))
    }
}

impl Rival {
    /// Whether the receipt could be of this message, for all that it says.
    fn fits(&self, about: &Circumstances) -> bool {
        let channel = format!("{{\"channel\":\"{}\"", word(about.channel));
        let template = about.template_id.as_ref();
        self.content.starts_with(&channel)
            && template.is_none_or(|template| *template == self.template_id)
            && (self.is_flying || self.is_open(about))
    }

    /// Whether one of its tries about then may wait for a receipt that names a msgid which nobody has heard.
    fn is_open(&self, about: &Circumstances) -> bool {
        let then = |attempt: &&Attempt| {
            let started_at = attempt.started_at;
            let ended_at = started_at + Duration::milliseconds(attempt.duration_ms.cast_signed());
            (started_at - BEFORE..=ended_at + AFTER).contains(&about.happened_at)
        };
        let tries = |outcome: Outcome| {
            let of_outcome = move |attempt: &&Attempt| attempt.outcome == outcome;
            self.attempts.iter().filter(of_outcome)
        };
        let unnamed = !self.has_msgid && tries(Outcome::Accepted).any(|attempt| then(&attempt));
        // The msgid of a message that WeChat never answered is that of the receipt that has settled it.
        let is_explained = self.has_msgid
            && tries(Outcome::Accepted).next().is_none()
            && tries(Outcome::Unknown).count() == 1;
        unnamed || !is_explained && tries(Outcome::Unknown).any(|attempt| then(&attempt))
    }

    fn is_unsettled(&self) -> bool {
        self.status == Some(Status::Uncertain) && !self.has_msgid
    }
}

/// The one message that this receipt is of; none: there is no such message, or more than one could be.
fn likely<'a>(receipt: &NewReceipt, rivals: &'a Rivals) -> Option<&'a Rival> {
    let about = receipt.circumstances.as_ref()?;
    let person = (receipt.appid.as_str().to_owned(), receipt.touser.clone());
    let all = rivals.get(&person).filter(|all| all.len() < MOST)?;
    let own = all
        .iter()
        .filter(|rival| rival.tenant == receipt.tenant.uuid());
    let mut fitting = own.filter(|rival| rival.fits(about));
    let first = fitting.next()?;
    (first.is_unsettled() && fitting.next().is_none()).then_some(first)
}

impl PlatformStore {
    /// The messages that these receipts could be of.
    pub(super) async fn rivals(&self, receipts: &[NewReceipt]) -> Result<Rivals, StoreError> {
        let people: BTreeSet<(&str, &str)> = receipts
            .iter()
            .filter(|receipt| receipt.circumstances.is_some())
            .map(|receipt| (receipt.appid.as_str(), receipt.touser.as_str()))
            .collect();
        if people.is_empty() {
            return Ok(Rivals::new());
        }
        let connection = &self.store.read;
        let mut sql = Sql::new("WITH v(a, t) AS (");
        sql.rows(
            people
                .into_iter()
                .map(|(appid, touser)| [appid.into(), touser.into()]),
        );
        sql.push(&format!(
            ") SELECT m.id, m.tenant_id, m.appid, m.touser, m.template_id, SUBSTR(m.content, 1, 32) AS content, m.status, m.phase, m.msgid, \
             CASE WHEN m.{MAYBE_SENT} OR m.status = 'sent' AND m.msgid IS NULL THEN m.attempts END AS attempts FROM v "
        ));
        let newest = "SELECT n.* FROM message n WHERE n.appid = v.a AND n.touser = v.t ORDER BY n.id DESC LIMIT";
        if connection.get_database_backend() == DbBackend::Postgres {
            sql.push(&format!("CROSS JOIN LATERAL ({newest} {MOST}) AS m"));
        } else {
            let newest = newest.replace("n.*", "n.id");
            sql.push(&format!(
                "CROSS JOIN message m ON m.id IN ({newest} {MOST})"
            ));
        }
        // A receipt is for the app as it is: not for what a former owner sent.
        sql.push(" WHERE EXISTS (SELECT 1 FROM app WHERE app.appid = m.appid AND app.tenant_id = m.tenant_id)");
        let rows = Row::find_by_statement(sql.on(connection))
            .all(connection)
            .await?;
        let mut rivals = Rivals::new();
        for row in rows {
            let (person, rival) = row.read()?;
            rivals.entry(person).or_default().push(rival);
        }
        Ok(rivals)
    }

    /// Settles messages whose receipts those of `unmatched` most likely are, and takes those receipts out.
    pub(super) async fn settle_likely(
        &self,
        unmatched: &mut Vec<NewReceipt>,
        rivals: &Rivals,
        now: DateTime<Utc>,
    ) -> Result<Vec<Settled>, StoreError> {
        let mut found: BTreeMap<Uuid, Vec<&NewReceipt>> = BTreeMap::new();
        for receipt in &*unmatched {
            if let Some(rival) = likely(receipt, rivals) {
                found.entry(rival.id).or_default().push(receipt);
            }
        }
        found.retain(|_, receipts| receipts.len() == 1);
        let changes = found.iter().filter_map(|(id, receipts)| {
            let receipt = receipts.first()?;
            receipt.change(*id, Status::Uncertain, now)
        });
        let changes: Vec<_> = changes.collect();
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let tx = self.store.begin().await?;
        let settled = write(&tx, changes, now).await?;
        tx.commit().await?;
        let of = |one: &Settled| found.get(&one.id.uuid()).into_iter().flatten();
        let done: Vec<NewReceipt> = settled.iter().flat_map(of).copied().cloned().collect();
        unmatched.retain(|receipt| !done.contains(receipt));
        Ok(settled)
    }
}
