//! Dispatch: one message, one token, one send, one verdict.

use std::{sync::Arc, time::Duration};

use broker::{Broker, BrokerError, Token};
use coord::Clock;
use domain::{
    lifecycle::Event,
    message::OnUncertain,
    retry::Delay,
    verdict::{Attempt, BlockReason, FailureCode, Outcome, Verdict},
};
use store::{ClaimedMessage, Permit, Settlement, SettlementSource};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::task::TaskTracker;
use tracing::{Instrument, field::Empty};
use wechat::{Answer, Outgoing, codes::FORM_ID_USED_UP};

use crate::{
    app_pause::{self, AppPause},
    metrics::DeliveryMetrics,
    no_token,
    options::EngineOptions,
    parts::Parts,
    quota::QuotaReports,
    recorder::UnrecordedOutcome,
    templates::{LISTED_AND_REFUSED, Templates},
    token_refusals::{Again, TokenRefusals},
};

/// How many attempts of a message are kept.
const HISTORY: usize = 50;
/// How long before the end of its lease a send must have ended. This is longer than an outage of the database that no
/// heartbeat notices ([`store::Store::beat`]). So a lease that ends while an answer waits ends in a noticed outage.
pub(crate) const UNNOTICED_OUTAGE: Duration = Duration::from_secs(4);
/// WeChat's code for a template that is not in the account.
const NO_SUCH_TEMPLATE: i64 = 40037;
/// How long an app is paused after WeChat has refused a fresh token.
const TOKEN_REFUSED_PAUSE: Duration = Duration::from_mins(1);

/// Sends messages and hands the outcomes to the recorder.
#[derive(Clone)]
pub(crate) struct Dispatcher(Arc<Inner>);

struct Inner {
    client: wechat::Client,
    broker: Broker,
    strays: TokenRefusals,
    clock: Clock,
    metrics: DeliveryMetrics,
    quotas: Arc<QuotaReports>,
    templates: Templates,
    send_timeout: Duration,
    tasks: TaskTracker,
    settled: mpsc::Sender<UnrecordedOutcome>,
}

/// The result of sending one claimed message.
struct SendResult {
    event: Event,
    attempts: Vec<Attempt>,
    /// What WeChat or the broker answered, for the tenant.
    detail: Option<String>,
    /// The pause of the app, where the app's other messages must wait as well.
    rest: Option<AppPause>,
    /// Whether WeChat may have counted a call. False if no call was made or no connection was established.
    reached_wechat: bool,
}

impl SendResult {
    /// The failure text for the tenant. For a message that may have been sent before, the text also says why WeChat
    /// refused the repeat.
    fn words(&self, code: FailureCode) -> String {
        let advice = code.advice();
        match (&self.event, &self.detail) {
            (Event::Answered(Verdict::Rejected(refusal)), Some(said)) if *refusal != code => {
                let refusal = refusal.as_str();
                format!("{advice}; the last attempt was refused as `{refusal}`: {said}")
            }
            (_, Some(said)) => format!("{advice}: {said}"),
            (_, None) => advice.to_owned(),
        }
    }
}

impl Dispatcher {
    pub(crate) fn new(
        parts: &Parts,
        options: &EngineOptions,
        (quotas, templates): (Arc<QuotaReports>, Templates),
        tasks: TaskTracker,
        settled: mpsc::Sender<UnrecordedOutcome>,
    ) -> Self {
        Self(Arc::new(Inner {
            client: parts.wechat.clone(),
            broker: parts.broker.clone(),
            strays: TokenRefusals::new(parts.broker.clone(), parts.coord.clock().clone()),
            clock: parts.coord.clock().clone(),
            metrics: parts.metrics.clone(),
            quotas,
            templates,
            send_timeout: options.send_timeout,
            tasks,
            settled,
        }))
    }

    /// Sends each message in a task of its own. A slot is free again when its message is recorded. Permits without a
    /// message are released at once.
    pub(crate) fn dispatch(&self, claimed: Vec<ClaimedMessage>, mut permits: OwnedSemaphorePermit) {
        for message in claimed {
            let Some(slot) = permits.split(1) else { break };
            let inner = self.0.clone();
            let span = tracing::debug_span!("send", message = %message.id, appid = %message.appid);
            let flight = async move { inner.fly(message, slot).await };
            self.0.tasks.spawn(flight.instrument(span));
        }
    }
}

impl Inner {
    async fn fly(&self, message: ClaimedMessage, slot: OwnedSemaphorePermit) {
        let mut result = self.send(&message).await;
        if result.event == Event::Answered(Verdict::QuotaSpent) {
            result.rest = self.reconciled(&message, result.rest).await;
        }
        let now = self.clock.now();
        let news = app_pause::news(&message, result.rest.as_ref(), &result.event, now);
        // Cannot be refused: a claimed message is `sending`.
        let Ok(transition) = message.facts().apply(&result.event, now, rand::random()) else {
            return;
        };
        let msgid = match result.event {
            Event::Answered(Verdict::Accepted { msgid }) => msgid,
            _ => None,
        };
        let failure_detail = match transition.failure {
            Some(code) => Some(self.words(&message, &result, code).await),
            None => None,
        };
        let settlement = Settlement {
            // A message that was not sent has used no grant.
            grant: message.grant_news(if result.reached_wechat {
                &result.event
            } else {
                &Event::Released
            }),
            id: message.id,
            lease: message.lease,
            word: if result.event.is_final() {
                SettlementSource::Final
            } else {
                SettlementSource::Worker
            },
            appid: message.appid,
            touser: message.touser,
            template_id: message.template_id,
            transition,
            refund: (!result.reached_wechat).then_some(message.claimed_at),
            attempts: result.attempts,
            msgid,
            failure_detail,
        };
        // Fails only when the recorder has ended at the end of a stop. Then the lease decides.
        let _ = self
            .settled
            .send(UnrecordedOutcome {
                settlement,
                news,
                _slot: slot,
            })
            .await;
    }

    /// [`SendResult::words`], except where WeChat refuses a template that WeChat itself lists.
    async fn words(
        &self,
        message: &ClaimedMessage,
        result: &SendResult,
        code: FailureCode,
    ) -> String {
        let (channel, template) = (message.content.channel(), &message.template_id);
        let errcode = result.attempts.last().and_then(|last| last.errcode);
        if errcode == Some(NO_SUCH_TEMPLATE)
            && let Some(said) = &result.detail
            && self
                .templates
                .lists(&message.appid, channel, template)
                .await
        {
            return format!("{LISTED_AND_REFUSED}: {said}");
        }
        result.words(code)
    }

    /// The pause after WeChat calls the app's daily quota spent, in view of WeChat's own count.
    async fn reconciled(
        &self,
        message: &ClaimedMessage,
        rest: Option<AppPause>,
    ) -> Option<AppPause> {
        let now = self.clock.now();
        let channel = message.content.channel();
        let told = self.quotas.ask(&message.appid, channel, now).await;
        rest.map(|rest| rest.reconciled(told.map(|told| told.remain), now))
    }

    /// Sends with the app's token, and a second time if WeChat refuses that token.
    async fn send(&self, message: &ClaimedMessage) -> SendResult {
        let mut attempts = message.attempts.clone();
        if !self.may_repeat(message) {
            return SendResult {
                event: Event::Answered(Verdict::Unknown),
                attempts,
                detail: None,
                rest: None,
                reached_wechat: false,
            };
        }
        let token = match self.broker.token(&message.appid).await {
            Ok(token) => token,
            Err(error) => return self.grounded(attempts, &error, false),
        };
        if !self.has_time(message) {
            return SendResult {
                event: Event::Released,
                attempts,
                detail: None,
                rest: None,
                reached_wechat: false,
            };
        }
        let first = self.try_once(message, &token, &mut attempts).await;
        if first.verdict != Verdict::StaleToken {
            return self.landed(first, attempts);
        }
        self.send_again(message, &token, first, attempts).await
    }

    /// Sends again after WeChat has refused the token: with a fresh token, or with the same token if the token check
    /// passes. A second stray refusal is retried later and does not pause the app.
    async fn send_again(
        &self,
        message: &ClaimedMessage,
        refused: &Token,
        first: Answer,
        mut attempts: Vec<Attempt>,
    ) -> SendResult {
        let again = self.strays.after_refusal(&message.appid, refused).await;
        let (token, is_fresh) = match again {
            Ok(Again::Fresh(token)) => (token, true),
            Ok(Again::Same(token)) => (token, false),
            Ok(Again::Later) => return self.landed(first, attempts),
            Err(error) => return self.grounded(attempts, &error, true),
        };
        if !self.has_time(message) {
            return self.landed(first, attempts);
        }
        let mut second = self.try_once(message, &token, &mut attempts).await;
        if second.verdict == Verdict::StaleToken
            && is_fresh
            && self.broker.is_dead(&message.appid, &token).await
        {
            second.verdict = Verdict::AppBlocked {
                reason: BlockReason::TokenRefused,
                pause: TOKEN_REFUSED_PAUSE,
            };
        }
        self.landed(second, attempts)
    }

    async fn try_once(
        &self,
        message: &ClaimedMessage,
        token: &Token,
        attempts: &mut Vec<Attempt>,
    ) -> Answer {
        let started_at = self.clock.now();
        let outgoing = Outgoing {
            touser: &message.touser,
            template_id: &message.template_id,
            content: &message.content,
        };
        let span = tracing::debug_span!(
            "wechat",
            otel.kind = "client",
            channel = ?message.content.channel(),
            outcome = Empty,
            errcode = Empty,
        );
        let sending = self.client.send(&token.value, outgoing);
        let mut answer = sending.instrument(span.clone()).await;
        if let Some(verdict) = about_form_id(message, &answer) {
            answer.verdict = verdict;
        }
        span.record("outcome", answer.verdict.outcome().as_str());
        span.record("errcode", answer.errcode);
        self.metrics.sent(
            message.content.channel(),
            answer.verdict.outcome(),
            answer.duration,
        );
        let attempt = Attempt {
            number: 0,
            started_at,
            duration_ms: u64::try_from(answer.duration.as_millis()).unwrap_or(u64::MAX),
            outcome: answer.verdict.outcome(),
            errcode: answer.errcode,
            errmsg: Some(answer.errmsg.clone()),
            rid: answer.rid.clone(),
        };
        remember(attempts, attempt);
        answer
    }

    /// The result for a message of an app without a token: nothing was sent.
    fn grounded(
        &self,
        mut attempts: Vec<Attempt>,
        error: &BrokerError,
        reached_wechat: bool,
    ) -> SendResult {
        let now = self.clock.now();
        let verdict = no_token::verdict(error, now);
        let cause = no_token::cause(error);
        let attempt = Attempt {
            number: 0,
            started_at: now,
            duration_ms: 0,
            outcome: verdict.outcome(),
            errcode: cause.and_then(|cause| cause.errcode),
            errmsg: Some(error.to_string()),
            rid: cause.and_then(|cause| cause.rid.clone()),
        };
        remember(&mut attempts, attempt);
        let rest = error.retry_at().map(|until| AppPause {
            until,
            reason: no_token::reason(error),
            detail: error.to_string(),
        });
        SendResult {
            event: Event::Answered(verdict),
            attempts,
            detail: Some(error.to_string()),
            rest,
            reached_wechat,
        }
    }

    fn landed(&self, answer: Answer, attempts: Vec<Attempt>) -> SendResult {
        // An attempt without a code was not sent, met a proxy's page, or has an unknown outcome. A first attempt with a
        // dead token got a code from WeChat as well.
        let reached_wechat = answer.errcode.is_some()
            || answer.verdict == Verdict::Unknown
            || attempts
                .iter()
                .rev()
                .nth(1)
                .is_some_and(|before| before.outcome == Outcome::StaleToken);
        let said = match answer.errcode {
            Some(errcode) => format!("WeChat answered {errcode} {}", answer.errmsg),
            None => answer.errmsg,
        };
        let rest = AppPause::of(&answer.verdict, &said, self.clock.now());
        if answer.verdict == Verdict::Rejected(FailureCode::GatewayBug) {
            tracing::error!(
                said,
                "WeChat does not understand a send of the gateway: this is a defect"
            );
        }
        SendResult {
            event: Event::Answered(answer.verdict),
            attempts,
            detail: Some(said),
            rest,
            reached_wechat,
        }
    }

    /// Whether the message may be sent: no attempt has an unknown outcome, or one more copy does no harm because the
    /// tenant allows copies or WeChat still refuses a second copy.
    fn may_repeat(&self, message: &ClaimedMessage) -> bool {
        let refused = message.facts().repeatable_until;
        let refused = refused.is_some_and(|until| self.clock.now() + self.send_timeout < until);
        message.maybe_sent_at().is_none() || message.on_uncertain == OnUncertain::Retry || refused
    }

    /// Whether a send that starts now ends well before the lease, and starts before the message's ttl is over.
    fn has_time(&self, message: &ClaimedMessage) -> bool {
        let now = self.clock.now();
        now + self.send_timeout + UNNOTICED_OUTAGE < message.lease_until && now < message.expires_at
    }
}

/// The verdict on a refused form id, beyond WeChat's code. If an attempt without an answer used the form id, and the id
/// is used up now, that attempt has used the id: the message has arrived. If the refused id is a fresh id of the pool,
/// the message takes the next id of the pool.
fn about_form_id(message: &ClaimedMessage, answer: &Answer) -> Option<Verdict> {
    if answer.verdict != Verdict::Rejected(FailureCode::InvalidFormId) {
        return None;
    }
    let maybe_used = match &message.permit {
        Permit::Pool(Some(id)) if !id.maybe_used => return Some(Verdict::Later(Delay::AtOnce)),
        Permit::Pool(id) => id.is_some(),
        Permit::Free | Permit::Counted | Permit::Reserved => {
            message.facts().maybe_sent && message.content.is_single_use()
        }
    };
    let is_used_up = answer.errcode == Some(FORM_ID_USED_UP);
    (maybe_used && is_used_up).then_some(Verdict::Accepted { msgid: None })
}

/// Adds an attempt to the history of the message, with the next number. A long history keeps the first and the latest
/// attempts, and every attempt that may have reached WeChat.
fn remember(attempts: &mut Vec<Attempt>, attempt: Attempt) {
    let number = attempts
        .last()
        .map_or(1, |last| last.number.saturating_add(1));
    if attempts.len() >= HISTORY {
        let passing = attempts
            .iter()
            .skip(HISTORY / 5)
            .position(|attempt| attempt.outcome != Outcome::Unknown);
        if let Some(index) = passing {
            attempts.remove(HISTORY / 5 + index);
        }
    }
    attempts.push(Attempt { number, ..attempt });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_history_keeps_its_start_its_end_and_what_may_have_been_sent() {
        let mut attempts = Vec::new();
        for number in 1..=200 {
            let outcome = if number == 50 {
                Outcome::Unknown
            } else {
                Outcome::Retry
            };
            let attempt = Attempt {
                number: 0,
                started_at: chrono::DateTime::UNIX_EPOCH,
                duration_ms: 0,
                outcome,
                errcode: Some(-1),
                errmsg: None,
                rid: None,
            };
            remember(&mut attempts, attempt);
        }
        let numbers: Vec<u32> = attempts.iter().map(|attempt| attempt.number).collect();
        assert_eq!(numbers.len(), HISTORY);
        assert_eq!(numbers[..10], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(numbers[10..12], [50, 162]);
        assert_eq!(numbers.last(), Some(&200));
    }
}
