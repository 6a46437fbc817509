//! The audit log in answers.

use chrono::{DateTime, Utc};
use domain::id::TenantId;
use serde::{Deserialize, Serialize};
use store::{Actor, AuditFilter, AuditLine};
use utoipa::{IntoParams, ToSchema};

use super::{page, time::Timestamp};
use crate::problem::Problem;

/// An action that was done or refused.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditEvent {
    #[schema(example = "evt_01jq2xv1cde8sbw7mv9v6a5kzq")]
    id: String,
    /// When the action happened.
    at: Timestamp,
    /// The actor: the id of a key, or `operator`, `cli` (the command line on the gateway's machine), `gateway` (the
    /// gateway itself). Operators see the id of an operator's key.
    #[schema(example = "key_01jq2xv1cde8sbw7mv9v6a5kzq")]
    actor: String,
    /// The action.
    #[schema(example = "app.set_secret")]
    action: String,
    /// The target of the action.
    #[schema(example = "wx0a1b2c3d4e5f6789")]
    target: String,
    /// `ok`, `refused`, or a word for an event that the gateway noticed by itself.
    #[schema(example = "ok")]
    outcome: String,
    /// More detail, in a sentence.
    #[schema(required = true)]
    detail: Option<String>,
    /// The id of the request that caused the action.
    #[schema(required = true)]
    request_id: Option<String>,
    /// The address of the request. Only operators see the addresses of operators.
    #[schema(required = true, example = "203.0.113.7")]
    address: Option<String>,
    /// The tenant to which this line belongs: for operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant_id: Option<String>,
}

impl AuditEvent {
    /// The line for a tenant, without the id and the address of an operator.
    pub(crate) fn for_tenant(line: AuditLine) -> Self {
        let operators = matches!(line.line.actor.parse(), Ok(Actor::Operator(_)));
        let event = Self::for_operator(line);
        let event = Self {
            tenant_id: None,
            ..event
        };
        if operators {
            return Self {
                actor: "operator".to_owned(),
                address: None,
                ..event
            };
        }
        event
    }

    /// The line for operators.
    pub(crate) fn for_operator(
        AuditLine {
            id,
            line,
            tenant,
            at,
        }: AuditLine,
    ) -> Self {
        let actor = match line.actor.parse() {
            Ok(Actor::Operator(key)) => key.to_string(),
            _ => line.actor,
        };
        Self {
            id: id.to_string(),
            at: at.into(),
            actor,
            action: line.action,
            target: line.target,
            outcome: line.outcome,
            detail: line.detail,
            request_id: line.request_id,
            address: line.address,
            tenant_id: tenant.map(|tenant| tenant.to_string()),
        }
    }
}

/// Which lines of the log to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditQuery {
    /// Only lines of this tenant: for operators.
    tenant_id: Option<String>,
    /// Only lines of this action, such as `key.revoke`.
    action: Option<String>,
    /// Only lines about this target: an id or appid.
    target: Option<String>,
    /// Only lines of this time or later (RFC 3339; write `+` as `%2B`).
    created_after: Option<DateTime<Utc>>,
    /// Only lines before this time (RFC 3339; write `+` as `%2B`).
    created_before: Option<DateTime<Utc>>,
    /// How many items at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl AuditQuery {
    /// The tenant in the query.
    pub(crate) fn tenant(&self) -> Result<Option<TenantId>, Problem> {
        let named = self.tenant_id.as_ref().map(|text| text.parse());
        named.transpose().map_err(|_| {
            Problem::invalid_request(
                "`tenant_id` is not the id of a tenant: GET /v1/tenants lists the tenants",
            )
        })
    }

    /// The store's filter and page for this query.
    pub(crate) fn split(self) -> Result<(AuditFilter, store::Page), Problem> {
        let page = page::page::<AuditEvent, _>(self.limit, self.cursor.as_deref())?;
        let filter = AuditFilter {
            action: self.action,
            target: self.target,
            created_after: self.created_after,
            created_before: self.created_before,
        };
        Ok((filter, page))
    }
}

#[cfg(test)]
mod tests {
    use domain::id;
    use store::Origin;

    use super::*;

    #[test]
    fn a_tenant_is_not_told_which_operator_it_was() {
        let key = id::new(DateTime::UNIX_EPOCH, 0, 1);
        let line = |actor| AuditLine {
            id: id::new(DateTime::UNIX_EPOCH, 0, 2),
            line: Origin {
                actor,
                request_id: Some("r".into()),
                address: Some([192, 0, 2, 1].into()),
            }
            .did("tenant.update", &"ten_1"),
            tenant: Some(id::new(DateTime::UNIX_EPOCH, 0, 3)),
            at: DateTime::UNIX_EPOCH,
        };
        let told = AuditEvent::for_tenant(line(Actor::Operator(key)));
        assert_eq!((told.actor.as_str(), told.address), ("operator", None));
        assert_eq!(told.tenant_id, None);
        let own = AuditEvent::for_tenant(line(Actor::Key(key)));
        assert_eq!(
            (own.actor, own.address.as_deref()),
            (key.to_string(), Some("192.0.2.1"))
        );
        let all = AuditEvent::for_operator(line(Actor::Operator(key)));
        assert_eq!(
            (all.actor, all.address.as_deref()),
            (key.to_string(), Some("192.0.2.1"))
        );
        assert!(all.tenant_id.is_some());
    }
}
