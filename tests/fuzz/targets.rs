//! The targets. Each target passes bytes to the function that the product reads such bytes with, and asserts what holds
//! for every input. A target returns the kind of answer, which distinguishes inputs.

use std::{fmt::Display, str::FromStr};

use api::requests::{self, BodyType};
use chrono::{DateTime, Utc};
use domain::{
    app::AppId,
    id::{EventId, KeyId, MessageId, TenantId, WebhookId},
    secret::{CallbackAesKey, CallbackToken},
};
use serde_json::Value;
use store::AppCursor;
use wechat::callback::{Keys, Query};

/// Reads an input, and returns the kind of answer.
pub(crate) type Target = fn(&[u8]) -> String;

/// All targets, by name.
pub(crate) const TARGETS: [(&str, Target); 8] = [
    ("bodies", bodies),
    ("batches", batches),
    ("callbacks", callbacks),
    ("envelopes", envelopes),
    ("cursors", cursors),
    ("ids", ids),
    ("idempotency_keys", idempotency_keys),
    ("queries", queries),
];

/// The target with this name.
///
/// # Panics
///
/// If there is none.
pub(crate) fn named(name: &str) -> Target {
    let found = TARGETS.iter().find(|(other, _)| *other == name);
    found.expect("a target with this name").1
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_772_416_800, 0).expect("a time")
}

/// JSON bodies of every kind but batches.
fn bodies(input: &[u8]) -> String {
    let shapes = BodyType::ALL
        .into_iter()
        .filter(|shape| *shape != BodyType::Batch);
    shapes.map(|shape| body(shape, input)).collect()
}

fn batches(input: &[u8]) -> String {
    body(BodyType::Batch, input)
}

fn body(shape: BodyType, input: &[u8]) -> String {
    match shape.read(input, now()) {
        Ok(()) => format!("{shape:?} "),
        Err(problem) => refusal(&problem),
    }
}

/// The places that a problem names. Every refusal is a problem in JSON with a status of the caller's fault.
fn refusal(problem: &str) -> String {
    let problem: Value = serde_json::from_str(problem).expect("a problem is JSON");
    let status = problem["status"].as_u64().expect("a status");
    assert!(
        matches!(
            (status, problem["code"].as_str()),
            (400, Some("invalid_request")) | (422, Some("validation_failed"))
        ),
        "{problem}"
    );
    let errors = problem["errors"].as_array().into_iter().flatten();
    let words = errors.map(|error| {
        // Numbers in the text come from the input.
        let text = format!("{} {}", error["pointer"], error["detail"]);
        text.chars()
            .filter(char::is_ascii_alphabetic)
            .take(60)
            .collect::<String>()
    });
    format!("{status}{} ", words.collect::<Vec<_>>().join("|"))
}

/// A plain callback: the signature does not cover the body, so a stranger's bytes may come to the reader of bodies.
fn callbacks(input: &[u8]) -> String {
    let keys = Keys::new(CallbackToken::new("AAAAA"), None).expect("keys");
    let query = Query {
        signature: Some("f464b24fc39322e44b38aa78f5edd27bd1441696".into()),
        timestamp: Some("1714036504".into()),
        nonce: Some("1514711492".into()),
        ..Query::default()
    };
    match keys.open(&appid(), &query, input) {
        Ok(event) => event.kind.as_str().to_owned(),
        Err(refusal) => refusal.to_string(),
    }
}

/// A callback in an envelope: the bytes as the plaintext, and as the envelope itself.
fn envelopes(input: &[u8]) -> String {
    let key = CallbackAesKey::new("q7Xc2Vn8Lk4Rz1Tb6Ym9Wd3Hs5Jf0Gp7Ua2Ke4Qi8Or");
    let keys = Keys::new(CallbackToken::new("AAAAA"), Some(&key)).expect("keys");
    let (time, nonce) = (1_714_036_504, "1514711492");
    let sealed = keys
        .reply(&appid(), input, time, nonce, [7; 16])
        .expect("a key");
    let query = |signature: &str| Query {
        msg_signature: Some(signature.into()),
        encrypt_type: Some("aes".into()),
        timestamp: Some(time.to_string()),
        nonce: Some(nonce.into()),
        ..Query::default()
    };
    let signed = query(&sealed.msg_signature);
    let outer = format!("{{\"Encrypt\":\"{}\"}}", sealed.encrypt);
    let inside = match keys.open(&appid(), &signed, outer.as_bytes()) {
        Ok(event) => event.kind.as_str().to_owned(),
        Err(refusal) => refusal.to_string(),
    };
    let in_xml = keys.open(&appid(), &signed, sealed.to_xml().as_bytes());
    assert_eq!(
        in_xml.map_or_else(
            |refusal| refusal.to_string(),
            |event| event.kind.as_str().to_owned()
        ),
        inside,
        "JSON and XML envelopes hold the same"
    );
    let outside = keys.open(&appid(), &signed, input);
    assert!(outside.is_err(), "nothing opens that was not sealed");
    format!(
        "{inside} {}",
        outside.map_or_else(|refusal| refusal.to_string(), |_| String::new())
    )
}

fn appid() -> AppId {
    AppId::parse("wx0a1b2c3d4e5f6789").expect("an appid")
}

/// Cursors. A cursor that the reader accepts is written back as the same cursor.
fn cursors(input: &[u8]) -> String {
    fn one<K: FromStr + Display + PartialEq + std::fmt::Debug>(text: &str) -> bool {
        match requests::cursor::<K>(text) {
            Ok(key) => {
                let again = requests::cursor_of(&key);
                assert_eq!(requests::cursor::<K>(&again).as_ref(), Ok(&key));
                true
            }
            Err(problem) => {
                refusal(&problem);
                false
            }
        }
    }
    let text = String::from_utf8_lossy(input);
    // The text as it is, and the text as the inside of a cursor.
    let wrapped = requests::cursor_of(&text);
    format!(
        "{:?}",
        [
            one::<MessageId>(&text),
            one::<AppCursor>(&text),
            one::<u64>(&text),
            one::<MessageId>(&wrapped),
            one::<AppCursor>(&wrapped),
            one::<u64>(&wrapped),
        ]
    )
}

/// Ids in paths. One thing has one name.
fn ids(input: &[u8]) -> String {
    fn one<T: FromStr + Display>(text: &str) -> bool {
        text.parse::<T>().is_ok_and(|id| {
            assert_eq!(id.to_string(), text, "another name for the same thing");
            true
        })
    }
    let text = String::from_utf8_lossy(input);
    let app = AppId::parse(&*text).is_ok_and(|app| {
        assert_eq!(app.as_str(), text);
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
        true
    });
    format!(
        "{:?}",
        [
            one::<MessageId>(&text),
            one::<KeyId>(&text),
            one::<TenantId>(&text),
            one::<WebhookId>(&text),
            one::<EventId>(&text),
            app,
        ]
    )
}

/// The header `Idempotency-Key`.
fn idempotency_keys(input: &[u8]) -> String {
    match requests::idempotency_key(input) {
        Ok(None) => "no header".to_owned(),
        Ok(Some(key)) => {
            assert_eq!(key.as_bytes(), input);
            assert!((1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()));
            key.len().to_string()
        }
        Err(problem) => refusal(&problem),
    }
}

/// The query of a list.
fn queries(input: &[u8]) -> String {
    let text = format!(
        "/v1/apps/wx0a1b2c3d4e5f6789/messages?{}",
        String::from_utf8_lossy(input)
    );
    match text.parse() {
        Err(_) => "no URL".to_owned(),
        Ok(uri) => match requests::messages_query(&uri) {
            Ok(()) => "fine".to_owned(),
            Err(problem) => refusal(&problem),
        },
    }
}
