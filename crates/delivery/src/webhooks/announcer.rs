//! The announcer: posts events about messages to tenants' endpoints.
//!
//! The announcer claims due deliveries, posts each delivery, and records the outcomes in batches. An endpoint gets
//! every event at least once: if a replica dies between the post and its record, the delivery is due again when its
//! lease ends. Receivers recognise repeats by `webhook-id`.
//!
//! Every 30 seconds the announcer of each replica compares the lanes with the marks of `app.quota_warning`: 80 and 95 %
//! of the daily quota. The id of the event consists of the app, the mark and the day, so the first replica writes the
//! event and the others write nothing.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, SecondsFormat, Utc};
use domain::{
    seal::SealOwner,
    secret::WebhookSecret,
    webhook::{EventType, next_try},
};
use serde::Serialize;
use serde_json::Value;
use store::{DeliveryNext, DeliveryOutcome, DueDelivery, EventContent, OutboxRequest, StoreError};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use super::{
    client::{DeliveryRequest, PostResult, WebhookClient},
    slots::{HeldSlot, PostSlots},
};
use crate::{
    parts::Parts,
    retrying_writer::{Backlog, RetryingWriter, Writer},
    topic,
};

/// Posts in progress at the same time, over all endpoints of this replica. A tenant gets at most a quarter of what
/// the others leave.
const SLOTS: usize = 128;
/// Posts to one endpoint in progress at the same time, over all replicas.
const EACH: usize = 8;
/// How long a claimed delivery is reserved for this replica: several times what a post can take.
const LEASE: Duration = Duration::from_mins(1);
/// How often an idle announcer looks for deliveries without a wake-up.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long the announcer gathers more events after a wake-up by messages: the shortest interval between claims while
/// messages flow.
const GATHER: Duration = Duration::from_millis(50);
/// The longest wait, as a multiple of [`GATHER`], after repeated wake-ups by messages without any delivery.
const MOST_GATHER: u32 = 10;
/// The wait after a failure of the database.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Replaces a text of an endpoint that could not be recorded.
const UNRECORDED: &str = "the endpoint's text cannot be recorded";
/// The interval of the checks of quotas.
const QUOTA_ROUND: Duration = Duration::from_secs(30);
/// The version of the payload's shape.
const VERSION: u8 = 1;

/// The body of a post to an endpoint.
#[derive(Serialize)]
struct EventPayload<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    version: u8,
    /// When the event happened.
    timestamp: String,
    data: Value,
}

/// Claims deliveries and posts events.
pub(crate) struct Announcer {
    poster: Arc<Poster>,
    slots: PostSlots,
    recorded: Arc<Notify>,
    outcomes: mpsc::Sender<Posted>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Writes the outcomes of posts.
pub(crate) struct AnnounceRecorder {
    parts: Parts,
    recorded: Arc<Notify>,
}

/// The outcome of one post. The slot is free when the outcome is recorded.
pub(crate) struct Posted {
    outcome: DeliveryOutcome,
    _slot: HeldSlot,
}

/// The result of a claim.
struct ClaimStep {
    /// There was nothing to post.
    is_empty: bool,
    /// There may be more to post right now.
    more: bool,
}

struct Poster {
    parts: Parts,
    post: WebhookClient,
}

impl Announcer {
    /// The announcer and its recorder.
    pub(crate) fn new(
        parts: &Parts,
        allow_private: bool,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Result<(Self, RetryingWriter<AnnounceRecorder>), StoreError> {
        let (outcomes, posted) = mpsc::channel(SLOTS * 2);
        let recorded = Arc::new(Notify::new());
        let poster = Poster {
            parts: parts.clone(),
            post: WebhookClient::new(allow_private)?,
        };
        let recorder = AnnounceRecorder {
            parts: parts.clone(),
            recorded: recorded.clone(),
        };
        let clock = parts.coord.clock().clone();
        let backlog = Backlog::new(parts.metrics.posts_waiting.clone());
        let recorder = RetryingWriter::new(recorder, posted, clock, backlog);
        let announcer = Self {
            poster: Arc::new(poster),
            slots: PostSlots::new(SLOTS),
            recorded,
            outcomes,
            tasks,
            stop,
        };
        Ok((announcer, recorder))
    }

    /// Runs until stopped. Posts in progress are finished.
    pub(crate) async fn run(self) {
        let coord = self.poster.parts.coord.clone();
        let mut ended = coord.wakeups().subscribe(topic::ENDED);
        let mut told = coord.wakeups().subscribe(topic::WEBHOOKS);
        let mut cursor = Uuid::nil();
        let mut quota_at = coord.clock().elapsed();
        let mut round_has_more = false;
        // The number of consecutive claims that messages caused and that found nothing, and whether messages caused the
        // next.
        let (mut in_vain, mut by_messages) = (0u32, false);
        loop {
            let free = async {
                let permits = self.slots.free().await;
                coord.clock().right().await;
                permits
            };
            let permits = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                permits = free => permits,
            };
            let Some(permits) = permits else { return };
            let now = coord.clock().now();
            let stepped = async {
                if coord.clock().elapsed() >= quota_at {
                    quota_at = coord.clock().elapsed() + QUOTA_ROUND;
                    self.poster.parts.store.platform().warn_quotas(now).await?;
                }
                self.step(&mut cursor, permits, now).await
            };
            match stepped.await {
                Ok(step) => {
                    let asked = u32::from(std::mem::take(&mut by_messages));
                    in_vain = if step.is_empty { in_vain + asked } else { 0 };
                    round_has_more |= step.more;
                    if !cursor.is_nil() || std::mem::take(&mut round_has_more) {
                        continue;
                    }
                    tokio::select! {
                        () = ended.notified() => {
                            by_messages = true;
                            let pause = GATHER * in_vain.clamp(1, MOST_GATHER);
                            tokio::select! {
                                () = tokio::time::sleep(pause) => {}
                                () = told.notified() => {}
                                () = self.recorded.notified() => {}
                                () = self.stop.cancelled() => return,
                            }
                        }
                        () = told.notified() => {}
                        () = self.recorded.notified() => {}
                        () = coord.clock().sleep(LOOK_AGAIN) => {}
                        () = self.stop.cancelled() => return,
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "cannot claim webhook deliveries");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Makes one claim and posts the deliveries.
    async fn step(
        &self,
        cursor: &mut Uuid,
        mut permits: OwnedSemaphorePermit,
        now: DateTime<Utc>,
    ) -> Result<ClaimStep, StoreError> {
        let request = OutboxRequest {
            slots: self.slots.with_free(permits.num_permits()),
            each: EACH,
            cursor: std::mem::take(cursor),
            lease: rand::random(),
            lease_until: now + LEASE,
        };
        let platform = self.poster.parts.store.platform();
        let claim = platform.claim_deliveries(&request, now).await?;
        *cursor = claim.cursor;
        let is_empty = claim.due.is_empty();
        for due in claim.due {
            let Some(permit) = permits.split(1) else {
                break;
            };
            let slot = self.slots.give(permit, due.tenant, due.failing);
            let (poster, outcomes) = (self.poster.clone(), self.outcomes.clone());
            self.tasks.spawn(async move {
                let Some(outcome) = poster.deliver(due).await else {
                    return;
                };
                let posted = Posted {
                    outcome,
                    _slot: slot,
                };
                // Fails when the recorder has ended. The delivery is due again when its lease ends.
                let _ = outcomes.send(posted).await;
            });
        }
        Ok(ClaimStep {
            is_empty,
            more: claim.more,
        })
    }
}

impl Writer for AnnounceRecorder {
    type Item = Posted;
    const ITEMS: &'static str = "outcomes of webhook posts";

    async fn write(&self, items: &mut Vec<Posted>) -> Result<(), StoreError> {
        let outcomes: Vec<DeliveryOutcome> =
            items.iter().map(|posted| posted.outcome.clone()).collect();
        let now = self.parts.coord.clock().now();
        let platform = self.parts.store.platform();
        for one in platform.record_deliveries(&outcomes, now).await? {
            tracing::warn!(webhook = %one.webhook, tenant = %one.tenant, reason = one.reason, "webhook disabled");
        }
        for one in &outcomes {
            self.parts.metrics.told(word(&one.next));
        }
        items.clear();
        self.recorded.notify_one();
        Ok(())
    }

    fn strip(&self, item: &mut Posted) -> bool {
        let outcome = &mut item.outcome;
        let had_excerpt = outcome.response_excerpt.take().is_some();
        let unrecorded = |error: &mut String| {
            let is_other = error != UNRECORDED;
            UNRECORDED.clone_into(error);
            is_other
        };
        had_excerpt | outcome.error.as_mut().is_some_and(unrecorded)
    }

    fn name(&self, item: &Posted) -> String {
        item.outcome.event.to_string()
    }

    /// Does nothing: the endpoint may get the event again when the lease ends, and recognises the repeat by the id.
    async fn hold(&self, _: &Posted) -> Result<(), StoreError> {
        Ok(())
    }
}

fn word(next: &DeliveryNext) -> &'static str {
    match next {
        DeliveryNext::Delivered => "delivered",
        DeliveryNext::Later(_) => "retry",
        DeliveryNext::Failed => "failed",
        DeliveryNext::Gone => "gone",
    }
}

impl Poster {
    /// One attempt. `None`: the attempt could not be made, and the delivery is due again when its lease ends.
    async fn deliver(&self, due: DueDelivery) -> Option<DeliveryOutcome> {
        let event = due.event.to_string();
        let began = self.parts.coord.clock().now();
        let answer = match self.data(&due).await {
            Ok(Some(data)) => self.post(&due, &event, data).await?,
            Ok(None) => {
                let error = "the message has been deleted, so the event has no content";
                return Some(outcome(
                    &due,
                    PostResult::broken(error.to_owned()),
                    DeliveryNext::Failed,
                ));
            }
            Err(error) => {
                tracing::error!(event, %error, "cannot read the subject of a webhook delivery");
                return None;
            }
        };
        let now = self.parts.coord.clock().now();
        let next = if answer.error.is_none() {
            DeliveryNext::Delivered
        } else if answer.status == Some(410) {
            DeliveryNext::Gone
        } else if due.kind == EventType::WebhookTest {
            DeliveryNext::Failed
        } else {
            let again = next_try(
                due.retry_from,
                began,
                now,
                due.attempt,
                answer.retry_after,
                rand::random(),
            );
            again.map_or(DeliveryNext::Failed, DeliveryNext::Later)
        };
        Some(outcome(&due, answer, next))
    }

    /// The `data` of the payload. A message is shown as of the time of the event.
    async fn data(&self, due: &DueDelivery) -> Result<Option<Value>, StoreError> {
        match (&due.facts, due.message) {
            (EventContent::Message(facts), Some(id)) => {
                let door = self.parts.store.tenant(due.tenant);
                let Some(mut message) = door.message(id).await? else {
                    return Ok(None);
                };
                facts.apply(&mut message)?;
                Ok(Some((self.parts.show_message)(message)))
            }
            (EventContent::Message(_), None) => Ok(None),
            (EventContent::Data(data), _) => Ok(Some(data.clone())),
        }
    }

    async fn post(&self, due: &DueDelivery, event: &str, data: Value) -> Option<PostResult> {
        let payload = EventPayload {
            id: event,
            kind: due.kind.as_str(),
            version: VERSION,
            timestamp: due.created_at.to_rfc3339_opts(SecondsFormat::Millis, true),
            data,
        };
        let owner = SealOwner::webhook_secret(due.tenant, due.webhook);
        let mut secrets = Vec::with_capacity(due.secrets_sealed.len());
        for sealed in &due.secrets_sealed {
            match self.parts.master_key.open(&owner, sealed) {
                Ok(secret) => secrets.push(WebhookSecret::new(secret.as_str())),
                Err(error) => {
                    tracing::error!(webhook = %due.webhook, %error, "a webhook secret cannot be decrypted");
                }
            }
        }
        if secrets.is_empty() {
            let error = "the endpoint's secret cannot be decrypted: rotate the secret".to_owned();
            return Some(PostResult::broken(error));
        }
        let body = serde_json::to_vec(&payload)
            .inspect_err(|error| tracing::error!(event, %error, "a webhook payload cannot be written as JSON"))
            .ok()?;
        let letter = DeliveryRequest {
            url: &due.url,
            event,
            secrets: &secrets,
            body,
            at: self.parts.coord.clock().now(),
        };
        Some(self.post.send(letter).await)
    }
}

fn outcome(due: &DueDelivery, answer: PostResult, next: DeliveryNext) -> DeliveryOutcome {
    DeliveryOutcome {
        webhook: due.webhook,
        event: due.event,
        lease: due.lease,
        next,
        response_status: answer.status,
        response_excerpt: answer.excerpt,
        error: answer.error,
    }
}
