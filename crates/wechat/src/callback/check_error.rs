//! Why a request to the callback URL is refused.

/// Why a request is refused. The text is only for the gateway's log: an attacker that learns which check failed could
/// search for a way around the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallbackCheckError {
    /// A required parameter is missing.
    #[error("the query has no `{0}`: the request is not WeChat's")]
    Missing(&'static str),
    /// The timestamp is invalid.
    #[error("the timestamp is not a number of seconds with ten digits")]
    Timestamp,
    /// The nonce is invalid.
    #[error("the nonce is not a word of letters and digits")]
    Nonce,
    /// The signature was not made with this Token.
    #[error(
        "the signature does not match: set the Token of WeChat's console as callback_token; if the Token is right, the \
        request is not WeChat's"
    )]
    Signature,
    /// A plain callback to an app with a known `EncodingAESKey`.
    #[error(
        "the callback is not encrypted, but the app has an EncodingAESKey: choose the safe mode in WeChat's console"
    )]
    Plain,
    /// An encrypted callback to an app without a known `EncodingAESKey`.
    #[error(
        "the callback is encrypted: set the EncodingAESKey of WeChat's console as callback_aes_key"
    )]
    NoKey,
    /// The ciphertext was not made with this key.
    #[error(
        "the callback cannot be decrypted ({0}): set the EncodingAESKey of WeChat's console as callback_aes_key"
    )]
    Cipher(&'static str),
    /// The callback was encrypted for another app.
    #[error(
        "the callback was encrypted for another appid: check the URL in the console of the app that sends the callback"
    )]
    OtherApp,
    /// The body has not the form of WeChat's callbacks.
    #[error("the body cannot be read: {0}")]
    Unreadable(&'static str),
    /// The list in the body is longer than any list of WeChat: the tenant, who also has the Token, can forge such a
    /// callback.
    #[error("the list in the body is longer than WeChat's lists")]
    TooLong,
}

impl CallbackCheckError {
    /// The kind as one word, for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing(_) | Self::Timestamp | Self::Nonce => "malformed",
            Self::Signature => "signature",
            Self::Plain => "plain",
            Self::NoKey => "no_key",
            Self::Cipher(_) => "cipher",
            Self::OtherApp => "other_app",
            Self::Unreadable(_) | Self::TooLong => "unreadable",
        }
    }
}
