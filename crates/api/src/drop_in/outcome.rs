//! The outcome of a message, in WeChat's form.

use domain::{
    lifecycle::Status,
    message::Channel,
    verdict::{FailureCode, Outcome},
};
use store::Message;

use super::reply::{INVALID_FORM_ID, NO_GRANT, WechatReply};

/// The answer to the caller that waited for `message`. A message without an end means: the ttl is over or the gateway
/// stops.
pub(super) fn of(message: &Message) -> WechatReply {
    match message.status {
        Status::Sent | Status::Delivered | Status::Undelivered => {
            let msgid = message.msgid.as_deref().and_then(|id| id.parse().ok());
            WechatReply::ok(msgid)
        }
        Status::Failed => refused(message).unwrap_or_else(|| unasked(message)),
        Status::Uncertain => uncertain(message),
        // The gateway stops.
        Status::Sending => WechatReply::uncertain(&format!(
            "WeChat has not answered yet, so WeChat may or may not accept the message {}",
            message.id
        )),
        Status::Expired | Status::Canceled | Status::Queued | Status::Scheduled => {
            if was_maybe_sent(message) {
                return uncertain(message);
            }
            refused(message).unwrap_or_else(|| {
                WechatReply::busy(
                    "the message could not be sent in time and will not be sent any more",
                )
            })
        }
    }
}

fn uncertain(message: &Message) -> WechatReply {
    let what = format!(
        "the connection to WeChat broke, so WeChat may or may not have the message {}",
        message.id
    );
    WechatReply::uncertain(&what)
}

fn was_maybe_sent(message: &Message) -> bool {
    let mut attempts = message.attempts.iter();
    attempts.any(|attempt| attempt.outcome == Outcome::Unknown)
}

/// The answer for a message that failed before a call of WeChat: WeChat's own code for the same failure.
fn unasked(message: &Message) -> WechatReply {
    let failure = message.failure.as_ref();
    let Some(failure) = failure.filter(|failure| failure.code == FailureCode::NoGrant) else {
        return WechatReply::busy("the message failed before the gateway called WeChat");
    };
    if message.content.channel() == Channel::Template {
        WechatReply::refused(
            INVALID_FORM_ID,
            format!("invalid form id: {}", failure.detail),
        )
    } else {
        let words = format!("user refuse to accept the msg: {}", failure.detail);
        WechatReply::refused(NO_GRANT, words)
    }
}

/// WeChat's last refusal.
fn refused(message: &Message) -> Option<WechatReply> {
    let last = message.attempts.last()?;
    let errcode = last.errcode.filter(|code| *code != 0)?;
    let errmsg = last.errmsg.as_deref().unwrap_or_default();
    Some(WechatReply::from_wechat(
        errcode,
        errmsg,
        last.rid.as_deref(),
    ))
}
