//! Estimates of a message's reach.

use std::collections::BTreeSet;

use domain::{message, violation::Violation};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::words::Channel;
use crate::problem::Problem;

/// The largest number of users in one estimate.
const MOST_USERS: usize = 10_000;
const MAX_ID: usize = 128;

/// The message and the users of an estimate.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReachRequest {
    /// `subscribe` looks into the subscription ledger, `template` into the form-id pool. Default: `subscribe`.
    channel: Option<Channel>,
    /// The template's id in the account.
    #[schema(example = "8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k")]
    template_id: String,
    /// 1 to 10000 users; a repeated user counts once.
    #[schema(min_items = 1, max_items = 10_000, example = json!(["oABC1234567890abcdefghijklmn"]))]
    openids: Vec<String>,
}

impl ReachRequest {
    /// Checks the fields and returns the channel, which must be one that needs grants.
    pub(crate) fn check(&self) -> Result<message::Channel, Problem> {
        let mut found = Vec::new();
        if self.channel == Some(Channel::Official) {
            let rule = "must be `subscribe` or `template`: messages of official accounts reach every follower without a grant";
            found.push(Violation::new("/channel", rule));
        }
        let fits = |id: &str| (1..=MAX_ID).contains(&id.len()) && !id.contains(char::is_control);
        if !fits(&self.template_id) {
            let rule =
                format!("must be the template's id in the account: 1 to {MAX_ID} characters");
            found.push(Violation::new("/template_id", rule));
        }
        if self.openids.is_empty() || self.openids.len() > MOST_USERS {
            let rule = format!(
                "must have 1 to {MOST_USERS} openids: split a longer list into several requests"
            );
            found.push(Violation::new("/openids", rule));
        }
        if let Some(place) = self.openids.iter().position(|openid| !fits(openid)) {
            let rule = format!("must be a user's openid: 1 to {MAX_ID} characters");
            found.push(Violation::new(format!("/openids/{place}"), rule));
        }
        if found.is_empty() {
            Ok(self.channel.map(Into::into).unwrap_or_default())
        } else {
            Err(found.into())
        }
    }

    /// The template.
    pub(crate) fn template_id(&self) -> &str {
        &self.template_id
    }

    /// The users, each once.
    pub(crate) fn openids(&self) -> Vec<&str> {
        let users: BTreeSet<&str> = self.openids.iter().map(String::as_str).collect();
        users.into_iter().collect()
    }
}

/// How many users a message would reach now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Reach {
    /// Different users in the request.
    #[schema(example = 1000)]
    users: u64,
    /// Users with a grant.
    #[schema(example = 812)]
    reachable: u64,
    /// Users that have switched the template off.
    #[schema(example = 12)]
    revoked: u64,
    /// The other users: the gateway knows no grant of these users. Under `observe` the gateway tries to send nevertheless.
    #[schema(example = 176)]
    unknown: u64,
}

impl From<store::Reach> for Reach {
    fn from(reach: store::Reach) -> Self {
        let store::Reach {
            users,
            reachable,
            revoked,
        } = reach;
        Self {
            users,
            reachable,
            revoked,
            unknown: users.saturating_sub(reachable + revoked),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::extract::parse_part;

    #[test]
    fn users_are_counted_once() {
        let request = |body: Value| parse_part::<ReachRequest>(&body).unwrap();
        let twice = request(json!({"template_id": "t", "openids": ["o2", "o1", "o2"]}));
        assert_eq!(twice.check().unwrap(), message::Channel::Subscribe);
        assert_eq!(twice.openids(), ["o1", "o2"]);
        let wrong = json!({"channel": "official", "template_id": "", "openids": ["o1", ""]});
        let errors = request(wrong).check().unwrap_err().into_errors();
        let pointers: Vec<_> = errors.into_iter().map(|error| error.pointer).collect();
        assert_eq!(pointers, ["/channel", "/template_id", "/openids/1"]);
        let many = json!({"template_id": "t", "openids": vec!["o"; MOST_USERS + 1]});
        assert!(request(many).check().is_err());
    }
}
