//! Requests as the API reads requests, without a running gateway: the handler's value, or the problem of the answer.
//!
//! The command line reads messages from files with this module; the fuzz targets read arbitrary input.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use delivery::WebhookSettings;
use domain::{message, template::Catalog, violation::Violation};
use http::{HeaderMap, HeaderValue, Uri};
use serde::de::DeserializeOwned;

use crate::{
    cursor,
    dto::{
        apps::{AppChanges, AppRegistration},
        batch::{BatchRequest, items},
        keys::KeyRequest,
        message_request::MessageRequest,
        messages::{Message, MessagesQuery},
        page::Listed,
        tenants::TenantRequest,
        webhooks::{WebhookChanges, WebhookRequest},
    },
    extract::{key_text, parse, read_query},
    problem::Problem,
};

pub use crate::dto::message_request::message;

/// The type of a JSON body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the body of the request of that name")]
pub enum BodyType {
    Message,
    Batch,
    AppRegistration,
    AppChanges,
    WebhookRequest,
    WebhookChanges,
    KeyRequest,
    TenantRequest,
}

impl BodyType {
    /// All shapes.
    pub const ALL: [Self; 8] = [
        Self::Message,
        Self::Batch,
        Self::AppRegistration,
        Self::AppChanges,
        Self::WebhookRequest,
        Self::WebhookChanges,
        Self::KeyRequest,
        Self::TenantRequest,
    ];

    /// Parses `body` at `now`, as far as a handler does before its first database access. The error is the problem, as
    /// JSON.
    pub fn read(self, body: &[u8], now: DateTime<Utc>) -> Result<(), String> {
        let read = match self {
            Self::Message => parse::<MessageRequest>(body)
                .and_then(|read| Ok(message::Request::from(read).check(now)?))
                .map(drop),
            Self::Batch => parse::<BatchRequest>(body)
                .and_then(BatchRequest::requests)
                .map(|requests| items(requests, &Catalog::default(), now))
                .map(drop),
            Self::AppRegistration => parse::<AppRegistration>(body)
                .and_then(|read| read.tenant().and(read.parse()))
                .map(drop),
            Self::AppChanges => parse::<AppChanges>(body)
                .and_then(AppChanges::parse)
                .map(drop),
            Self::WebhookRequest => settings::<WebhookRequest>(body),
            Self::WebhookChanges => settings::<WebhookChanges>(body),
            Self::KeyRequest => parse::<KeyRequest>(body)
                .and_then(KeyRequest::parse)
                .map(drop),
            Self::TenantRequest => parse::<TenantRequest>(body).map(|read| drop(read.split())),
        };
        read.map_err(|problem| told(&problem))
    }
}

fn settings<T: DeserializeOwned + Into<WebhookSettings>>(body: &[u8]) -> Result<(), Problem> {
    parse::<T>(body).map(|read| drop(read.into()))
}

/// The position in the list of messages that a cursor stands for. The error is the problem, as JSON.
pub fn cursor<K: FromStr>(text: &str) -> Result<K, String> {
    cursor::decode(Message::LIST, text).map_err(|problem| told(&problem))
}

/// The cursor of a position in the list of messages.
pub fn cursor_of(key: &impl std::fmt::Display) -> String {
    cursor::encode(Message::LIST, key)
}

/// The fields that occur twice in a JSON text, at any depth.
pub fn repeated_fields(text: &[u8]) -> Vec<Violation> {
    crate::extract::repeated_fields(text)
}

/// Why a text is not JSON, and where.
pub fn explain_syntax(error: &serde_json::Error) -> String {
    crate::extract::explain_syntax(error)
}

/// Parses the query of the list of messages, which has more parameters than any other query.
pub fn messages_query(uri: &Uri) -> Result<(), String> {
    let split = read_query::<MessagesQuery>(uri).and_then(MessagesQuery::split);
    split.map(drop).map_err(|problem| told(&problem))
}

/// The idempotency key in a header's bytes. The error is the problem, as JSON.
pub fn idempotency_key(header: &[u8]) -> Result<Option<String>, String> {
    let Ok(value) = HeaderValue::from_bytes(header) else {
        return Ok(None);
    };
    let headers = HeaderMap::from_iter([(crate::extract::IDEMPOTENCY_KEY, value)]);
    key_text(&headers).map_err(|problem| told(&problem))
}

fn told(problem: &Problem) -> String {
    String::from_utf8_lossy(&problem.json("-")).into_owned()
}
