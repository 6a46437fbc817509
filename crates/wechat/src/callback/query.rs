//! The query of a request from WeChat.

use serde::Deserialize;

use super::CallbackCheckError;

/// The query of a request from WeChat.
#[derive(Clone, Debug, Default, Deserialize)]
#[expect(missing_docs, reason = "each field is WeChat's parameter of that name")]
pub struct Query {
    pub signature: Option<String>,
    pub timestamp: Option<String>,
    pub nonce: Option<String>,
    pub echostr: Option<String>,
    pub encrypt_type: Option<String>,
    pub msg_signature: Option<String>,
}

impl Query {
    /// Whether the body is encrypted, as the query says.
    pub fn is_encrypted(&self) -> bool {
        let has_signature = self
            .msg_signature
            .as_deref()
            .is_some_and(|text| !text.is_empty());
        match self.encrypt_type.as_deref() {
            Some("aes") => true,
            Some("raw") => false,
            _ => has_signature,
        }
    }
}

/// The value of a required parameter.
pub(super) fn present<'a>(
    value: Option<&'a String>,
    name: &'static str,
) -> Result<&'a str, CallbackCheckError> {
    value
        .map(String::as_str)
        .ok_or(CallbackCheckError::Missing(name))
}
