//! The engine: its tasks, and the verbs of the API on it.

mod waiting;

use std::{sync::Arc, time::Duration};

use broker::Broker;
use coord::Coord;
use domain::{
    app::AppId,
    id::{MessageId, TenantId},
    message::Draft,
    quota::Shares,
    seal::MasterKey,
};
use store::{IdempotencyKey, Listing, Message, MessageFilter, Origin, Page, Store, StoreError};
use tokio::sync::{Notify, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;
use wechat::{ForwardedAnswer, ForwardedCall};

use crate::{
    apps::Apps,
    callbacks::{Callbacks, ReceiptSweeper},
    changes::{ChangeError, Changes},
    dispatch::{Dispatcher, UNNOTICED},
    grants::{Counts, Grants},
    intake::Intake,
    janitor::Janitor,
    keeper::{Backlog, Keeper},
    metrics::Metrics,
    passage::{Passage, PassageError, Room},
    pulse::Pulse,
    quota::{QuotaReport, Quotas},
    recorder::Recorder,
    submit::{Accepted, AcceptedBatch, BatchItem, SubmitError},
    sweeper::Sweeper,
    templates::{Syncer, Templates},
    waiters::Waiters,
    webhooks::{Announcer, ShowMessage, Webhooks},
    worker::Worker,
};

/// What the engine is made of.
#[derive(Clone)]
pub struct Parts {
    /// The database.
    pub store: Store,
    /// What replicas agree on.
    pub coord: Coord,
    /// WeChat.
    pub wechat: wechat::Client,
    /// Access tokens.
    pub broker: Broker,
    /// Seals AppSecrets.
    pub master_key: MasterKey,
    /// Counters.
    pub metrics: Metrics,
    /// How a message is shown to webhooks.
    pub show_message: ShowMessage,
}

/// How the engine works.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Sends under way at the same time, over all apps.
    pub slots: usize,
    /// How long a claimed message is this replica's.
    pub lease: Duration,
    /// The longest that one send can take: the client's total time-out.
    pub send_timeout: Duration,
    /// How much of an app's quota each priority may use.
    pub shares: Shares,
    /// How long messages and the lines of the audit log are kept.
    pub retention: Retention,
    /// Whether webhooks may be in private networks, also without https.
    pub allow_private_webhooks: bool,
}

/// How long messages are kept after they have ended, and lines of the audit log after they were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// What became of them, with every attempt.
    pub messages: Duration,
    /// What was in them: the template's values, the page, the metadata. At most as long as the rest.
    pub payloads: Duration,
    /// The lines of the audit log.
    pub audit: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        let days = |days: u64| Duration::from_hours(24 * days);
        Self {
            messages: days(90),
            payloads: days(90),
            audit: days(400),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            slots: 1024,
            lease: Duration::from_mins(1),
            send_timeout: Duration::from_secs(5),
            shares: Shares::default(),
            retention: Retention::default(),
            allow_private_webhooks: false,
        }
    }
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The tenant has no such thing.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The database is at fault.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for DeliveryError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(what) => Self::NotFound(what),
            other => Self::Store(other),
        }
    }
}

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct Delivery(Arc<Inner>);

struct Inner {
    store: Store,
    intake: Intake,
    changes: Changes,
    waiters: Waiters,
    apps: Apps,
    quotas: Arc<Quotas>,
    callbacks: Callbacks,
    passage: Passage,
    templates: Templates,
    webhooks: Webhooks,
    grants: Grants,
    stop: CancellationToken,
    tasks: TaskTracker,
    pulse: Pulse,
    backlog: Backlog,
}

impl Delivery {
    /// Starts the engine's tasks. Refuses options that could send a message twice.
    pub fn start(parts: Parts, options: Options) -> Result<Self, StoreError> {
        check(&options)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let due = Arc::new(Notify::new());
        let (settled, settlements) = mpsc::channel(options.slots.max(1) * 2);

        let (intake, [small_intake, large_intake]) =
            Intake::new(&parts, options.shares, &due, &stop);
        let waiters = Waiters::new(parts.store.clone());
        let clock = parts.coord.clock().clone();
        let backlog = Backlog::new(parts.metrics.answers_waiting.clone());
        let recorder = Recorder::new(parts.clone(), due.clone(), options.lease);
        let recorder = Keeper::new(recorder, settlements, clock, backlog.clone());
        let quotas = Arc::new(Quotas::new(&parts, options.shares));
        let templates = Templates::new(&parts);
        let dispatcher = Dispatcher::new(
            &parts,
            &options,
            (quotas.clone(), templates.clone()),
            tasks.clone(),
            settled,
        );
        let worker = Worker::new(&parts, options, dispatcher, backlog.clone(), stop.clone());
        let sweeper = Sweeper::new(&parts, options.lease, due, stop.clone());
        let receipt_sweeper = ReceiptSweeper::new(&parts, stop.clone());
        let counts = Counts::new(&parts, tasks.clone(), stop.clone());
        let janitor = Janitor::new(&parts, options.retention, counts.clone(), stop.clone());
        let (callbacks, desk_loop) = Callbacks::new(&parts, stop.clone());
        let webhooks = Webhooks::new(&parts, options.allow_private_webhooks);
        let (announcer, announce_recorder) = Announcer::new(
            &parts,
            options.allow_private_webhooks,
            tasks.clone(),
            stop.clone(),
        )?;
        let syncer = Syncer::new(&parts, templates.clone(), stop.clone());
        let pulse = Pulse::new(tasks.clone(), stop.clone());
        pulse.spawn("intake", small_intake.run());
        pulse.spawn("intake of large batches", large_intake.run());
        pulse.spawn("callbacks", desk_loop.run());
        pulse.spawn("announcer", announcer.run());
        pulse.spawn("announcer's recorder", announce_recorder.run());
        pulse.spawn("recorder", recorder.run());
        pulse.spawn("worker", worker.run());
        pulse.spawn("sweeper", sweeper.run());
        pulse.spawn("sweeper of receipts", receipt_sweeper.run());
        pulse.spawn("janitor", janitor.run());
        pulse.spawn("syncer", syncer.run());
        pulse.spawn(
            "waiters",
            waiters.clone().listen(parts.coord.clone(), stop.clone()),
        );
        tasks.close();

        let passage = Passage::new(&parts);
        let grants = Grants::new(&parts, counts);
        let apps = Apps::new(
            parts.store.clone(),
            parts.coord.clone(),
            parts.broker.clone(),
            parts.master_key.clone(),
        );
        let changes = Changes::new(parts.clone(), options.shares);
        Ok(Self(Arc::new(Inner {
            store: parts.store,
            intake,
            changes,
            waiters,
            apps,
            quotas,
            callbacks,
            passage,
            templates,
            webhooks,
            grants,
            stop,
            tasks,
            pulse,
            backlog,
        })))
    }

    /// Accepts a message: when this returns, it is in the database and will be sent, or its tenant will be told
    /// why not. A dry run goes through the same checks and leaves nothing behind.
    pub async fn submit(
        &self,
        tenant: TenantId,
        appid: &AppId,
        draft: Draft,
        key: Option<IdempotencyKey>,
    ) -> Result<Accepted, SubmitError> {
        let span = tracing::debug_span!("intake", %appid);
        let taken = self.0.intake.submit(tenant, appid, draft, key);
        taken.instrument(span).await
    }

    /// Accepts a batch, each item by itself: when this returns, those that were accepted are in the database, all by
    /// one transaction.
    pub async fn submit_batch(
        &self,
        tenant: TenantId,
        appid: &AppId,
        items: Vec<BatchItem>,
        key: Option<IdempotencyKey>,
    ) -> Result<AcceptedBatch, SubmitError> {
        let span = tracing::debug_span!("intake", %appid, items = items.len());
        let taken = self.0.intake.submit_batch(tenant, appid, items, key);
        taken.instrument(span).await
    }

    /// Calls a message back that has not been sent. One that was called back before stays so.
    pub async fn cancel(&self, tenant: TenantId, id: MessageId) -> Result<Message, ChangeError> {
        self.0.changes.cancel(tenant, id).await
    }

    /// Puts an ended message into the queue again, with its whole ttl before it.
    pub async fn retry(
        &self,
        tenant: TenantId,
        id: MessageId,
        key: Option<IdempotencyKey>,
    ) -> Result<Accepted, ChangeError> {
        self.0.changes.retry(tenant, id, key).await
    }

    /// The tenant's message with this id; any tenant's for the platform.
    pub async fn message(
        &self,
        tenant: Option<TenantId>,
        id: MessageId,
    ) -> Result<Option<Message>, DeliveryError> {
        let found = match tenant {
            Some(tenant) => self.0.store.tenant(tenant).message(id).await,
            None => self.0.store.platform().message(id).await,
        };
        Ok(found?)
    }

    /// Messages of the tenant's app, newest first.
    pub async fn messages(
        &self,
        tenant: TenantId,
        appid: &AppId,
        filter: &MessageFilter,
        page: &Page,
    ) -> Result<Listing<Message>, DeliveryError> {
        let door = self.0.store.tenant(tenant);
        door.app(appid).await?;
        Ok(door.messages(appid, filter, page).await?)
    }

    /// How much of the app's day is used, as counted here and as WeChat says.
    pub async fn quota(
        &self,
        tenant: TenantId,
        appid: &AppId,
    ) -> Result<QuotaReport, DeliveryError> {
        self.0.quotas.report(tenant, appid).await
    }

    /// Room for a call of the tenant's that is passed on, with a body of so many bytes: taken before the body is read.
    pub async fn room(&self, tenant: TenantId, bytes: usize) -> Result<Room, PassageError> {
        self.0.passage.room(tenant, bytes).await
    }

    /// Makes a call of WeChat's that the gateway has no resource for, as the tenant's app. A POST, which may change
    /// something, is on record as `origin`'s.
    pub async fn forward(
        &self,
        room: Room,
        tenant: TenantId,
        appid: &AppId,
        call: &ForwardedCall,
        origin: &Origin,
    ) -> Result<ForwardedAnswer, PassageError> {
        self.0
            .passage
            .forward(room, tenant, appid, call, origin)
            .await
    }

    /// Asks WeChat who stands behind the code of a `wx.login()` in the tenant's mini-program.
    pub async fn sign_in(
        &self,
        tenant: TenantId,
        appid: &AppId,
        js_code: &str,
    ) -> Result<ForwardedAnswer, PassageError> {
        self.0.passage.sign_in(tenant, appid, js_code).await
    }

    /// Which task of the engine has died, if any: then the replica must be restarted.
    pub fn dead_task(&self) -> Option<&'static str> {
        self.0.pulse.dead()
    }

    /// Why the database does not take WeChat's answers at the moment, if it does not: they are kept, and nothing more is
    /// sent.
    pub fn refusal(&self) -> Option<String> {
        self.0.backlog.refusal()
    }

    /// The onboarding desk.
    pub fn apps(&self) -> &Apps {
        &self.0.apps
    }

    /// What WeChat pushes.
    pub fn callbacks(&self) -> &Callbacks {
        &self.0.callbacks
    }

    /// What is known of templates.
    pub fn templates(&self) -> &Templates {
        &self.0.templates
    }

    /// Whom tenants want to be told.
    pub fn webhooks(&self) -> &Webhooks {
        &self.0.webhooks
    }

    /// Who may be written to.
    pub fn grants(&self) -> &Grants {
        &self.0.grants
    }

    /// Stops: claims nothing more, waits for the sends under way and their records, at most until `deadline` is
    /// over. Returns whether everything was recorded; what was not is left to its lease.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.0.stop.cancel();
        tokio::time::timeout(deadline, self.0.tasks.wait())
            .await
            .is_ok()
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("tasks", &self.0.tasks.len())
            .finish_non_exhaustive()
    }
}

/// A lease must outlive anything a send can do, or two workers could hold one message.
fn check(options: &Options) -> Result<(), StoreError> {
    let longest = options.send_timeout * 2 + UNNOTICED;
    if options.slots == 0 {
        return Err(StoreError::Settings(
            "sending_slots must be at least 1".into(),
        ));
    }
    if options.lease <= longest {
        return Err(StoreError::Settings(format!(
            "the lease of {} s must be longer than a send and its repeat can take, with some seconds to spare ({} s)",
            options.lease.as_secs(),
            longest.as_secs()
        )));
    }
    Ok(())
}
