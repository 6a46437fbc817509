//! The generator of tokens, message ids and request ids.

use std::sync::atomic::{AtomicU64, Ordering};

/// The smallest message id: above 2^53, so that a client that reads JSON numbers as doubles fails.
const FIRST_MSGID: u64 = 4_103_297_716_205_551_617;

/// Generates values that never repeat within one simulator.
#[derive(Debug)]
pub(crate) struct IdGenerator {
    seed: u64,
    tokens: AtomicU64,
    messages: AtomicU64,
    requests: AtomicU64,
}

impl IdGenerator {
    /// A generator whose tokens differ from those of every other seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed: mix(seed),
            tokens: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        }
    }

    /// A token that looks like WeChat's samples: a number, `_`, and url-safe characters.
    pub(crate) fn token(&self) -> String {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let serial = self.tokens.fetch_add(1, Ordering::Relaxed);
        let mut state = mix(self.seed ^ mix(serial));
        let mut token = format!("{}_", 60 + serial % 40);
        for _ in 0..14 {
            state = mix(state);
            let mut bits = state;
            for _ in 0..10 {
                let place = usize::try_from(bits & 63).unwrap_or(0);
                token.push(char::from(ALPHABET[place]));
                bits >>= 6;
            }
        }
        token
    }

    /// The id of an accepted message.
    pub(crate) fn msgid(&self) -> u64 {
        FIRST_MSGID + self.messages.fetch_add(1, Ordering::Relaxed)
    }

    /// A number for a `rid` or another value that must differ from call to call.
    pub(crate) fn salt(&self) -> u64 {
        self.seed ^ self.requests.fetch_add(1, Ordering::Relaxed)
    }
}

/// Spreads a number over all 64 bits (the finaliser of `SplitMix64`).
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_look_like_wechats_and_differ() {
        let mint = IdGenerator::new(1);
        let (one, two) = (mint.token(), mint.token());
        assert_ne!(one, two);
        assert!(one.starts_with("60_") && one.len() > 100 && one.len() < 512);
        assert!(
            one.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        );
        assert_ne!(IdGenerator::new(2).token(), one);
        assert!(mint.msgid() > 1 << 53);
    }
}
