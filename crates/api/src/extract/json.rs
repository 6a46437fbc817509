//! JSON bodies.

use std::{collections::HashMap, fmt, marker::PhantomData};

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use domain::violation::{Violation, pointer_token};
use http::{HeaderMap, header};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Value, json};
use serde_path_to_error::{Path, Segment};

use super::{
    body::{Unread, read_whole},
    twice::repeated_fields,
    words::{explain_syntax, plain},
};
use crate::{
    body_limits::{body_limit, too_large},
    problem::{Problem, ProblemKind},
};

/// A JSON body of type `T`.
///
/// Text that is not JSON is 400; JSON that is not a `T` (a type, an unknown field, a missing field) is 422 and names
/// the place.
#[derive(Debug)]
pub(crate) struct ApiJson<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for ApiJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = json_bytes(request, state).await?;
        parse(&body).map(Self)
    }
}

/// The bytes of a body with a JSON content type, within the limit.
pub(crate) async fn json_bytes<S: Send + Sync>(
    request: Request,
    state: &S,
) -> Result<Bytes, Problem> {
    if !is_json(request.headers()) {
        return Err(Problem::new(
            ProblemKind::UnsupportedMediaType,
            ProblemKind::UnsupportedMediaType.example(),
        ));
    }
    let limit = body_limit(&request);
    let body = read_whole(request, state).await;
    body.map_err(|unread| match unread {
        Unread::TooLarge => too_large(limit),
        unread => unread.into(),
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || (essence.len() > 17
            && essence[..12].eq_ignore_ascii_case("application/")
            && essence.ends_with("+json"))
}

/// Parses `body` as a `T`. Refuses a field that occurs twice, at any depth.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let twice = repeated_fields(body);
    if !twice.is_empty() {
        return Err(Problem::validation_failed(twice));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = typed(&mut deserializer).map_err(|wrong| match wrong {
        Wrong::Field(first) => Problem::validation_failed(all_wrong::<T>(body, first)),
        Wrong::Text(problem) => problem,
    })?;
    deserializer.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

/// The limits of the search for more wrong fields: the number of steps, and the length of a body in bytes.
const MOST_STEPS: usize = 32;
const LONGEST_TRIED: usize = 16 * 1024;

/// `first`, and the other errors in the fields of `body`. serde stops at the first error: this function replaces the
/// wrong value by a fitting one and parses the rest again.
fn all_wrong<T: DeserializeOwned>(body: &[u8], first: Violation) -> Vec<Violation> {
    let mut found = vec![first.clone()];
    let read = serde_json::from_slice::<Value>(body);
    let Some(mut value) = read.ok().filter(|_| body.len() <= LONGEST_TRIED) else {
        return found;
    };
    let mut tried: HashMap<String, usize> = HashMap::new();
    let mut wrong = first;
    for _ in 0..MOST_STEPS {
        let turn = tried.entry(wrong.pointer.clone()).or_default();
        if !replace_value(&mut value, &wrong.pointer, *turn) {
            break;
        }
        *turn += 1;
        let text = value.to_string();
        match typed::<T>(&mut serde_json::Deserializer::from_str(&text)) {
            Err(Wrong::Field(next)) => {
                if !tried.contains_key(&next.pointer) {
                    found.push(next.clone());
                }
                wrong = next;
            }
            Err(Wrong::Text(_)) | Ok(_) => break,
        }
    }
    found
}

/// Puts another value in the place that `pointer` names, or removes the value at the first turn. Returns false if no
/// other value remains to try.
fn replace_value(value: &mut Value, pointer: &str, turn: usize) -> bool {
    let Some((parent, step)) = pointer.rsplit_once('/') else {
        return false;
    };
    let step = step.replace("~1", "/").replace("~0", "~");
    let other = match turn {
        0 => None,
        1 => Some(json!("a")),
        2 => Some(json!(1)),
        3 => Some(json!({})),
        4 => Some(json!([])),
        5 => Some(json!(true)),
        6 => Some(json!("2026-03-01T08:30:00Z")),
        _ => return false,
    };
    match (value.pointer_mut(parent), other) {
        (Some(Value::Object(fields)), None) => {
            fields.remove(&step);
        }
        (Some(Value::Object(fields)), Some(other)) => {
            fields.insert(step, other);
        }
        // Removing an item would change the places of the others.
        (Some(Value::Array(_)), None) => {}
        (Some(Value::Array(items)), Some(other)) => {
            let at = step.parse().ok();
            if let Some(item) = at.and_then(|at: usize| items.get_mut(at)) {
                *item = other;
            }
        }
        _ => return false,
    }
    true
}

/// Parses a part of a body as a `T`; pointers count from the part.
pub(crate) fn parse_part<T: DeserializeOwned>(part: &Value) -> Result<T, Problem> {
    // Parses from text: for a number in a `Value`, serde_json does not say why the number does not fit.
    parse(part.to_string().as_bytes())
}

/// The error in a body.
enum Wrong {
    /// The body is not JSON.
    Text(Problem),
    /// One field of the body breaks its rule.
    Field(Violation),
}

fn typed<'de, T: Deserialize<'de>>(
    source: impl Deserializer<'de, Error = serde_json::Error>,
) -> Result<T, Wrong> {
    let read = serde_path_to_error::deserialize::<_, Object<T>>(source);
    read.map(|object| object.0).map_err(|error| {
        if error.inner().is_data() {
            Wrong::Field(violation(error.inner(), pointer(error.path())))
        } else {
            Wrong::Text(not_json(error.inner()))
        }
    })
}

/// A JSON object. serde's derived code for a `T` with fields would accept an array of the field values too.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// A field that is an object within the body.
pub(crate) fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Object::deserialize(deserializer).map(|object| object.0)
}

/// Like [`object`], for a field that may be null.
pub(crate) fn optional_object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let read = Option::<Object<T>>::deserialize(deserializer)?;
    Ok(read.map(|object| object.0))
}

fn not_json(error: &serde_json::Error) -> Problem {
    Problem::invalid_request(format!("the body is not JSON: {}", explain_syntax(error)))
}

fn violation(error: &serde_json::Error, parent: String) -> Violation {
    let place = format!(" at line {} column {}", error.line(), error.column());
    let detail = error.to_string();
    let detail = detail.strip_suffix(&place).unwrap_or(&detail);
    // serde reports a missing field at its parent: point at the field itself.
    let missing = detail
        .strip_prefix("missing field `")
        .and_then(|rest| rest.strip_suffix('`'));
    let pointer = match missing {
        Some(field) => format!("{parent}/{}", pointer_token(field)),
        None => parent,
    };
    Violation::new(pointer, plain(detail))
}

fn pointer(path: &Path) -> String {
    let steps = path.iter().filter_map(|segment| match segment {
        Segment::Seq { index } => Some(format!("/{index}")),
        Segment::Map { key } => Some(format!("/{}", pointer_token(key))),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    steps.collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(deserialize_with = "object")]
        #[expect(dead_code, reason = "only parsed")]
        inner: Inner,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only parsed")]
        count: u32,
    }

    fn refused(body: &str) -> (u16, String) {
        let body = parse::<Outer>(body.as_bytes()).unwrap_err().body(None);
        let body = serde_json::to_value(body).unwrap();
        let status = u16::try_from(body["status"].as_u64().unwrap()).unwrap();
        (
            status,
            body["errors"][0]["pointer"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        )
    }

    #[test]
    fn wrong_text_is_400_and_wrong_fields_are_422_with_their_place() {
        assert_eq!(refused(r#"{"inner": {"count": 1}"#), (400, String::new()));
        assert_eq!(
            refused(r#"{"inner": {"count": 1}} x"#),
            (400, String::new())
        );
        assert_eq!(refused(""), (400, String::new()));
        assert_eq!(
            refused(r#"{"inner": {"count": "1"}}"#),
            (422, "/inner/count".into())
        );
        assert_eq!(
            refused(r#"{"inner": {"count": 1, "a/b": 2}}"#),
            (422, "/inner/a~1b".into())
        );
        assert_eq!(refused(r#"{"inner": {}}"#), (422, "/inner/count".into()));
        assert_eq!(refused("{}"), (422, "/inner".into()));
        assert_eq!(refused(r#"[{"count": 1}]"#), (422, String::new()));
        assert_eq!(refused(r#"{"inner": [1]}"#), (422, "/inner".into()));
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Many {
        name: String,
        count: u32,
        at: chrono::DateTime<chrono::Utc>,
        #[serde(default)]
        list: Vec<u8>,
        flag: Option<bool>,
    }

    #[test]
    fn all_wrong_fields_are_told_at_once() {
        let told = |body: &str| {
            let problem = parse::<Many>(body.as_bytes()).unwrap_err();
            let found = problem.into_errors().into_iter();
            let mut pointers: Vec<_> = found.map(|one| one.pointer).collect();
            pointers.sort();
            pointers
        };
        for (body, expected) in [
            ("{}", &["/at", "/count", "/name"][..]),
            (
                r#"{"name": 1, "count": "x", "at": "noon", "list": [1, "a", {}], "flag": 2, "more": 3}"#,
                &[
                    "/at", "/count", "/flag", "/list/1", "/list/2", "/more", "/name",
                ],
            ),
            (
                r#"{"name": "a", "count": 1, "at": "2026-03-01T08:30:00Z", "a/b": 1}"#,
                &["/a~1b"],
            ),
        ] {
            assert_eq!(told(body), expected, "{body}");
        }
    }

    #[test]
    fn json_is_told_by_its_media_type() {
        let headers =
            |value: &str| HeaderMap::from_iter([(header::CONTENT_TYPE, value.parse().unwrap())]);
        for json in [
            "application/json",
            "application/json; charset=utf-8",
            "Application/JSON",
            "application/cloudevents+json",
        ] {
            assert!(is_json(&headers(json)), "{json}");
        }
        for other in [
            "text/json",
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonx",
        ] {
            assert!(!is_json(&headers(other)), "{other}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
