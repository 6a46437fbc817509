//! WeChat's signature: SHA-1, in hex, over the sorted parts.

use domain::secret::CallbackToken;
use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;

/// The signature of a request or, with `ciphertext`, of an encrypted body.
pub(super) fn of(
    token: &CallbackToken,
    timestamp: &str,
    nonce: &str,
    ciphertext: Option<&str>,
) -> String {
    let mut parts = vec![token.expose(), timestamp, nonce];
    parts.extend(ciphertext);
    parts.sort_unstable();
    let mut digest = Sha1::new();
    for part in parts {
        digest.update(part.as_bytes());
    }
    let mut hex = String::with_capacity(40);
    for byte in digest.finalize() {
        for digit in [byte >> 4, byte & 15] {
            hex.extend(char::from_digit(digit.into(), 16));
        }
    }
    hex
}

/// Whether both texts are equal, compared in constant time.
pub(super) fn equal(right: &str, claimed: &str) -> bool {
    right.as_bytes().ct_eq(claimed.as_bytes()).into()
}
