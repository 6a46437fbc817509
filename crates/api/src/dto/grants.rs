//! Grants in requests and answers: a grant permits a message to a user.

use chrono::{DateTime, Utc};
use domain::{grant, violation::Violation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use store::{Collected, GrantCursor, GrantEntry};
use utoipa::{IntoParams, ToSchema};

use super::{
    items::{self, ErrorSpace, Items, words},
    page,
    time::Timestamp,
    words::GrantKind,
};
use crate::problem::{Problem, ProblemBody, ProblemKind};

/// Grants that a client collected. The gateway checks each grant by itself: an error in one does not affect the others.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"grants": [
    {"kind": "form_id", "openid": "oABC1234567890abcdefghijklmn", "value": "7a7c56ca0e4f4d0c9b7d3f1e2a5b6c8d"},
    {"kind": "subscription", "openid": "oABC1234567890abcdefghijklmn", "template_id": "8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k", "count": 1}
]}))]
pub(crate) struct GrantsRequest {
    /// 1 to 1000 grants.
    #[schema(value_type = Vec<GrantReport>, min_items = 1, max_items = 1000)]
    grants: Items,
}

/// A grant that a client collected. The gateway refuses a field of another kind.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GrantReport {
    kind: GrantKind,
    /// The user who gave the grant: the grant permits messages to this user alone.
    #[schema(example = "oABC1234567890abcdefghijklmn")]
    openid: String,
    /// `form_id`, `prepay_id`: the id as the client got it.
    #[schema(max_length = 128)]
    value: Option<String>,
    /// `subscription`: the template that the user accepted.
    template_id: Option<String>,
    /// `subscription`: the number of acceptances. Default: 1.
    #[schema(minimum = 1, maximum = 1000)]
    count: Option<u32>,
    /// `subscription`: the template is a long-term one: one acceptance permits any number of messages. Default: false.
    long_term: Option<bool>,
    /// When the client got the grant. Default: now. An id is valid for seven days from that time; a WeChat event within
    /// ten minutes of that time reports the same acceptance, which counts once.
    collected_at: Option<DateTime<Utc>>,
}

impl From<GrantReport> for grant::GrantRequest {
    fn from(report: GrantReport) -> Self {
        Self {
            kind: report.kind.into(),
            openid: report.openid,
            value: report.value,
            template_id: report.template_id,
            count: report.count,
            long_term: report.long_term,
            collected_at: report.collected_at,
        }
    }
}

impl GrantsRequest {
    /// The items at `now`. Fails if the list is empty or too long.
    pub(crate) fn items(self, now: DateTime<Utc>) -> Result<Vec<GrantEntry>, Problem> {
        let mut room = ErrorSpace::default();
        let grants = self.grants.each("grants")?;
        let items = grants.iter().map(|item| match checked(item, now) {
            Ok(grant) => GrantEntry::Grant(grant),
            Err(found) => GrantEntry::Unfit(room.words(found)),
        });
        Ok(items.collect())
    }
}

fn checked(item: &RawValue, now: DateTime<Utc>) -> Result<grant::NewGrant, Vec<Violation>> {
    let report: GrantReport = items::read(item)?;
    grant::GrantRequest::from(report).check(now)
}

/// The results of the grants.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GrantsAnswer {
    /// One result for each grant, in the order of the request.
    data: Vec<GrantResult>,
}

/// The result for one grant: `grant` or `error`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GrantResult {
    /// 201: the gateway has added the grant. 200: the id was known already. Otherwise the status of `error`.
    #[schema(example = 201)]
    status: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<Grant>,
    /// Why the grant was refused. The pointers count from the grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ProblemBody>)]
    error: Option<Value>,
}

impl GrantsAnswer {
    pub(crate) fn of(results: Vec<Collected>) -> Self {
        let data = results.into_iter().map(|result| match result {
            Collected::Added(grant) => GrantResult::taken(201, grant),
            Collected::Known(grant) => GrantResult::taken(200, grant),
            Collected::Foreign => GrantResult::refused(&words(&Problem::new(
                ProblemKind::Conflict,
                "this id was collected from another user and permits messages only to that user: check the openid",
            ))),
            Collected::Unfit(words) => GrantResult::refused(&words),
        });
        Self {
            data: data.collect(),
        }
    }
}

impl GrantResult {
    fn taken(status: u64, grant: store::Grant) -> Self {
        Self {
            status,
            grant: Some(grant.into()),
            error: None,
        }
    }

    fn refused(words: &str) -> Self {
        let error: Value = serde_json::from_str(words).unwrap_or_default();
        Self {
            status: error["status"].as_u64().unwrap_or_default(),
            grant: None,
            error: Some(error),
        }
    }
}

/// A stored grant, in the fields of its kind; the fields of other kinds are absent.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Grant {
    kind: GrantKind,
    #[schema(example = "oABC1234567890abcdefghijklmn")]
    openid: String,
    /// How many messages the grant still permits. For a long-term template any value but 0 means any number of messages.
    #[schema(example = 1)]
    remaining: u32,
    /// `form_id`, `prepay_id`: the id itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "7a7c56ca0e4f4d0c9b7d3f1e2a5b6c8d")]
    value: Option<String>,
    /// `form_id`, `prepay_id`: whether a message holds the id: a message that has not ended, or with an unknown arrival.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = false)]
    held: Option<bool>,
    /// `form_id`, `prepay_id`: when the client got the id.
    #[serde(skip_serializing_if = "Option::is_none")]
    collected_at: Option<Timestamp>,
    /// `form_id`, `prepay_id`: the time until which the gateway uses the id.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    /// `subscription`: the template.
    #[serde(skip_serializing_if = "Option::is_none")]
    template_id: Option<String>,
    /// `subscription`: whether sending leaves `remaining` unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    long_term: Option<bool>,
    /// `subscription`: when you last reported an acceptance.
    #[serde(skip_serializing_if = "Option::is_none")]
    reported_at: Option<Timestamp>,
    /// `subscription`: when WeChat last reported an acceptance.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmed_at: Option<Timestamp>,
    /// `subscription`: when the user last switched the template off.
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<Timestamp>,
}

impl From<store::Grant> for Grant {
    fn from(grant: store::Grant) -> Self {
        let blank = |kind, openid, remaining| Self {
            kind,
            openid,
            remaining,
            value: None,
            held: None,
            collected_at: None,
            expires_at: None,
            template_id: None,
            long_term: None,
            reported_at: None,
            confirmed_at: None,
            revoked_at: None,
        };
        match grant {
            store::Grant::Id(id) => {
                let kind = match id.kind {
                    grant::IdKind::FormId => GrantKind::FormId,
                    grant::IdKind::PrepayId => GrantKind::PrepayId,
                };
                Self {
                    value: Some(id.value),
                    held: Some(id.is_held),
                    collected_at: Some(id.collected_at.into()),
                    expires_at: Some(id.usable_until.into()),
                    ..blank(kind, id.openid, id.uses_left)
                }
            }
            store::Grant::Subscription(account) => Self {
                template_id: Some(account.template_id),
                long_term: Some(account.long_term),
                reported_at: account.reported_at.map(Into::into),
                confirmed_at: account.confirmed_at.map(Into::into),
                revoked_at: account.revoked_at.map(Into::into),
                ..blank(GrantKind::Subscription, account.openid, account.remaining)
            },
        }
    }
}

/// Which grants to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct GrantsQuery {
    /// List the grants of this user.
    pub(crate) openid: String,
    /// How many items at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl GrantsQuery {
    /// The store's page for this query.
    pub(crate) fn page(&self) -> Result<store::Page<GrantCursor>, Problem> {
        page::page::<Grant, _>(self.limit, self.cursor.as_deref())
    }
}

/// How many users an app can send a message to now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GrantsSummary {
    /// Users with form ids and prepay ids, for channel `template`.
    form_ids: PoolSummary,
    /// Users with accepted templates, for channel `subscribe`; templates that reach no user are absent.
    subscriptions: Vec<TemplateSummary>,
    /// When the grants were counted. With up to 10,000 grants the count is made now. With more grants the count is some
    /// seconds or minutes old, an hour after a long time without requests, and the request starts a new count.
    as_of: Timestamp,
}

/// The content of the form-id pool.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PoolSummary {
    /// Users that can get at least one message.
    #[schema(example = 812)]
    users: u64,
    /// Messages that can be sent.
    #[schema(example = 1204)]
    sends: u64,
    /// When the next id expires; null: the pool is empty.
    #[schema(required = true)]
    next_expiry_at: Option<Timestamp>,
}

/// The acceptances of one template.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TemplateSummary {
    #[schema(example = "8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k")]
    template_id: String,
    /// Users that can get at least one message.
    #[schema(example = 812)]
    users: u64,
    /// Messages that can be sent; a long-term template permits any number to each user.
    #[schema(example = 1204)]
    sends: u64,
}

impl From<store::GrantCount> for GrantsSummary {
    fn from(summary: store::GrantCount) -> Self {
        let subscriptions = summary.templates.into_iter().map(|count| TemplateSummary {
            template_id: count.template_id,
            users: count.users,
            sends: count.sends,
        });
        Self {
            form_ids: PoolSummary {
                users: summary.pool.users,
                sends: summary.pool.sends,
                next_expiry_at: summary.pool.next_expiry.map(Into::into),
            },
            subscriptions: subscriptions.collect(),
            as_of: summary.as_of.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::extract::{parse, parse_part};

    #[test]
    fn a_field_that_is_there_twice_is_refused() {
        let twice =
            br#"{"grants": [{"kind": "form_id", "openid": "a", "openid": "b", "value": "f1"}]}"#;
        let request: GrantsRequest = parse(twice).unwrap();
        let items = request.items(DateTime::UNIX_EPOCH).unwrap();
        assert!(
            matches!(&items[0], GrantEntry::Unfit(words) if words.contains("/openid") && words.contains("is given twice")),
            "{items:?}"
        );
    }

    fn items(grants: &Value) -> Result<Vec<GrantEntry>, Problem> {
        let request: GrantsRequest = parse_part(&json!({ "grants": grants }))?;
        request.items(DateTime::UNIX_EPOCH)
    }

    #[test]
    fn what_is_wrong_with_a_grant_is_told_from_the_grant() {
        let wrong = json!([
            "no object",
            {"kind": "form_id", "openid": "o1", "value": "the formId is a mock one"},
            {"kind": "subscription", "openid": "o1"},
            {"kind": "form_id", "openid": "o1", "value": "f1", "extra": 1},
            {"kind": "token", "openid": "o1", "value": "f1"},
        ]);
        let told = items(&wrong).unwrap().into_iter().map(|item| match item {
            GrantEntry::Unfit(words) => {
                let error = GrantResult::refused(&words).error.unwrap();
                error["errors"][0]["pointer"].as_str().unwrap().to_owned()
            }
            GrantEntry::Grant(_) => "fine".to_owned(),
        });
        let pointers: Vec<_> = told.collect();
        assert_eq!(pointers, ["", "/value", "/template_id", "/extra", "/kind"]);
    }

    #[test]
    fn a_request_has_1_to_1000_grants() {
        let fine = json!({"kind": "form_id", "openid": "o1", "value": "f1", "collected_at": null});
        for (count, taken) in [(0, false), (1, true), (1000, true), (1001, false)] {
            let items = items(&Value::Array(vec![fine.clone(); count]));
            assert_eq!(items.is_ok(), taken, "{count}");
        }
    }
}
