//! The engine: the tasks of this crate, and the operations that the API calls.

mod waiting;

use std::{sync::Arc, time::Duration};

use domain::{
    app::AppId,
    id::{MessageId, TenantId},
    message::Draft,
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
    dispatch::{Dispatcher, UNNOTICED_OUTAGE},
    error::DeliveryError,
    grants::{Counts, Grants},
    intake::Intake,
    janitor::Janitor,
    liveness::LivenessWatch,
    options::EngineOptions,
    parts::Parts,
    pass_through::{BodyMemory, PassThrough, PassThroughError},
    quota::{QuotaReport, QuotaReports},
    recorder::Recorder,
    retrying_writer::{Backlog, RetryingWriter},
    submit::{Accepted, AcceptedBatch, BatchItem, SubmitError},
    sweeper::Sweeper,
    templates::{Syncer, Templates},
    waiters::Waiters,
    webhooks::{Announcer, Webhooks},
    worker::Worker,
};

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct Delivery(Arc<Inner>);

struct Inner {
    store: Store,
    intake: Intake,
    changes: Changes,
    waiters: Waiters,
    apps: Apps,
    quotas: Arc<QuotaReports>,
    callbacks: Callbacks,
    passage: PassThrough,
    templates: Templates,
    webhooks: Webhooks,
    grants: Grants,
    stop: CancellationToken,
    tasks: TaskTracker,
    liveness: LivenessWatch,
    backlog: Backlog,
}

impl Delivery {
    /// Starts the engine's tasks. Refuses options under which a message could be sent twice.
    pub fn start(parts: Parts, options: EngineOptions) -> Result<Self, StoreError> {
        check(&options)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let due = Arc::new(Notify::new());
        let (settled, settlements) = mpsc::channel(options.slots.max(1) * 2);

        let (intake, [small_intake, large_intake]) =
            Intake::new(&parts, options.shares, &due, &stop);
        let waiters = Waiters::new(parts.store.clone());
        let (store, coord) = (&parts.store, &parts.coord);
        let clock = coord.clock();
        let backlog = Backlog::new(parts.metrics.answers_waiting.clone());
        let recorder = Recorder::new(parts.clone(), due.clone(), options.lease);
        let recorder = RetryingWriter::new(recorder, settlements, clock.clone(), backlog.clone());
        let quotas = Arc::new(QuotaReports::new(&parts, options.shares));
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
        let counts = Counts::new(store.clone(), clock.clone(), tasks.clone(), stop.clone());
        let janitor = Janitor::new(
            store.clone(),
            clock.clone(),
            options.retention,
            counts.clone(),
            stop.clone(),
        );
        let (callbacks, writer_loop) = Callbacks::new(&parts, stop.clone());
        let webhooks = Webhooks::new(
            store.clone(),
            coord.clone(),
            parts.master_key.clone(),
            options.allow_private_webhooks,
        );
        let (announcer, announce_recorder) = Announcer::new(
            &parts,
            options.allow_private_webhooks,
            tasks.clone(),
            stop.clone(),
        )?;
        let syncer = Syncer::new(
            store.clone(),
            coord.clone(),
            templates.clone(),
            stop.clone(),
        );
        let liveness = LivenessWatch::new(tasks.clone(), stop.clone());
        liveness.spawn("intake", small_intake.run());
        liveness.spawn("intake of large batches", large_intake.run());
        liveness.spawn("callbacks", writer_loop.run());
        liveness.spawn("announcer", announcer.run());
        liveness.spawn("announcer's recorder", announce_recorder.run());
        liveness.spawn("recorder", recorder.run());
        liveness.spawn("worker", worker.run());
        liveness.spawn("sweeper", sweeper.run());
        liveness.spawn("sweeper of receipts", receipt_sweeper.run());
        liveness.spawn("janitor", janitor.run());
        liveness.spawn("syncer", syncer.run());
        liveness.spawn(
            "waiters",
            waiters.clone().listen(coord.clone(), stop.clone()),
        );
        tasks.close();

        let passage = PassThrough::new(&parts);
        let grants = Grants::new(store.clone(), clock.clone(), counts);
        let apps = Apps::new(
            store.clone(),
            coord.clone(),
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
            liveness,
            backlog,
        })))
    }

    /// Accepts a message. When this returns, the message is in the database and will be sent, or will end with a reason
    /// that the tenant can read. A dry run passes the same checks and writes nothing.
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

    /// Accepts a batch, each item on its own. When this returns, the accepted items are in the database, written by one
    /// transaction.
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

    /// Cancels a message that has not been sent. A message that is canceled already stays canceled.
    pub async fn cancel(&self, tenant: TenantId, id: MessageId) -> Result<Message, ChangeError> {
        self.0.changes.cancel(tenant, id).await
    }

    /// Puts an ended message into the queue again, with its whole ttl.
    pub async fn retry(
        &self,
        tenant: TenantId,
        id: MessageId,
        key: Option<IdempotencyKey>,
    ) -> Result<Accepted, ChangeError> {
        self.0.changes.retry(tenant, id, key).await
    }

    /// The tenant's message with this id. `None` as tenant: a message of any tenant, for the platform.
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

    /// The messages of the tenant's app, newest first.
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

    /// The use of the app's daily quota, as the gateway and as WeChat count.
    pub async fn quota(
        &self,
        tenant: TenantId,
        appid: &AppId,
    ) -> Result<QuotaReport, DeliveryError> {
        self.0.quotas.report(tenant, appid).await
    }

    /// Reserves memory for a pass-through call of the tenant with a body of `bytes` bytes, before the body is read.
    pub async fn room(
        &self,
        tenant: TenantId,
        bytes: usize,
    ) -> Result<BodyMemory, PassThroughError> {
        self.0.passage.room(tenant, bytes).await
    }

    /// Makes a call to WeChat that the gateway has no resource for, as the tenant's app. A POST may change data, so the
    /// audit log names `origin` for each POST.
    pub async fn forward(
        &self,
        room: BodyMemory,
        tenant: TenantId,
        appid: &AppId,
        call: &ForwardedCall,
        origin: &Origin,
    ) -> Result<ForwardedAnswer, PassThroughError> {
        self.0
            .passage
            .forward(room, tenant, appid, call, origin)
            .await
    }

    /// Asks WeChat for the user behind the code of a `wx.login()` in the tenant's mini-program.
    pub async fn sign_in(
        &self,
        tenant: TenantId,
        appid: &AppId,
        js_code: &str,
    ) -> Result<ForwardedAnswer, PassThroughError> {
        self.0.passage.sign_in(tenant, appid, js_code).await
    }

    /// The name of a task of the engine that has died. If there is one, the replica must be restarted.
    pub fn dead_task(&self) -> Option<&'static str> {
        self.0.liveness.dead()
    }

    /// Why the database does not take WeChat's answers at the moment. Meanwhile the answers are kept and nothing
    /// more is sent. `None`: the database takes the answers.
    pub fn refusal(&self) -> Option<String> {
        self.0.backlog.refusal()
    }

    /// Registers, changes and removes apps.
    pub fn apps(&self) -> &Apps {
        &self.0.apps
    }

    /// Processes WeChat's callbacks.
    pub fn callbacks(&self) -> &Callbacks {
        &self.0.callbacks
    }

    /// The templates of apps.
    pub fn templates(&self) -> &Templates {
        &self.0.templates
    }

    /// The webhook endpoints of tenants.
    pub fn webhooks(&self) -> &Webhooks {
        &self.0.webhooks
    }

    /// The grants: form-id pool and subscription ledger.
    pub fn grants(&self) -> &Grants {
        &self.0.grants
    }

    /// Stops: claims nothing more, then waits at most `deadline` for the messages in flight and their records. Returns
    /// whether everything was recorded. A message that was not recorded stays claimed until its lease ends.
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

/// A lease must be longer than a send and its repeat, or two workers could hold one message.
fn check(options: &EngineOptions) -> Result<(), StoreError> {
    let longest = options.send_timeout * 2 + UNNOTICED_OUTAGE;
    if options.slots == 0 {
        return Err(StoreError::Settings(
            "sending_slots must be at least 1".into(),
        ));
    }
    if options.lease <= longest {
        return Err(StoreError::Settings(format!(
            "the lease of {} s must be longer than a send, its repeat and a margin of some seconds ({} s)",
            options.lease.as_secs(),
            longest.as_secs()
        )));
    }
    Ok(())
}
