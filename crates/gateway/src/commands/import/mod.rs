//! `wxgate import`: sends a file of messages, each message once however often the command runs.
//!
//! Every message has an idempotency key made from the appid, the template, the name of the import, the content of the
//! line, and the number of the copy where the file contains the line more than once. A second run therefore finds the
//! messages of the first run, waits for their end, and submits only the missing messages. The fingerprint of the key is
//! the digest that the key contains.

mod arguments;
mod lines;
mod progress;
mod rejects;
mod report;
mod table;
mod text;

use std::{
    collections::{HashMap, VecDeque},
    process::ExitCode,
    time::Duration,
};

use chrono::{DateTime, Utc};
use coord::Clock;
use delivery::{Accepted, Delivery, DeliveryError, SubmitError};
use domain::{
    app::AppId,
    id::{MessageId, TenantId},
    lifecycle::Status,
    message::{Draft, Request, Unfit},
};
use sha2::{Digest, Sha256};
use store::{App, IdempotencyKey, Message};
use tokio::task::JoinSet;

pub(crate) use self::arguments::Arguments;
use self::{lines::Fill, progress::Progress, rejects::Rejects, report::Report};
use super::{CommandContext, Signals};
use crate::{failure::Failure, output::Output, settings::Settings};

/// The largest number of simultaneous submissions: enough to fill the transactions of intake.
const AT_ONCE: usize = 512;
/// The lifetime of a message's idempotency key: a second run within this time sends no message twice.
const KEPT_FOR: Duration = Duration::from_hours(30 * 24);
/// The longest single wait for the end of a message.
const LOOK: Duration = Duration::from_secs(30);

/// Sends the file, as a replica while the import lasts.
pub(crate) async fn run(
    settings: &Settings,
    output: Output,
    arguments: Arguments,
) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let (form, content) = (arguments.form()?, arguments.content()?);
    let fill = Fill {
        template_id: arguments.template.clone(),
        priority: arguments.priority,
        ttl: arguments.ttl,
    };
    // Reads the whole file before the first message is sent, so that an invalid file is refused.
    let total = lines::read(form, &content.text, &fill)?.count();
    let rejects = arguments.rejects.clone().map(Rejects::create).transpose()?;
    let context = CommandContext::open(settings).await?;
    let app = context.store.platform().app(&arguments.appid).await?;
    let pause = pause(&app, context.clock.now());
    if let Some(pause) = &pause {
        output.note(pause)?;
    }
    let mut report = Report::of(content.encoding, pause);
    let sending = context.sending()?;
    let import = Import {
        delivery: sending.delivery.clone(),
        clock: context.clock.clone(),
        tenant: app.tenant,
        digest: digest(&arguments),
        appid: arguments.appid,
    };
    let lines = lines::read(form, &content.text, &fill)?;
    let progress = Progress::new(output, total);
    let work = async {
        if arguments.check {
            import.look(lines, &mut report, progress).await;
            return Ok(());
        }
        import
            .work(lines, &mut report, progress, !arguments.no_wait)
            .await
    };
    let worked = tokio::select! {
        worked = work => worked,
        () = signals.stop() => Err(Failure::new(
            "interrupted",
            "interrupted: messages in the queue stay there, and a running gateway sends them; run the command again to continue",
        )),
    };
    sending.stop(settings.shutdown_timeout).await;
    context.close().await;
    if let Some(rejects) = rejects {
        if worked.is_err() {
            rejects.discard()?;
        } else {
            let lines = lines::read(form, &content.text, &fill)?;
            let head = lines::head(form, &content.text);
            rejects.write(head, lines, &report.refused_lines())?;
        }
    }
    worked?;
    report.tell(output)
}

/// A note about an app that is paused.
fn pause(app: &App, now: DateTime<Utc>) -> Option<String> {
    let pause = app.pause.as_ref().filter(|pause| pause.until > now)?;
    let appid = &app.appid;
    let detail = pause.detail.as_deref().unwrap_or_default();
    Some(format!(
        "{appid} is paused ({} {detail}): its messages wait in the queue, within their ttl; repair the cause, then run `wxgate app verify {appid}` to end the pause at once",
        pause.reason
    ))
}

/// The digest of the import. Equal lines in imports with different digests are different messages.
fn digest(arguments: &Arguments) -> [u8; 32] {
    let mut hash = Sha256::new();
    for word in [
        arguments.appid.as_str(),
        &arguments.template,
        &arguments.name,
    ] {
        hash.update(word.len().to_be_bytes());
        hash.update(word);
    }
    hash.finalize().into()
}

/// The identities of the messages of an import.
struct Identities {
    import: [u8; 32],
    /// The number of occurrences of each message so far.
    met: HashMap<[u8; 32], u64>,
}

impl Identities {
    /// The idempotency key of the next message with this identity.
    fn key(&mut self, identity: &[u8]) -> IdempotencyKey {
        let message = Sha256::new()
            .chain_update(self.import)
            .chain_update(identity)
            .finalize()
            .into();
        let copy = self.met.entry(message).or_default();
        *copy += 1;
        IdempotencyKey {
            // The key contains blanks, which keys of requests cannot contain.
            key: format!("import {} {copy}", hex::encode(message)),
            fingerprint: message,
            kept_for: KEPT_FOR,
        }
    }
}

struct Import {
    delivery: Delivery,
    clock: Clock,
    tenant: TenantId,
    appid: AppId,
    digest: [u8; 32],
}

/// A message that is in the queue.
struct TakenLine {
    line: u64,
    id: MessageId,
    scheduled: bool,
}

impl Import {
    async fn work(
        &self,
        lines: lines::Lines<'_>,
        report: &mut Report,
        mut progress: Progress,
        wait: bool,
    ) -> Result<(), Failure> {
        let taken = self.hand_in(lines, report, &mut progress).await?;
        if wait {
            self.wait(taken, report, &mut progress).await?;
        }
        progress.end();
        Ok(())
    }

    /// Checks every line in the same way as a send, and sends nothing.
    async fn look(&self, lines: lines::Lines<'_>, report: &mut Report, mut progress: Progress) {
        for lines::Line {
            number, request, ..
        } in lines
        {
            report.check();
            match request {
                Err(reason) => report.refuse(number, reason),
                Ok(request) => match self.check(request).await {
                    Ok(mut draft) => report.warn(number, std::mem::take(&mut draft.warnings)),
                    Err(unfit) => {
                        let words = Failure::violations(&unfit.violations).message;
                        report.refuse(number, words);
                    }
                },
            }
            progress.step("checked");
        }
        progress.end();
    }

    /// Submits every line that is not in the queue yet.
    async fn hand_in(
        &self,
        lines: lines::Lines<'_>,
        report: &mut Report,
        progress: &mut Progress,
    ) -> Result<VecDeque<TakenLine>, Failure> {
        let mut under_way = JoinSet::new();
        let mut taken = VecDeque::new();
        let mut identities = Identities {
            import: self.digest,
            met: HashMap::new(),
        };
        for line in lines {
            let lines::Line {
                number,
                identity,
                request,
                ..
            } = line;
            report.check();
            while under_way.len() >= AT_ONCE {
                settle(&mut under_way, &mut taken, report, progress).await?;
            }
            let checked = match request {
                Ok(request) => Ok(self.check(request).await),
                Err(reason) => Err(reason),
            };
            match checked {
                Ok(mut checked) => {
                    if let Ok(draft) = &mut checked {
                        report.warn(number, std::mem::take(&mut draft.warnings));
                    }
                    let key = identities.key(&identity);
                    under_way.spawn(self.submit(number, key, checked));
                }
                Err(reason) => {
                    report.refuse(number, reason);
                    progress.step("in the queue");
                }
            }
        }
        while !under_way.is_empty() {
            settle(&mut under_way, &mut taken, report, progress).await?;
        }
        Ok(taken)
    }

    async fn check(&self, request: Request) -> Result<Draft, Unfit> {
        let (channel, id) = (request.channel, request.template_id.clone());
        let templates = self.delivery.templates();
        let wanted = [(channel, id.as_str())];
        let catalog = templates.catalog(self.tenant, &self.appid, wanted).await;
        let template = catalog.look_up(channel, &id);
        request.check_against(self.clock.now(), template, catalog.value_rules())
    }

    /// Submits one message, and repeats the submission while intake is overloaded.
    fn submit(
        &self,
        line: u64,
        key: IdempotencyKey,
        checked: Result<Draft, Unfit>,
    ) -> impl Future<Output = (u64, Result<Accepted, SubmitError>)> + Send + 'static {
        let (delivery, tenant, appid) = (self.delivery.clone(), self.tenant, self.appid.clone());
        async move {
            let templates = delivery.templates();
            let draft = match templates.admit(tenant, checked, Some(&key)).await {
                Ok(draft) => draft,
                Err(error) => return (line, Err(error)),
            };
            loop {
                let (draft, key) = (draft.clone(), Some(key.clone()));
                match delivery.submit(tenant, &appid, draft, key).await {
                    Err(SubmitError::Overloaded { retry_after }) => {
                        tokio::time::sleep(retry_after).await;
                    }
                    answered => return (line, answered),
                }
            }
        }
    }

    /// Waits for the end of the messages in the queue, except scheduled messages.
    async fn wait(
        &self,
        mut taken: VecDeque<TakenLine>,
        report: &mut Report,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        taken.retain(|taken| !taken.scheduled);
        progress.restart(taken.len());
        let mut under_way: JoinSet<Result<(u64, Option<Message>), Failure>> = JoinSet::new();
        loop {
            while under_way.len() < AT_ONCE
                && let Some(next) = taken.pop_front()
            {
                under_way.spawn(ended(self.delivery.clone(), self.tenant, next));
            }
            let Some(joined) = under_way.join_next().await else {
                return Ok(());
            };
            let (line, message) = joined.map_err(|error| broken(&error))??;
            match message {
                Some(message) => report.end(line, &message),
                None => report.forget(line),
            }
            progress.step("ended");
        }
    }
}

/// Notes the result of one submission.
async fn settle(
    under_way: &mut JoinSet<(u64, Result<Accepted, SubmitError>)>,
    taken: &mut VecDeque<TakenLine>,
    report: &mut Report,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let Some(joined) = under_way.join_next().await else {
        return Ok(());
    };
    let (line, answered) = joined.map_err(|error| broken(&error))?;
    match answered {
        Ok(Accepted { message, replayed }) => {
            report.accept(replayed);
            taken.push_back(TakenLine {
                line,
                id: message.id,
                scheduled: message.status == Status::Scheduled,
            });
        }
        Err(
            error @ (SubmitError::NoSuchApp
            | SubmitError::Unavailable(_)
            | SubmitError::Broken(_)
            | SubmitError::Overloaded { .. }),
        ) => return Err(error.into()),
        Err(
            error @ (SubmitError::Violations(_)
            | SubmitError::QuotaExhausted { .. }
            | SubmitError::TenantQuotaExhausted { .. }
            | SubmitError::KeyReused),
        ) => report.refuse(line, Failure::from(error).message),
    }
    progress.step("in the queue");
    Ok(())
}

/// Waits for the end of the message. `None`: the database no longer has the message.
async fn ended(
    delivery: Delivery,
    tenant: TenantId,
    taken: TakenLine,
) -> Result<(u64, Option<Message>), Failure> {
    loop {
        match delivery.wait_ended(tenant, taken.id, LOOK).await {
            Ok(message) if message.status.is_end() => return Ok((taken.line, Some(message))),
            Ok(_) => {}
            Err(DeliveryError::NotFound(_)) => return Ok((taken.line, None)),
            Err(error) => return Err(error.into()),
        }
    }
}

fn broken(error: &tokio::task::JoinError) -> Failure {
    Failure::new(
        "internal",
        format!("a task of the import ended unexpectedly: {error}; run the same command again"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_known_by_its_line_and_which_copy_it_is() {
        let identities = || Identities {
            import: [7; 32],
            met: HashMap::new(),
        };
        let (mut first, mut again) = (identities(), identities());
        let [one, two, copy] = [b"one", b"two", b"one"].map(|line| first.key(line));
        assert!(one.key != two.key && one.key != copy.key);
        // The lines before have no influence.
        assert_eq!([b"two", b"one"].map(|line| again.key(line)), [two, one]);
    }
}
