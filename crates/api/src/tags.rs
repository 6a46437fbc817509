//! Entity tags (RFC 9110 §8.8.3, §13): a client that changes a resource can name the state that the client has read.

use std::convert::Infallible;

use axum::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts};
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::IntoParams;

use crate::problem::{Problem, ProblemKind};

/// `If-None-Match` in the OpenAPI document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header that `IfNoneMatch` reads")]
pub(crate) struct Known {
    /// `ETag` of an earlier answer: if nothing has changed since, the answer is 304, without a body.
    #[param(rename = "If-None-Match")]
    if_none_match: Option<String>,
}

/// `If-Match` in the OpenAPI document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header that `IfMatch` reads")]
pub(crate) struct Unchanged {
    /// `ETag` of the answer that you have read: if the resource has changed since, the gateway answers 412 and changes
    /// nothing.
    #[param(rename = "If-Match")]
    if_match: Option<String>,
}

/// The state that the caller has read, by `If-Match`; `None`: the change is unconditional.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IfMatch(pub(crate) Option<DateTime<Utc>>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let several = || {
            Problem::invalid_request(
                "send one entity tag in If-Match: the `ETag` of the answer that you have read",
            )
        };
        match listed(&parts.headers, &header::IF_MATCH) {
            Ok(Tags::None | Tags::Any) => Ok(Self(None)),
            Ok(Tags::These(tags)) => match tags.as_slice() {
                // An empty list, like the tag of another resource, matches no state of this resource.
                [] => Err(changed()),
                // A proxy that compresses makes a tag weak; the version in the tag is as exact as before.
                [one] => version(one.strip_prefix("W/").unwrap_or(one))
                    .map(|version| Self(Some(version)))
                    .ok_or_else(changed),
                _ => Err(several()),
            },
            // The client wants a condition, so the change must not run without one; which condition is unknown.
            Err(NoTags) => Err(several()),
        }
    }
}

/// The tags that the caller has already, by `If-None-Match`.
#[derive(Debug)]
pub(crate) struct IfNoneMatch(Vec<String>);

impl<S: Send + Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // An unreadable condition matches nothing.
        Ok(match listed(&parts.headers, &header::IF_NONE_MATCH) {
            Ok(Tags::Any) => Self(vec!["*".to_owned()]),
            Ok(Tags::These(tags)) => Self(tags),
            Ok(Tags::None) | Err(NoTags) => Self(Vec::new()),
        })
    }
}

impl IfNoneMatch {
    fn has(&self, tag: &str) -> bool {
        let known = |theirs: &String| theirs == "*" || theirs.trim_start_matches("W/") == tag;
        self.0.iter().any(known)
    }
}

/// The body with its tag; 304 if the caller has this tag already.
pub(crate) fn shown(
    known: &IfNoneMatch,
    version: DateTime<Utc>,
    body: &impl Serialize,
) -> Response {
    let text = serde_json::to_vec(body).unwrap_or_default();
    let tag = tag(version, &text);
    let is_known = known.has(&tag);
    let headers = [
        (header::ETAG, HeaderValue::try_from(tag)),
        (
            header::CACHE_CONTROL,
            Ok(HeaderValue::from_static("private, no-cache")),
        ),
    ];
    let headers: HeaderMap = headers
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.ok()?)))
        .collect();
    if is_known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    let json = [(header::CONTENT_TYPE, "application/json")];
    (headers, json, text).into_response()
}

/// The result of a change, with its tag.
pub(crate) fn now_is(version: DateTime<Utc>, body: &impl Serialize) -> Response {
    shown(&IfNoneMatch(Vec::new()), version, body)
}

/// The problem for a state that is no longer the present one.
pub(crate) fn changed() -> Problem {
    Problem::new(ProblemKind::Changed, ProblemKind::Changed.example())
}

fn tag(version: DateTime<Utc>, text: &[u8]) -> String {
    let mut digest = [0; 8];
    digest.copy_from_slice(&Sha256::digest(text)[..8]);
    let digest = u64::from_be_bytes(digest);
    format!("\"{:x}-{digest:x}\"", version.timestamp_millis())
}

/// The version in a tag.
fn version(tag: &str) -> Option<DateTime<Utc>> {
    let (version, digest) = tag.strip_prefix('"')?.strip_suffix('"')?.split_once('-')?;
    u64::from_str_radix(digest, 16).ok()?;
    DateTime::from_timestamp_millis(i64::from_str_radix(version, 16).ok()?)
}

/// The tags in a condition.
enum Tags {
    /// The request has no condition.
    None,
    /// `*`
    Any,
    /// These tags, with quotes and weakness mark.
    These(Vec<String>),
}

/// A condition that is not a list of entity tags.
struct NoTags;

/// The tags of a condition; several header lines are one list. A tag may contain commas and any byte from 0x80
/// (RFC 9110 §8.8.3).
fn listed(headers: &HeaderMap, name: &HeaderName) -> Result<Tags, NoTags> {
    let lines: Vec<&[u8]> = headers
        .get_all(name)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if lines.is_empty() {
        return Ok(Tags::None);
    }
    let list = lines.join(&b", "[..]);
    if list.trim_ascii() == b"*" {
        return Ok(Tags::Any);
    }
    let (mut tags, mut rest) = (Vec::new(), list.trim_ascii_start());
    while let Some(first) = rest.first() {
        if *first != b',' {
            let (tag, behind) = split_tag(rest).ok_or(NoTags)?;
            tags.push(String::from_utf8_lossy(tag).into_owned());
            rest = behind.trim_ascii_start();
            if !rest.is_empty() && !rest.starts_with(b",") {
                return Err(NoTags);
            }
        }
        rest = rest.strip_prefix(b",").unwrap_or(rest).trim_ascii_start();
    }
    Ok(Tags::These(tags))
}

/// The tag at the beginning of `text`, and the rest.
fn split_tag(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let quoted = text.strip_prefix(b"W/").unwrap_or(text);
    let inside = quoted.strip_prefix(b"\"")?;
    let length = inside.iter().position(|byte| *byte == b'"')?;
    let fine = |byte: &u8| *byte > b' ' && *byte != 0x7f;
    inside[..length]
        .iter()
        .all(fine)
        .then(|| text.split_at(text.len() - inside.len() + length + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(millis).unwrap()
    }

    #[test]
    fn a_tag_names_its_version_and_what_is_shown() {
        let one = tag(at(1_700_000_000_123), b"{}");
        assert_eq!(version(&one), Some(at(1_700_000_000_123)));
        assert_ne!(one, tag(at(1_700_000_000_123), b"{ }"));
        assert_ne!(one, tag(at(1_700_000_000_124), b"{}"));
        for nonsense in ["", "\"\"", "x", "\"zz-1\"", "18bcfe56800-00"] {
            assert_eq!(version(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn what_is_known_is_not_shown_again() {
        let known = |tags: &[&str]| IfNoneMatch(tags.iter().map(|tag| (*tag).to_owned()).collect());
        let first = shown(&known(&[]), at(5), &1);
        let tag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        assert_eq!(first.status(), 200);
        for (tags, status) in [
            (vec![tag.as_str()], 304),
            (vec!["\"other\"", tag.as_str()], 304),
            (vec!["*"], 304),
            (vec!["\"5-\""], 200),
        ] {
            let again = shown(&known(&tags), at(5), &1);
            assert_eq!(again.status().as_u16(), status, "{tags:?}");
            assert_eq!(again.headers()[header::ETAG], tag.as_str());
        }
        assert_eq!(
            shown(&known(&[&format!("W/{tag}")]), at(5), &1).status(),
            304
        );
        assert_eq!(shown(&known(&[&tag]), at(5), &2).status(), 200);
    }

    async fn read(lines: &[&[u8]]) -> Result<IfMatch, ProblemKind> {
        let mut request = http::Request::builder();
        for line in lines {
            request = request.header(header::IF_MATCH, *line);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let read = IfMatch::from_request_parts(&mut parts, &()).await;
        read.map_err(|problem| problem.kind())
    }

    #[tokio::test]
    async fn a_state_is_named_by_one_tag() {
        let one = tag(at(5), b"1");
        let weak = format!("W/{one}");
        let one = one.as_bytes();
        assert_eq!(read(&[]).await, Ok(IfMatch(None)));
        assert_eq!(read(&[one]).await, Ok(IfMatch(Some(at(5)))));
        assert_eq!(read(&[weak.as_bytes()]).await, Ok(IfMatch(Some(at(5)))));
        assert_eq!(read(&[b"", one, b" "]).await, Ok(IfMatch(Some(at(5)))));
        assert_eq!(read(&[b"*"]).await, Ok(IfMatch(None)));
        for several in [&[one, one][..], &[one, b"*"], &[b"\"a\", \"b\""]] {
            assert_eq!(read(several).await, Err(ProblemKind::InvalidRequest));
        }
    }

    #[tokio::test]
    async fn a_condition_that_is_there_is_never_left_out() {
        let others: [&[u8]; 5] = [b"\"1-1\xe9\"", b"\"a,b\"", b"", b" , ", b"\"\""];
        for other in others {
            assert_eq!(read(&[other]).await, Err(ProblemKind::Changed), "{other:?}");
        }
        for no_list in [
            &b"1-1"[..],
            b"\"1-1",
            b"\xe9",
            b"w/\"1-1\"",
            b"\"a\" \"b\"",
            b"\"a b\"",
        ] {
            assert_eq!(
                read(&[no_list]).await,
                Err(ProblemKind::InvalidRequest),
                "{no_list:?}"
            );
        }
    }
}
