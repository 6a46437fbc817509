//! Requests with many items, each with a result of its own.

use domain::violation::{self, Violation};

use crate::problem::{MOST_ERRORS, Problem};

/// How many broken rules an answer tells of beside the first of each item.
const MOST_MORE: usize = 1000;

/// The room that an answer has for what is wrong with its items, so that it does not outgrow its request by much.
#[derive(Debug)]
pub(super) struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(MOST_MORE)
    }
}

impl Room {
    /// What is wrong with an item, as [`words`]: the first of it, and of the rest what there is room for.
    pub(super) fn words(&mut self, found: Vec<Violation>) -> String {
        let told = violation::first(found, MOST_ERRORS.min(1 + self.0));
        self.0 -= told.len().saturating_sub(1);
        words(&told.into())
    }
}

/// The problem as it will be told, in a replay too.
pub(super) fn words(problem: &Problem) -> String {
    serde_json::to_string(&problem.body(None)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn an_answer_has_room_for_the_first_fault_of_each_item_and_for_some_more() {
        let mut room = Room::default();
        let mut told = || {
            let found = vec![Violation::new("/data", "is wrong"); 150];
            let problem: Value = serde_json::from_str(&room.words(found)).unwrap();
            let errors = problem["errors"].as_array().unwrap().clone();
            let last = errors.last().unwrap()["detail"].as_str().unwrap();
            (errors.len(), last.to_owned())
        };
        for _ in 0..10 {
            assert_eq!(
                told(),
                (100, "is wrong (and 50 more rules are broken)".to_owned())
            );
        }
        assert_eq!(told().0, 11);
        assert_eq!(
            told(),
            (1, "is wrong (and 149 more rules are broken)".to_owned())
        );
    }
}
