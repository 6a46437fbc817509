//! Events: what WeChat reports in a callback.
//!
//! WeChat writes a list of one item as the item itself and numbers as texts. WeChat writes the list under `List`, under
//! the event's own name, or under both nested; XML and JSON differ. This module reads all these forms. An unknown event
//! is [`EventKind::Unknown`], never an error.

use super::{CallbackCheckError, node::Node};

/// The longest id that is kept: an openid has 28 characters, a template id 43.
const MAX_ID: usize = 128;
/// The most items of one event. WeChat's events have one item, or one for each template of a popup (at most five).
const MAX_ITEMS: usize = 100;
/// The longest text from WeChat that is kept.
const MAX_WORDS: usize = 256;

/// An event of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WechatEvent {
    /// The openid of the user that the event is about.
    pub openid: String,
    /// The time of the event, in seconds since 1970.
    pub created_at: i64,
    /// The kind and the content.
    pub kind: EventKind,
}

/// The kind and content of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// `subscribe_msg_popup_event`: the user answered the popup that asks for permission.
    Popup(Vec<TemplateChoice>),
    /// `subscribe_msg_change_event`: the user changed the permission in the settings.
    Change(Vec<TemplateChoice>),
    /// `subscribe_msg_sent_event`: the receipts of subscribe messages.
    Sent(Vec<Receipt>),
    /// `TEMPLATESENDJOBFINISH`: the receipt of a message of an official account.
    JobFinished(Vec<Receipt>),
    /// Anything else: another event, or a message from a user.
    Unknown {
        /// The `AppEvent` of the callback, or the `MsgType` if the callback is no event.
        name: String,
    },
    /// An authentic callback that cannot be read.
    Unreadable {
        /// The reason.
        why: &'static str,
    },
}

/// A user's choice for one template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateChoice {
    /// The template.
    pub template_id: String,
    /// What the user chose.
    pub choice: Choice,
}

/// The choice of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The user allows messages: after a popup, one more message.
    Accept,
    /// The user allows no messages.
    Reject,
    /// An unknown choice.
    Other(String),
}

/// The receipt of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// WeChat's id of the message: the id in the answer to the send.
    pub msgid: u64,
    /// The template, if WeChat names the template.
    pub template_id: Option<String>,
    /// Whether the message arrived.
    pub delivered: bool,
    /// WeChat's reason, if the message did not arrive.
    pub words: Option<String>,
}

impl EventKind {
    /// WeChat's name of the event; `unknown` for all unknown events, so that the number of names is small; or
    /// `unreadable`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Popup(_) => POPUP.0,
            Self::Change(_) => CHANGE.0,
            Self::Sent(_) => SENT.0,
            Self::JobFinished(_) => JOB_FINISHED,
            Self::Unknown { .. } => "unknown",
            Self::Unreadable { .. } => "unreadable",
        }
    }
}

/// The `AppEvent` name, and the name of the element around the list.
const POPUP: (&str, &str) = ("subscribe_msg_popup_event", "SubscribeMsgPopupEvent");
const CHANGE: (&str, &str) = ("subscribe_msg_change_event", "SubscribeMsgChangeEvent");
const SENT: (&str, &str) = ("subscribe_msg_sent_event", "SubscribeMsgSentEvent");
const JOB_FINISHED: &str = "TEMPLATESENDJOBFINISH";

impl WechatEvent {
    /// Reads the event from an authentic callback body. An unreadable body becomes [`EventKind::Unreadable`].
    pub(super) fn of_authentic(body: &[u8]) -> Result<Self, CallbackCheckError> {
        match Node::read_authentic(body).and_then(|body| Self::read(&body)) {
            Err(CallbackCheckError::Unreadable(why)) => Ok(Self {
                openid: String::new(),
                created_at: 0,
                kind: EventKind::Unreadable { why },
            }),
            read => read,
        }
    }

    pub(super) fn read(body: &Node) -> Result<Self, CallbackCheckError> {
        // A message from a user may contain a forged `AppEvent`: only a `MsgType` of `event` makes `AppEvent` valid.
        let kind = body.text("MsgType").filter(|kind| *kind != "event");
        let name = kind.or_else(|| body.text("Event"));
        let name = name.ok_or(CallbackCheckError::Unreadable(
            "the callback has neither `Event` nor `MsgType`",
        ))?;
        let kind = if name == POPUP.0 {
            EventKind::Popup(choices(body, POPUP.1)?)
        } else if name == CHANGE.0 {
            EventKind::Change(choices(body, CHANGE.1)?)
        } else if name == SENT.0 {
            EventKind::Sent(readable(list(body, SENT.1)?, sent)?)
        } else if name == JOB_FINISHED {
            EventKind::JobFinished(vec![job_finished(body)?])
        } else {
            EventKind::Unknown { name: words(name) }
        };
        let openid = match (body.text("FromUserName"), &kind) {
            (Some(openid), _) => id(openid)?,
            (None, EventKind::Unknown { .. }) => String::new(),
            (None, _) => {
                return Err(CallbackCheckError::Unreadable(
                    "the callback has no `FromUserName`",
                ));
            }
        };
        let created_at = body
            .text("CreateTime")
            .and_then(|time| time.trim().parse().ok());
        let created_at = match (created_at, &kind) {
            (Some(time), _) => time,
            (None, EventKind::Unknown { .. }) => 0,
            (None, _) => {
                return Err(CallbackCheckError::Unreadable(
                    "the callback has no `CreateTime`",
                ));
            }
        };
        Ok(Self {
            openid,
            created_at,
            kind,
        })
    }
}

/// The items of the event, in all places where WeChat lists items.
fn list<'a>(body: &'a Node, container: &'a str) -> Result<Vec<&'a Node>, CallbackCheckError> {
    let mut found: Vec<&Node> = body.all("List").flat_map(Node::items).collect();
    for held in body.all(container).flat_map(Node::items) {
        let mut inside = held.all("List").flat_map(Node::items).peekable();
        if inside.peek().is_some() {
            found.extend(inside);
        } else {
            found.push(held);
        }
    }
    found.retain(|item| matches!(item, Node::Fields(_)));
    if found.len() > MAX_ITEMS {
        return Err(CallbackCheckError::TooLong);
    }
    Ok(found)
}

fn choices(body: &Node, container: &str) -> Result<Vec<TemplateChoice>, CallbackCheckError> {
    let read = |item: &Node| {
        let choice = match item.text("SubscribeStatusString").unwrap_or_default() {
            // Includes `acceptWithAudio` and `acceptWithAlert`.
            text if text.starts_with("accept") => Choice::Accept,
            "reject" => Choice::Reject,
            other => Choice::Other(words(other)),
        };
        Ok(TemplateChoice {
            template_id: id(required(item, "TemplateId")?)?,
            choice,
        })
    };
    readable(list(body, container)?, read)
}

/// The readable items. If no item is readable, the fault of the first item.
fn readable<T>(
    items: Vec<&Node>,
    read: impl Fn(&Node) -> Result<T, CallbackCheckError>,
) -> Result<Vec<T>, CallbackCheckError> {
    let (mut found, mut fault) = (Vec::new(), None);
    for item in items {
        match read(item) {
            Ok(item) => found.push(item),
            Err(refusal) => fault = fault.or(Some(refusal)),
        }
    }
    match fault {
        Some(fault) if found.is_empty() => Err(fault),
        _ => Ok(found),
    }
}

fn sent(item: &Node) -> Result<Receipt, CallbackCheckError> {
    let code = item.text("ErrorCode").unwrap_or_default().trim();
    let status = item.text("ErrorStatus").unwrap_or_default().trim();
    let delivered = if code.is_empty() {
        status == "success"
    } else {
        code == "0"
    };
    Ok(Receipt {
        msgid: msgid(item)?,
        template_id: item.text("TemplateId").map(id).transpose()?,
        delivered,
        words: (!delivered).then(|| words(format!("{code} {status}").trim())),
    })
}

fn job_finished(body: &Node) -> Result<Receipt, CallbackCheckError> {
    let status = body.text("Status").unwrap_or_default().trim();
    let delivered = status == "success";
    Ok(Receipt {
        msgid: msgid(body)?,
        template_id: None,
        delivered,
        words: (!delivered).then(|| words(status)),
    })
}

fn msgid(item: &Node) -> Result<u64, CallbackCheckError> {
    // `MsgId` is the spelling of ordinary messages; events with both spellings have been observed.
    let text = item.text("MsgID").or_else(|| item.text("MsgId"));
    text.and_then(|text| text.trim().parse().ok())
        .ok_or(CallbackCheckError::Unreadable(
            "the callback has no `MsgID` that is a number",
        ))
}

fn required<'a>(item: &'a Node, name: &'static str) -> Result<&'a str, CallbackCheckError> {
    item.text(name)
        .filter(|text| !text.is_empty())
        .ok_or(CallbackCheckError::Unreadable(
            "an item of the list is not complete",
        ))
}

/// An id that every database can store.
fn id(text: &str) -> Result<String, CallbackCheckError> {
    let fine = text.len() <= MAX_ID && !text.contains(char::is_control);
    fine.then(|| text.to_owned())
        .ok_or(CallbackCheckError::Unreadable(
            "an id is not one of WeChat's",
        ))
}

/// A text on one line that every database can store.
fn words(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_WORDS)].replace(char::is_control, " ")
}
