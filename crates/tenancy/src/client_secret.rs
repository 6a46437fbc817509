//! The format of client secrets, and how to check a secret that is not stored.
//!
//! A secret is `wxg_` (which secret scanners can look for), the 26 characters of the key's TypeID, `_`, 160 random bits
//! in 32 characters, and a checksum of 6 characters. So a secret alone names the key, and a mistyped or truncated
//! secret is refused without a query to the database. The database stores only an HMAC under a key that is sealed in
//! the database: with a stolen database, but without the master key, guesses cannot be checked.

use domain::{
    id::KeyId,
    secret::{ClientSecret, Pepper},
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const PREFIX: &str = "wxg_";
const KEY_PREFIX: &str = "key_";
const KEY_CHARS: usize = 26;
const RANDOM_BYTES: usize = 20;
const CHECKSUM_CHARS: usize = 6;
const LENGTH: usize = PREFIX.len() + KEY_CHARS + 1 + RANDOM_BYTES * 8 / 5 + CHECKSUM_CHARS;

/// Crockford's alphabet, as TypeIDs use it: no letter looks like a digit.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Generates a secret for `key`.
pub(crate) fn mint(key: KeyId) -> ClientSecret {
    let random: [u8; RANDOM_BYTES] = rand::random();
    let key = key.to_string();
    let body = format!(
        "{PREFIX}{}_{}",
        key.trim_start_matches(KEY_PREFIX),
        base32(&random)
    );
    let checksum = checksum(&body);
    ClientSecret::new(body + &checksum)
}

/// The key that `secret` names; `None`: `secret` does not have the format of this gateway.
pub(crate) fn key_of(secret: &ClientSecret) -> Option<KeyId> {
    let text = secret.expose();
    if text.len() != LENGTH || !text.is_ascii() {
        return None;
    }
    let (body, sum) = text.split_at(LENGTH - CHECKSUM_CHARS);
    if checksum(body) != sum {
        return None;
    }
    let key = body.strip_prefix(PREFIX)?.get(..KEY_CHARS)?;
    format!("{KEY_PREFIX}{key}").parse().ok()
}

/// The hash of a secret, to store.
pub(crate) fn hash(pepper: &Pepper, secret: &ClientSecret) -> Vec<u8> {
    mac(pepper, secret).finalize().into_bytes().to_vec()
}

/// Whether `kept` is the hash of `secret`, in constant time.
pub(crate) fn matches(pepper: &Pepper, secret: &ClientSecret, kept: &[u8]) -> bool {
    hash(pepper, secret).ct_eq(kept).into()
}

fn mac(pepper: &Pepper, secret: &ClientSecret) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mac =
        Hmac::<Sha256>::new_from_slice(pepper.expose().as_bytes()).expect("any length will do");
    mac.chain_update(secret.expose())
}

/// The first 30 bits of a SHA-256: detects errors of typing and copying, and proves nothing.
fn checksum(body: &str) -> String {
    let digest = Sha256::digest(body);
    base32(&digest[..5])[..CHECKSUM_CHARS].to_owned()
}

/// Encodes five bits a character, most significant bits first. The length of `bytes` must be a multiple of five.
fn base32(bytes: &[u8]) -> String {
    let letters = bytes.chunks(5).flat_map(|chunk| {
        let bits = chunk
            .iter()
            .fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        (0..8).rev().map(move |at| {
            char::from(ALPHABET[usize::try_from(bits >> (5 * at) & 31).unwrap_or(0)])
        })
    });
    letters.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use domain::id;

    #[test]
    fn a_secret_names_its_key() {
        let key = id::new(DateTime::UNIX_EPOCH, 3, 77);
        let secret = mint(key);
        assert_eq!(key_of(&secret), Some(key));
        assert_eq!(secret.expose().len(), LENGTH);
        assert_ne!(mint(key).expose(), secret.expose());
    }

    #[test]
    fn any_slip_is_noticed() {
        let secret = mint(id::new(DateTime::UNIX_EPOCH, 3, 77));
        let text = secret.expose();
        for at in 0..text.len() {
            let mut slip = text.as_bytes().to_vec();
            slip[at] = if slip[at] == b'a' { b'b' } else { b'a' };
            let slip = ClientSecret::new(String::from_utf8(slip).unwrap());
            assert_eq!(key_of(&slip), None, "at {at}");
        }
        for wrong in [
            "",
            "wxg_",
            &text[1..],
            &text[..text.len() - 1],
            &format!("{text}0"),
            &text.to_uppercase(),
        ] {
            assert_eq!(key_of(&ClientSecret::new(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn hashes_differ_by_secret_and_by_pepper() {
        let (ours, theirs) = (Pepper::new("one"), Pepper::new("two"));
        let key = id::new(DateTime::UNIX_EPOCH, 0, 5);
        let (secret, other) = (mint(key), mint(key));
        let kept = hash(&ours, &secret);
        assert!(matches(&ours, &secret, &kept));
        assert!(
            !matches(&ours, &other, &kept)
                && !matches(&theirs, &secret, &kept)
                && !matches(&ours, &secret, &[])
        );
    }

    #[test]
    fn base32_puts_the_first_bits_first() {
        assert_eq!(base32(&[0xff, 0, 0, 0, 0]), "zw000000");
        assert_eq!(base32(&[0, 0, 0, 0, 1]), "00000001");
    }
}
