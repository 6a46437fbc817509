//! The access tokens of one account: which fetch overwrites which token, and when each token ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::refusal::Refusal;

/// How long an overwritten token stays valid, and how long before the end a stable token is renewed.
const OVERLAP_MS: i64 = 300_000;
/// Forced refreshes closer together than this have no effect.
const FORCE_GAP_MS: i64 = 30_000;

/// One issued token.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) text: Box<str>,
    expires_at: i64,
    /// When a newer token makes this one invalid: 40001 from then on.
    overwritten_at: AtomicI64,
}

impl Ticket {
    fn new(text: String, now: i64, ttl_ms: i64) -> Arc<Self> {
        Arc::new(Self {
            text: text.into(),
            expires_at: now + ttl_ms,
            overwritten_at: AtomicI64::new(i64::MAX),
        })
    }

    fn overwrite(&self, at: i64) {
        self.overwritten_at.fetch_min(at, Ordering::Relaxed);
    }

    /// Fails if the token has expired (42001) or was overwritten (40001).
    pub(crate) fn check(&self, now: i64) -> Result<(), Refusal> {
        if now >= self.expires_at {
            Err(Refusal::known(42001))
        } else if now >= self.overwritten_at.load(Ordering::Relaxed) {
            Err(Refusal::known(40001))
        } else {
            Ok(())
        }
    }

    /// The remaining lifetime in whole seconds.
    pub(crate) fn expires_in(&self, now: i64) -> i64 {
        (self.expires_at - now).div_euclid(1_000)
    }

    fn lives(&self, now: i64) -> bool {
        self.check(now).is_ok()
    }
}

/// The tokens of one account. Legacy and stable tokens do not affect each other.
#[derive(Debug, Default)]
pub(crate) struct TokenBook {
    legacy: Option<Arc<Ticket>>,
    legacy_before: Option<Arc<Ticket>>,
    stable: Option<Arc<Ticket>>,
    stable_before: Option<Arc<Ticket>>,
    forced_at: Option<i64>,
}

impl TokenBook {
    /// `GET /cgi-bin/token`: a new token each time. The token before stays valid for five more minutes; the one before
    /// that ends now.
    pub(crate) fn fetch_legacy(&mut self, text: String, now: i64, ttl_ms: i64) -> Arc<Ticket> {
        if let Some(before) = self.legacy_before.take() {
            before.overwrite(now);
        }
        self.legacy_before = self
            .legacy
            .take()
            .inspect(|last| last.overwrite(now + OVERLAP_MS));
        let ticket = Ticket::new(text, now, ttl_ms);
        self.legacy = Some(Arc::clone(&ticket));
        ticket
    }

    /// The texts of the current and previous tokens, including invalid ones.
    pub(crate) fn texts(&self) -> Vec<String> {
        let all = [
            &self.legacy,
            &self.legacy_before,
            &self.stable,
            &self.stable_before,
        ];
        let tickets = all.into_iter().flatten();
        tickets.map(|ticket| ticket.text.to_string()).collect()
    }

    /// Ends every token at once, with no overlap, as when the tenant resets something or a leak is closed.
    pub(crate) fn kill_all(&mut self, now: i64) {
        let all = [
            self.legacy.take(),
            self.legacy_before.take(),
            self.stable.take(),
            self.stable_before.take(),
        ];
        for ticket in all.into_iter().flatten() {
            ticket.overwrite(now);
        }
    }

    /// `POST /cgi-bin/stable_token`, normal mode: the current token if more than five minutes (or half of a short
    /// lifetime) are left; otherwise a new token, beside which the old one stays valid until the old one expires.
    pub(crate) fn fetch_stable(
        &mut self,
        mint: impl FnOnce() -> String,
        now: i64,
        ttl_ms: i64,
    ) -> Arc<Ticket> {
        let margin = OVERLAP_MS.min(ttl_ms / 2);
        if let Some(current) = &self.stable
            && current.lives(now)
            && now < current.expires_at - margin
        {
            return Arc::clone(current);
        }
        let ticket = Ticket::new(mint(), now, ttl_ms);
        self.stable_before = self.stable.replace(Arc::clone(&ticket));
        ticket
    }

    /// Whether a forced refresh has an effect now.
    pub(crate) fn may_force(&self, now: i64) -> bool {
        self.forced_at.is_none_or(|last| now - last >= FORCE_GAP_MS)
    }

    /// `POST /cgi-bin/stable_token`, forced mode: a new token; the current one ends at once.
    pub(crate) fn force_stable(&mut self, text: String, now: i64, ttl_ms: i64) -> Arc<Ticket> {
        self.forced_at = Some(now);
        for old in [self.stable.take(), self.stable_before.take()]
            .into_iter()
            .flatten()
        {
            old.overwrite(now);
        }
        let ticket = Ticket::new(text, now, ttl_ms);
        self.stable = Some(Arc::clone(&ticket));
        ticket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: i64 = 7_200_000;
    const MINUTE: i64 = 60_000;

    fn code(ticket: &Ticket, now: i64) -> i64 {
        ticket
            .check(now)
            .map_or_else(|refusal| refusal.code, |()| 0)
    }

    #[test]
    fn an_overwritten_legacy_token_lives_five_more_minutes() {
        let mut book = TokenBook::default();
        let first = book.fetch_legacy("a".into(), 0, TTL);
        let second = book.fetch_legacy("b".into(), MINUTE, TTL);
        assert_eq!(code(&first, 6 * MINUTE - 1), 0);
        assert_eq!(code(&first, 6 * MINUTE), 40001);
        assert_eq!(code(&second, TTL + MINUTE - 1), 0);
        assert_eq!(code(&second, TTL + MINUTE), 42001);
    }

    #[test]
    fn only_the_last_two_legacy_tokens_are_valid() {
        let mut book = TokenBook::default();
        let first = book.fetch_legacy("a".into(), 0, TTL);
        let second = book.fetch_legacy("b".into(), 1, TTL);
        let third = book.fetch_legacy("c".into(), 2, TTL);
        assert_eq!(
            [code(&first, 3), code(&second, 3), code(&third, 3)],
            [40001, 0, 0]
        );
    }

    #[test]
    fn a_stable_token_stays_until_five_minutes_before_its_end() {
        let mut book = TokenBook::default();
        let first = book.fetch_stable(|| "a".into(), 0, TTL);
        let same = book.fetch_stable(|| "b".into(), TTL - 5 * MINUTE - 1, TTL);
        assert_eq!(
            (&*same.text, same.expires_in(TTL - 5 * MINUTE - 1)),
            ("a", 300)
        );
        let next = book.fetch_stable(|| "b".into(), TTL - 5 * MINUTE, TTL);
        assert_eq!(&*next.text, "b");
        assert_eq!([code(&first, TTL - 1), code(&first, TTL)], [0, 42001]);
    }

    #[test]
    fn a_forced_refresh_kills_the_current_token_but_not_more_than_twice_a_minute() {
        let mut book = TokenBook::default();
        let legacy = book.fetch_legacy("l".into(), 0, TTL);
        let first = book.fetch_stable(|| "a".into(), 0, TTL);
        assert!(book.may_force(1));
        let second = book.force_stable("b".into(), 1, TTL);
        assert_eq!(
            [code(&first, 1), code(&second, 1), code(&legacy, 1)],
            [40001, 0, 0]
        );
        assert!(!book.may_force(30_000));
        assert!(book.may_force(30_001));
    }

    #[test]
    fn killing_leaves_no_overlap() {
        let mut book = TokenBook::default();
        let legacy = book.fetch_legacy("l".into(), 0, TTL);
        let stable = book.fetch_stable(|| "s".into(), 0, TTL);
        book.kill_all(5);
        assert_eq!([code(&legacy, 5), code(&stable, 5)], [40001, 40001]);
        assert_eq!(&*book.fetch_stable(|| "n".into(), 6, TTL).text, "n");
    }
}
