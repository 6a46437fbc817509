//! `wxgate send`.

use std::{process::ExitCode, time::Duration};

use api::views::{self, Timestamp};
use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use domain::{
    app::AppId,
    lifecycle::Status,
    message::{Channel, Request},
};
use serde_json::{Map, Value, json};
use store::Message;

use super::{CommandContext, Signals};
use crate::{
    failure::Failure,
    output::{Output, card},
    settings::Settings,
};

/// The message to send.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The app that sends the message: wx…
    #[arg(long)]
    appid: AppId,
    /// The openid of the recipient
    #[arg(long, value_name = "OPENID")]
    to: String,
    /// The id of the template
    #[arg(long, value_name = "ID")]
    template: String,
    /// The values of the template
    #[arg(long, value_name = "KEY=VALUE", num_args = 1.., value_parser = pair)]
    data: Vec<(String, String)>,
    /// The WeChat interface that sends the message
    #[arg(long, default_value = "subscribe", value_parser = channel())]
    channel: Channel,
    /// The form id or prepay id, for channel template
    #[arg(long, value_name = "ID")]
    form_id: Option<String>,
    /// The page that opens when the recipient taps the message
    #[arg(long)]
    page: Option<String>,
    /// The time in seconds after which an unsent message expires
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u64>,
    /// The time in seconds to wait for the result
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    wait: u64,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write the value as KEY=VALUE, such as thing1=Coffee".to_owned()),
    }
}

fn channel() -> impl TypedValueParser<Value = Channel> {
    PossibleValuesParser::new(["subscribe", "template", "official"]).map(|word| {
        match word.as_str() {
            "template" => Channel::Template,
            "official" => Channel::Official,
            _ => Channel::Subscribe,
        }
    })
}

impl Arguments {
    fn request(self) -> Request {
        let data: Map<String, Value> = self
            .data
            .into_iter()
            .map(|(key, value)| (key, json!({"value": value})))
            .collect();
        Request {
            channel: self.channel,
            touser: self.to,
            template_id: self.template,
            data: (!data.is_empty()).then_some(data),
            page: self.page,
            form_id: self.form_id,
            ttl: self.ttl,
            ..Request::default()
        }
    }
}

/// Sends the message as a replica for a short time, and waits for the end of the message.
pub(crate) async fn run(
    settings: &Settings,
    output: Output,
    arguments: Arguments,
) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let (appid, wait) = (arguments.appid.clone(), Duration::from_secs(arguments.wait));
    let context = CommandContext::open(settings).await?;
    let request = arguments.request();
    let tenant = context.store.platform().app(&appid).await?.tenant;
    let sending = context.sending()?;
    let wanted = [(request.channel, request.template_id.as_str())];
    let catalog = sending
        .delivery
        .templates()
        .catalog(tenant, &appid, wanted)
        .await;
    let template = catalog.look_up(request.channel, &request.template_id);
    let checked = request.check_against(context.clock.now(), template, catalog.value_rules());
    let ended = async {
        let mut draft = checked.map_err(|unfit| Failure::violations(&unfit.violations))?;
        let warnings = std::mem::take(&mut draft.warnings);
        let accepted = sending.delivery.submit(tenant, &appid, draft, None).await?;
        let id = accepted.message.id;
        let message = sending.delivery.wait_ended(tenant, id, wait).await?;
        Ok::<_, Failure>((message, warnings))
    };
    let ended = tokio::select! {
        ended = ended => ended,
        () = signals.stop() => Err(Failure::new(
            "interrupted",
            "interrupted: a message that is already in the queue stays in the queue, and a running gateway sends the message; see GET /v1/apps/APPID/messages",
        )),
    };
    signals
        .finish(sending.stop(settings.shutdown_timeout))
        .await;
    context.close().await;
    let (message, warnings) = ended?;
    tell(output, message, warnings, wait)
}

fn tell(
    output: Output,
    message: Message,
    warnings: Vec<String>,
    wait: Duration,
) -> Result<ExitCode, Failure> {
    let verdict = verdict(&message, wait);
    let mut lines = vec![
        ("message", message.id.to_string()),
        ("status", message.status.as_str().to_owned()),
    ];
    lines.extend(warnings.iter().map(|warning| ("warning", warning.clone())));
    lines.extend(message.msgid.clone().map(|msgid| ("msgid", msgid)));
    for attempt in &message.attempts {
        let errcode = attempt
            .errcode
            .map(|code| format!(" {code}"))
            .unwrap_or_default();
        let errmsg = attempt.errmsg.as_deref().unwrap_or_default();
        lines.push((
            "attempt",
            format!(
                "{}: {}{errcode} {errmsg} ({} ms)",
                attempt.number,
                attempt.outcome.as_str(),
                attempt.duration_ms
            ),
        ));
    }
    let view = views::Message::with_warnings(message, warnings);
    output.result(&view, || card(&lines))?;
    verdict.map(|()| ExitCode::SUCCESS)
}

/// Whether WeChat accepted the message. The error has WeChat's text.
fn verdict(message: &Message, wait: Duration) -> Result<(), Failure> {
    let status = message.status;
    if matches!(status, Status::Sent | Status::Delivered) {
        return Ok(());
    }
    let why = match &message.failure {
        Some(failure) => failure.detail.clone(),
        None if status.is_end() => format!("the message ended as {}", status.as_str()),
        None => format!(
            "the message is {} after {} s: the message stays in the queue, and a running gateway sends it until {}",
            status.as_str(),
            wait.as_secs(),
            Timestamp(message.expires_at)
        ),
    };
    Err(Failure::new("not_sent", why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_have_equal_signs_and_keys_may_not_be_missing() {
        assert_eq!(pair("thing1=a=b").unwrap(), ("thing1".into(), "a=b".into()));
        assert_eq!(pair("thing1=").unwrap().1, "");
        assert!(pair("=x").is_err() && pair("x").is_err());
    }
}
