//! Signatures after [Standard Webhooks](https://www.standardwebhooks.com).

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use domain::secret::WebhookSecret;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The prefix of every secret.
const PREFIX: &str = "whsec_";

/// A new secret from 32 random bytes.
pub(super) fn secret(random: [u8; 32]) -> WebhookSecret {
    WebhookSecret::new(format!("{PREFIX}{}", BASE64_STANDARD.encode(random)))
}

/// The value of `webhook-signature`: one signature for each secret, separated by blanks.
pub(super) fn sign(
    secrets: &[WebhookSecret],
    event: &str,
    at: DateTime<Utc>,
    body: &[u8],
) -> String {
    let signatures: Vec<String> = secrets
        .iter()
        .filter_map(|secret| one(secret, event, at, body))
        .collect();
    signatures.join(" ")
}

fn one(secret: &WebhookSecret, event: &str, at: DateTime<Utc>, body: &[u8]) -> Option<String> {
    let key = secret.expose().strip_prefix(PREFIX)?;
    let key = zeroize::Zeroizing::new(BASE64_STANDARD.decode(key).ok()?);
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(format!("{event}.{}.", at.timestamp()).as_bytes());
    mac.update(body);
    let digest = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    Some(format!("v1,{digest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn signs_as_the_specification_does() {
        let secret = WebhookSecret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let at = DateTime::from_timestamp(1_614_265_330, 0).unwrap();
        let signed = sign(
            &[secret],
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            at,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_secret_signs() {
        let secrets = [secret([1; 32]), secret([2; 32])];
        let signed = sign(&secrets, "evt_1", DateTime::UNIX_EPOCH, b"{}");
        let parts: Vec<&str> = signed.split(' ').collect();
        assert!(parts.len() == 2 && parts[0] != parts[1], "{signed}");
        for (secret, part) in secrets.iter().zip(parts) {
            let webhook = standardwebhooks::Webhook::new(secret.expose()).unwrap();
            let theirs = webhook.sign("evt_1", 0, b"{}").unwrap();
            assert_eq!(part, theirs);
        }
    }
}
