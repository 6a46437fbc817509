//! How many messages of each template a user has accepted.

use dashmap::DashMap;

use crate::refusal::Refusal;

/// The grants of one account, by user and template.
#[derive(Debug, Default)]
pub(crate) struct AccountGrants(DashMap<Box<str>, u32>);

fn key(openid: &str, template: &str) -> Box<str> {
    format!("{openid}\0{template}").into()
}

impl AccountGrants {
    /// Adds grants of a user for a template.
    pub(crate) fn add(&self, openid: &str, template: &str, count: u32) {
        let mut left = self.0.entry(key(openid, template)).or_insert(0);
        *left = left.saturating_add(count);
    }

    /// The number of grants left.
    pub(crate) fn left(&self, openid: &str, template: &str) -> u32 {
        self.0.get(&key(openid, template)).map_or(0, |left| *left)
    }

    /// Removes all grants of a user for a template.
    pub(crate) fn revoke(&self, openid: &str, template: &str) {
        self.0.remove(&key(openid, template));
    }

    /// Uses up one grant; 43101 if none is left. A long-term grant must exist but is not used up.
    pub(crate) fn spend(
        &self,
        openid: &str,
        template: &str,
        long_term: bool,
    ) -> Result<(), Refusal> {
        match self.0.get_mut(&key(openid, template)) {
            Some(mut left) if *left > 0 => {
                *left -= u32::from(!long_term);
                Ok(())
            }
            _ => Err(Refusal::known(43101)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_one_time_grant_is_used_up_and_a_long_term_one_is_not() {
        let grants = AccountGrants::default();
        grants.add("o", "t", 1);
        assert!(grants.spend("o", "t", true).is_ok());
        assert!(grants.spend("o", "t", false).is_ok());
        assert_eq!(grants.spend("o", "t", false).unwrap_err().code, 43101);
        assert_eq!(grants.spend("p", "t", true).unwrap_err().code, 43101);
        grants.add("o", "t", 5);
        grants.revoke("o", "t");
        assert_eq!(grants.left("o", "t"), 0);
    }
}
