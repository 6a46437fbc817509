//! Callbacks against the documented vectors and bodies, and against arbitrary input.

mod anything;
mod bodies;
mod vectors;

use domain::{
    app::AppId,
    secret::{CallbackAesKey, CallbackToken},
};
use serde_json::Value;

use super::{Keys, Query, signature};

const TOKEN: &str = "gatewayTestToken01";
const AES_KEY: &str = "q7Xc2Vn8Lk4Rz1Tb6Ym9Wd3Hs5Jf0Gp7Ua2Ke4Qi8Oo";
const RANDOM: [u8; 16] = *b"k3Zp9vQ1xT7mB5cL";

fn fixtures(list: &str) -> Vec<Value> {
    let all: Value =
        serde_json::from_str(include_str!("../../../fixtures/callbacks.json")).unwrap();
    all[list].as_array().unwrap().clone()
}

fn keys(token: &str, aes_key: Option<&str>) -> Keys {
    let aes_key = aes_key.map(CallbackAesKey::new);
    Keys::new(CallbackToken::new(token), aes_key.as_ref()).unwrap()
}

fn appid() -> AppId {
    AppId::parse("wx0a1b2c3d4e5f6789").unwrap()
}

/// The query of a request with WeChat's signature; with `ciphertext` the query of an encrypted body.
fn signed(token: &str, ciphertext: Option<&str>) -> Query {
    let token = CallbackToken::new(token);
    let (timestamp, nonce) = ("1726569013", "884213607");
    Query {
        signature: Some(signature::of(&token, timestamp, nonce, None)),
        timestamp: Some(timestamp.into()),
        nonce: Some(nonce.into()),
        encrypt_type: ciphertext.map(|_| "aes".into()),
        msg_signature: ciphertext.map(|text| signature::of(&token, timestamp, nonce, Some(text))),
        echostr: None,
    }
}
