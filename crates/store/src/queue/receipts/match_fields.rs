//! Finds the message of a receipt with a msgid that no message has: a message with a lost answer.
//!
//! A send without an answer has no msgid, and the receipt is the only report about that send that ever comes. The
//! receipt belongs to an `uncertain` message of the same app, recipient, channel and, if the receipt names one,
//! template, with an unanswered attempt at about that time. The receipt settles nothing if another message could be
//! meant as well: one with such an attempt too, one that WeChat accepted without a msgid, or one in flight. A message
//! that two receipts fit is not settled either.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Duration, Utc};
use domain::{
    lifecycle::Status,
    message::Channel,
    verdict::{Attempt, Outcome},
};
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult};
use uuid::Uuid;

use super::{MatchFields, NewReceipt, write};
use crate::{
    PlatformStore, StoreError,
    messages::json,
    queue::{IN_FLIGHT, choice::Recipient, events::Settled, sql::Sql, unsent::MAYBE_SENT},
};

/// The most messages of a recipient that are examined. If there are more, a receipt settles none of them.
const MOST: usize = 64;
/// How long before the recorded start of an attempt the receipt's time may be, because clocks differ.
const BEFORE: Duration = Duration::minutes(2);
/// How long after the end of an attempt the receipt's time may be.
const AFTER: Duration = Duration::minutes(10);

/// The database's word for a channel.
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

/// The messages, by recipient, to which receipts could belong. Contains all messages of a recipient, up to [`MOST`].
pub(super) type PossibleMessages = HashMap<Recipient, Vec<PossibleMessage>>;

/// A message to which a receipt could belong.
pub(super) struct PossibleMessage {
    id: Uuid,
    tenant: Uuid,
    template_id: String,
    /// The beginning of the content, which names the channel.
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
    fn read(self) -> Result<(Recipient, PossibleMessage), StoreError> {
        let attempts = self.attempts.as_deref().unwrap_or("[]");
        let rival = PossibleMessage {
            id: self.id,
            tenant: self.tenant_id,
            template_id: self.template_id,
            content: self.content,
            status: Status::parse(&self.status),
            is_flying: self.phase == IN_FLIGHT,
            has_msgid: self.msgid.is_some(),
            attempts: json(attempts, "message.attempts")?,
        };
        Ok(((self.appid, self.touser), rival))
    }
}

impl PossibleMessage {
    /// Whether the receipt could belong to this message, by all fields of the receipt.
    fn fits(&self, about: &MatchFields) -> bool {
        let channel = format!("{{\"channel\":\"{}\"", word(about.channel));
        let template = about.template_id.as_ref();
        self.content.starts_with(&channel)
            && template.is_none_or(|template| *template == self.template_id)
            && (self.is_flying || self.is_open(about))
    }

    /// Whether an attempt at about the receipt's time may still wait for a receipt with an unknown msgid.
    fn is_open(&self, about: &MatchFields) -> bool {
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
        // If WeChat never answered a message, a msgid of the message comes from the receipt that settled the message.
        let is_explained = self.has_msgid
            && tries(Outcome::Accepted).next().is_none()
            && tries(Outcome::Unknown).count() == 1;
        unnamed || !is_explained && tries(Outcome::Unknown).any(|attempt| then(&attempt))
    }

    fn is_unsettled(&self) -> bool {
        self.status == Some(Status::Uncertain) && !self.has_msgid
    }
}

/// The one message to which this receipt belongs. `None` if there is no such message, or if more than one is possible.
fn likely<'a>(receipt: &NewReceipt, rivals: &'a PossibleMessages) -> Option<&'a PossibleMessage> {
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
    /// The messages to which these receipts could belong.
    pub(super) async fn rivals(
        &self,
        receipts: &[NewReceipt],
    ) -> Result<PossibleMessages, StoreError> {
        let people: BTreeSet<(&str, &str)> = receipts
            .iter()
            .filter(|receipt| receipt.circumstances.is_some())
            .map(|receipt| (receipt.appid.as_str(), receipt.touser.as_str()))
            .collect();
        if people.is_empty() {
            return Ok(PossibleMessages::new());
        }
        let connection = self.store.read();
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
        // A receipt belongs to the app's present owner, not to messages of a former owner.
        sql.push(" WHERE EXISTS (SELECT 1 FROM app WHERE app.appid = m.appid AND app.tenant_id = m.tenant_id)");
        let rows = Row::find_by_statement(sql.on(connection))
            .all(connection)
            .await?;
        let mut rivals = PossibleMessages::new();
        for row in rows {
            let (person, rival) = row.read()?;
            rivals.entry(person).or_default().push(rival);
        }
        Ok(rivals)
    }

    /// Settles the messages to which receipts in `unmatched` most likely belong, and removes these receipts from
    /// `unmatched`.
    pub(super) async fn settle_likely(
        &self,
        unmatched: &mut Vec<NewReceipt>,
        rivals: &PossibleMessages,
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
        let tx = self.store.begin_batch().await?;
        let settled = write(&tx, changes, now).await?;
        tx.commit().await?;
        let of = |one: &Settled| found.get(&one.id.uuid()).into_iter().flatten();
        let done: Vec<NewReceipt> = settled.iter().flat_map(of).copied().cloned().collect();
        unmatched.retain(|receipt| !done.contains(receipt));
        Ok(settled)
    }
}
