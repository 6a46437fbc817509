//! Form ids and prepay ids: the owner, the age and the uses left of each.

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use serde::{Deserialize, Serialize};

use crate::account::FormIdPolicy;
use crate::refusal::Refusal;

/// The lifetime of an id: seven days.
const LIFE_MS: i64 = 7 * 86_400_000;

/// The origin of an id, which decides how many messages the id permits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FormIdKind {
    /// A submitted form: one message.
    #[default]
    Form,
    /// A paid order: three messages.
    Prepay,
}

impl FormIdKind {
    /// The kind that an id's shape shows: `wx` and digits, or `prepay_…`, is a prepay id.
    pub(crate) fn of_shape(id: &str) -> Self {
        let payment = id.starts_with("prepay_")
            || id
                .strip_prefix("wx")
                .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
        if payment { Self::Prepay } else { Self::Form }
    }

    fn uses(self) -> u8 {
        match self {
            Self::Form => 1,
            Self::Prepay => 3,
        }
    }
}

/// An id that a test registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormId {
    /// The id.
    pub id: String,
    /// The user that produced the id; a send with the id to another user answers 41028.
    pub openid: String,
    /// The origin of the id.
    #[serde(default)]
    pub kind: FormIdKind,
    /// The start of the id's seven days, in milliseconds since 1970; `None` is now.
    #[serde(default)]
    pub made_at: Option<i64>,
}

#[derive(Debug)]
struct Held {
    openid: Box<str>,
    made_at: i64,
    left: u8,
}

/// The ids of one account.
#[derive(Debug, Default)]
pub(crate) struct FormIds(DashMap<Box<str>, Held>);

impl FormIds {
    /// Registers an id, or replaces the id of the same name.
    pub(crate) fn add(&self, form_id: FormId, now: i64) {
        self.0.insert(
            form_id.id.into(),
            Held {
                openid: form_id.openid.into(),
                made_at: form_id.made_at.unwrap_or(now),
                left: form_id.kind.uses(),
            },
        );
    }

    /// Uses an id for one message: 41028 for an unknown, expired or other user's id, 41029 for a used-up id.
    pub(crate) fn spend(
        &self,
        id: &str,
        openid: &str,
        now: i64,
        policy: FormIdPolicy,
    ) -> Result<(), Refusal> {
        if is_fake(id) {
            return Err(Refusal::known(41028));
        }
        let mut held = match (self.0.entry(id.into()), policy) {
            (Entry::Occupied(held), _) => held.into_ref(),
            (Entry::Vacant(_), FormIdPolicy::Known) => return Err(Refusal::known(41028)),
            (Entry::Vacant(place), FormIdPolicy::Any) => place.insert(Held {
                openid: openid.into(),
                made_at: now,
                left: FormIdKind::of_shape(id).uses(),
            }),
        };
        if &*held.openid != openid || now - held.made_at >= LIFE_MS {
            return Err(Refusal::known(41028));
        }
        held.left = held
            .left
            .checked_sub(1)
            .ok_or_else(|| Refusal::known(41029))?;
        Ok(())
    }
}

/// Whether the id is one of the texts that WeChat's client returns in place of a real id.
fn is_fake(id: &str) -> bool {
    matches!(id, "" | "undefined" | "null" | "the formId is a mock one")
        || id.starts_with("requestFormId:fail")
        || id.starts_with("the formId is no longer available")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(ids: &FormIds, id: &str, openid: &str, now: i64, policy: FormIdPolicy) -> i64 {
        ids.spend(id, openid, now, policy)
            .map_or_else(|refusal| refusal.code, |()| 0)
    }

    #[test]
    fn an_unseen_id_belongs_to_the_first_who_uses_it() {
        let ids = FormIds::default();
        assert_eq!(code(&ids, "f1", "o", 0, FormIdPolicy::Any), 0);
        assert_eq!(code(&ids, "f1", "o", 1, FormIdPolicy::Any), 41029);
        assert_eq!(code(&ids, "f1", "p", 1, FormIdPolicy::Any), 41028);
        assert_eq!(
            code(&ids, "the formId is a mock one", "o", 0, FormIdPolicy::Any),
            41028
        );
    }

    #[test]
    fn a_prepay_id_is_good_for_three() {
        let ids = FormIds::default();
        for id in ["wx20170304215222954be2703f0862", "prepay_1"] {
            let codes: Vec<_> = (0..4)
                .map(|now| code(&ids, id, "o", now, FormIdPolicy::Any))
                .collect();
            assert_eq!(codes, [0, 0, 0, 41029]);
        }
    }

    #[test]
    fn known_ids_expire_after_seven_days() {
        let ids = FormIds::default();
        for id in ["young", "old"] {
            let form_id = FormId {
                id: id.into(),
                openid: "o".into(),
                kind: FormIdKind::Form,
                made_at: Some(0),
            };
            ids.add(form_id, 5);
        }
        assert_eq!(
            code(&ids, "young", "o", LIFE_MS - 1, FormIdPolicy::Known),
            0
        );
        assert_eq!(code(&ids, "old", "o", LIFE_MS, FormIdPolicy::Known), 41028);
        assert_eq!(code(&ids, "unheard of", "o", 0, FormIdPolicy::Known), 41028);
    }
}
