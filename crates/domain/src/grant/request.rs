//! The grant in a tenant's report, and the check that makes a [`NewGrant`] of the report.

use chrono::{DateTime, Duration, Utc};

use super::{IdKind, bare_prepay_id, invalid_id_reason, usable_until};
use crate::violation::Violation;

const MAX_ID: usize = 128;
const MAX_COUNT: u32 = 1000;
/// How far ahead the tenant's clock may be.
const AHEAD: Duration = Duration::minutes(5);

/// The kind of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GrantKind {
    /// A form id: one message within seven days.
    FormId,
    /// A prepay id: three messages within seven days.
    PrepayId,
    /// A template that the user accepted.
    Subscription,
}

/// A grant in a tenant's report, before the check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the fields are those of the public API, described there and on `NewGrant`"
)]
pub struct GrantRequest {
    pub kind: GrantKind,
    pub openid: String,
    pub value: Option<String>,
    pub template_id: Option<String>,
    pub count: Option<u32>,
    pub long_term: Option<bool>,
    pub collected_at: Option<DateTime<Utc>>,
}

/// A checked grant: every field obeys its rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewGrant {
    /// An id for the form-id pool.
    Id {
        /// What produced the id.
        kind: IdKind,
        /// The openid of the user that produced the id: the id permits messages to this openid only.
        openid: String,
        /// The id itself.
        value: String,
        /// When the id was produced.
        collected_at: DateTime<Utc>,
    },
    /// Acceptances for the subscription ledger.
    Subscription {
        /// The openid of the user that accepted.
        openid: String,
        /// The accepted template.
        template_id: String,
        /// How many times the user accepted.
        count: u32,
        /// Whether the template is a long-term one.
        long_term: bool,
        /// The time of the last acceptance.
        accepted_at: DateTime<Utc>,
    },
}

impl GrantRequest {
    /// Checks every field and returns all violations at once.
    pub fn check(self, now: DateTime<Utc>) -> Result<NewGrant, Vec<Violation>> {
        let mut found = Vec::new();
        check_id(&self.openid, "/openid", "the user's openid", &mut found);
        if self.collected_at.is_some_and(|at| at > now + AHEAD) {
            found.push(Violation::new(
                "/collected_at",
                "lies in the future: send the time at which the client got the grant, in UTC or with the offset from UTC",
            ));
        }
        let at = self.collected_at.unwrap_or(now).min(now);
        let grant = match self.kind {
            GrantKind::FormId => self.id(IdKind::FormId, at, now, &mut found),
            GrantKind::PrepayId => self.id(IdKind::PrepayId, at, now, &mut found),
            GrantKind::Subscription => self.subscription(at, &mut found),
        };
        if found.is_empty() {
            Ok(grant)
        } else {
            Err(found)
        }
    }

    fn id(
        self,
        kind: IdKind,
        collected_at: DateTime<Utc>,
        now: DateTime<Utc>,
        found: &mut Vec<Violation>,
    ) -> NewGrant {
        for (present, pointer) in [
            (self.template_id.is_some(), "/template_id"),
            (self.count.is_some(), "/count"),
            (self.long_term.is_some(), "/long_term"),
        ] {
            refuse_foreign(present, pointer, "kind `subscription`", found);
        }
        let mut value = self.value.unwrap_or_default();
        if let Some(bare) = bare_prepay_id(&value) {
            value = bare.to_owned();
        }
        match invalid_id_reason(&value) {
            Some(why) => found.push(Violation::new("/value", why)),
            None => check_text(&value, "/value", "the unchanged id from the client", found),
        }
        if usable_until(collected_at) <= now {
            found.push(Violation::new(
                "/collected_at",
                "WeChat accepts an id for seven days after its creation, and this id is too old: discard the id",
            ));
        }
        NewGrant::Id {
            kind,
            openid: self.openid,
            value,
            collected_at,
        }
    }

    fn subscription(self, accepted_at: DateTime<Utc>, found: &mut Vec<Violation>) -> NewGrant {
        let names = "kinds `form_id` and `prepay_id`";
        refuse_foreign(self.value.is_some(), "/value", names, found);
        let template_id = self.template_id.unwrap_or_default();
        check_id(
            &template_id,
            "/template_id",
            "the template that the user accepted",
            found,
        );
        let count = self.count.unwrap_or(1);
        if !(1..=MAX_COUNT).contains(&count) {
            let rule =
                format!("must be 1 to {MAX_COUNT}, the number of times that the user accepted");
            found.push(Violation::new("/count", rule));
        }
        NewGrant::Subscription {
            openid: self.openid,
            template_id,
            count,
            long_term: self.long_term.unwrap_or_default(),
            accepted_at,
        }
    }
}

/// Refuses a field that belongs to another kind, because the gateway would otherwise drop the field silently.
fn refuse_foreign(present: bool, pointer: &str, names: &str, found: &mut Vec<Violation>) {
    if present {
        let rule = format!("belongs to {names}, not to the kind of this grant");
        found.push(Violation::new(pointer, rule));
    }
}

fn check_id(value: &str, pointer: &str, what: &str, found: &mut Vec<Violation>) {
    if value.chars().any(char::is_whitespace) {
        let rule = format!("must be {what}, without blanks");
        found.push(Violation::new(pointer, rule));
    } else {
        check_text(value, pointer, what, found);
    }
}

fn check_text(value: &str, pointer: &str, what: &str, found: &mut Vec<Violation>) {
    let fine = (1..=MAX_ID).contains(&value.len()) && !value.chars().any(char::is_control);
    if !fine {
        let rule = format!("must be {what}: 1 to {MAX_ID} bytes without control characters");
        found.push(Violation::new(pointer, rule));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000, 0).unwrap()
    }

    fn request(kind: GrantKind) -> GrantRequest {
        GrantRequest {
            kind,
            openid: "o1".into(),
            value: None,
            template_id: None,
            count: None,
            long_term: None,
            collected_at: None,
        }
    }

    fn pointers(request: GrantRequest) -> Vec<String> {
        let found = request.check(now()).unwrap_err().into_iter();
        found.map(|violation| violation.pointer).collect()
    }

    #[test]
    fn a_report_needs_no_more_than_the_contract_says() {
        let id = GrantRequest {
            value: Some("f1".into()),
            ..request(GrantKind::FormId)
        };
        let expected = NewGrant::Id {
            kind: IdKind::FormId,
            openid: "o1".into(),
            value: "f1".into(),
            collected_at: now(),
        };
        assert_eq!(id.check(now()), Ok(expected));
        let subscription = GrantRequest {
            template_id: Some("t1".into()),
            ..request(GrantKind::Subscription)
        };
        let expected = NewGrant::Subscription {
            openid: "o1".into(),
            template_id: "t1".into(),
            count: 1,
            long_term: false,
            accepted_at: now(),
        };
        assert_eq!(subscription.check(now()), Ok(expected));
    }

    #[test]
    fn the_prefix_of_a_prepay_id_is_cut() {
        let of = |kind, value: &str| {
            let request = GrantRequest {
                value: Some(value.into()),
                ..request(kind)
            };
            match request.check(now()) {
                Ok(NewGrant::Id { value, .. }) => Ok(value),
                Ok(other) => panic!("{other:?}"),
                Err(found) => Err(found.len()),
            }
        };
        let id = "wx20170304215222954be2703f0862";
        for kind in [GrantKind::PrepayId, GrantKind::FormId] {
            assert_eq!(of(kind, &format!("prepay_id={id}")).as_deref(), Ok(id));
            assert_eq!(of(kind, id).as_deref(), Ok(id));
            assert_eq!(of(kind, "prepay_id="), Err(1));
            assert_eq!(of(kind, "prepay_id=undefined"), Err(1));
        }
    }

    #[test]
    fn every_offending_field_is_told_at_once() {
        let wrong = GrantRequest {
            openid: "o 1".into(),
            value: Some("the formId is a mock one".into()),
            template_id: Some("t".into()),
            count: Some(1),
            ..request(GrantKind::FormId)
        };
        assert_eq!(
            pointers(wrong),
            ["/openid", "/template_id", "/count", "/value"]
        );
        let wrong = GrantRequest {
            value: Some("f".into()),
            count: Some(0),
            collected_at: Some(now() + Duration::hours(1)),
            ..request(GrantKind::Subscription)
        };
        assert_eq!(
            pointers(wrong),
            ["/collected_at", "/value", "/template_id", "/count"]
        );
        assert_eq!(pointers(request(GrantKind::PrepayId)), ["/value"]);
    }

    #[test]
    fn an_id_that_wechat_will_soon_refuse_is_too_old() {
        let collected = |age: Duration| GrantRequest {
            value: Some("f1".into()),
            collected_at: Some(now() - age),
            ..request(GrantKind::FormId)
        };
        let limit = Duration::days(7) - Duration::hours(1);
        assert_eq!(pointers(collected(limit)), ["/collected_at"]);
        assert!(collected(limit - Duration::seconds(1)).check(now()).is_ok());
    }
}
