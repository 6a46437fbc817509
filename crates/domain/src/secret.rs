//! Secret types: secrets cannot be printed or serialised, and the memory of a dropped secret is wiped.

use std::{fmt, marker::PhantomData};

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// A secret text of kind `K`. `Debug` shows only the kind; only [`Secret::expose`] returns the text.
pub struct Secret<K> {
    text: Zeroizing<String>,
    kind: PhantomData<fn() -> K>,
}

/// Gives a kind of secret its name for `Debug`.
pub trait SecretKind {
    /// The name shown instead of the text.
    const NAME: &'static str;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident => $secret:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $kind {}

        impl SecretKind for $kind {
            const NAME: &'static str = stringify!($secret);
        }

        $(#[$doc])*
        pub type $secret = Secret<$kind>;
    )*};
}

kinds! {
    /// The AppSecret of a mini-program or official account.
    AppSecretKind => AppSecret;
    /// WeChat's `access_token`.
    AccessTokenKind => AccessToken;
    /// The secret half of an API key.
    ClientSecretKind => ClientSecret;
    /// The Token of an app's message push settings.
    CallbackTokenKind => CallbackToken;
    /// The `EncodingAESKey` of an app's message push settings.
    CallbackAesKeyKind => CallbackAesKey;
    /// The private half of a token-signing key, PKCS#8 PEM.
    SigningKeyPemKind => SigningKeyPem;
    /// The key of the hash of client secrets.
    PepperKind => Pepper;
    /// The key that signs the events of one webhook endpoint: `whsec_` and base64.
    WebhookSecretKind => WebhookSecret;
}

impl<K> Secret<K> {
    /// Wraps `text` as a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: Zeroizing::new(text.into()),
            kind: PhantomData,
        }
    }

    /// The text itself. A reviewer of a call must check where the text goes next.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl<K> Clone for Secret<K> {
    fn clone(&self) -> Self {
        Self {
            text: self.text.clone(),
            kind: PhantomData,
        }
    }
}

impl<K: SecretKind> fmt::Debug for Secret<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(…)", K::NAME)
    }
}

impl<'de, K> Deserialize<'de> for Secret<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_text() {
        let secret = AppSecret::new("0f1e2d3c4b5a69788796a5b4c3d2e1f0");
        assert_eq!(
            format!("{secret:?} {:?}", Some(&secret)),
            "AppSecret(…) Some(AppSecret(…))"
        );
    }
}
