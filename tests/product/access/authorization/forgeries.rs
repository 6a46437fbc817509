//! Tokens that the gateway must not accept. Each is wrong in one thing: a token that is signed here with the gateway's
//! own key is valid but for that thing.

use aws_lc_rs::{hmac, signature::Ed25519KeyPair};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use domain::seal::{MasterKey, SealOwner};
use serde_json::{Value, json};

use super::things_of_nobody;
use crate::world::{MASTER_KEY, World};

/// The first bytes of an Ed25519 public key in DER (RFC 8410).
const SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// WeChat's codes for an invalid token, and for an expired one.
pub(super) const INVALID: i64 = 40001;
const EXPIRED: i64 = 42001;
/// The code for the token of a revoked key: no SDK fetches another token for this code.
const REVOKED: i64 = 40125;
/// The code for a fresh token with an unknown signing key: another replica may have made that key a moment ago.
const BUSY: i64 = -1;

/// A token that the gateway must not accept.
pub(super) struct Forgery {
    /// What is wrong with the token.
    pub(super) name: &'static str,
    pub(super) token: String,
    /// The errcode of the refusal in WeChat's form.
    pub(super) errcode: i64,
}

/// Makes forged tokens.
pub(super) struct Forger {
    /// The gateway's signing key. A real forger lacks this key; tests with this key show that one wrong thing suffices.
    gateways: Ed25519KeyPair,
    /// A key of the forger's own.
    own: Ed25519KeyPair,
    /// The public half of the gateway's key, from the public JWKS.
    jwk: Value,
}

/// A token in its parts.
#[derive(Clone)]
struct Token {
    header: Value,
    claims: Value,
}

impl Token {
    fn read(text: &str) -> Self {
        let mut parts = text.split('.').map(|part| {
            let json = BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64");
            serde_json::from_slice(&json).expect("JSON")
        });
        let mut next = || parts.next().expect("a part");
        Self {
            header: next(),
            claims: next(),
        }
    }

    /// The token with another field in its header; null removes the field.
    fn header(&self, name: &str, value: Value) -> Self {
        let mut other = self.clone();
        set(&mut other.header, name, value);
        other
    }

    /// The token with another claim; null removes the claim.
    fn claim(&self, name: &str, value: Value) -> Self {
        let mut other = self.clone();
        set(&mut other.claims, name, value);
        other
    }

    fn signed(&self, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
        let encode = |part: &Value| BASE64_URL_SAFE_NO_PAD.encode(part.to_string());
        let body = format!("{}.{}", encode(&self.header), encode(&self.claims));
        let signature = BASE64_URL_SAFE_NO_PAD.encode(sign(body.as_bytes()));
        format!("{body}.{signature}")
    }

    fn signed_by(&self, key: &Ed25519KeyPair) -> String {
        self.signed(|body| key.sign(body).as_ref().to_vec())
    }
}

fn set(object: &mut Value, name: &str, value: Value) {
    let object = object.as_object_mut().expect("an object");
    if value.is_null() {
        object.remove(name);
    } else {
        object.insert(name.to_owned(), value);
    }
}

impl Forger {
    /// Reads the gateway's public keys over HTTP, and its signing key from the database.
    pub(super) async fn of(world: &World) -> Self {
        let keys = world.anonymous().get("/.well-known/jwks.json").await;
        let jwk = keys.expect(200)["keys"][0].clone();
        let stored = world.store().platform().signing_keys(world.now()).await;
        let stored = stored.expect("the signing keys").remove(0);
        assert_eq!(jwk["kid"], stored.kid.as_str());
        let owner = SealOwner::signing_key(&stored.kid);
        let pem = MasterKey::from_bytes(MASTER_KEY).open(&owner, &stored.private_sealed);
        let pem = pem.expect("the signing key");
        let line = pem.lines().nth(1).expect("one line of base64");
        let private = BASE64_STANDARD.decode(line).expect("base64");
        Self {
            gateways: Ed25519KeyPair::from_pkcs8(&private).expect("an Ed25519 key"),
            own: Ed25519KeyPair::generate().expect("a key"),
            jwk,
        }
    }

    /// The token `good` with other claims, signed with the gateway's key.
    pub(super) fn with_claims<const N: usize>(
        &self,
        good: &str,
        claims: [(&str, Value); N],
    ) -> String {
        let token = Token::read(good);
        let changed = claims
            .into_iter()
            .fold(token, |token, (name, value)| token.claim(name, value));
        changed.signed_by(&self.gateways)
    }

    /// All forgeries of the token `good`.
    pub(super) fn forgeries(&self, good: &str) -> Vec<Forgery> {
        let mut all = unsigned(good);
        all.extend(self.signed_with_the_public_key(good));
        all.extend(self.signed_with_another_key(good));
        all.extend(self.signed_by_the_gateway(good));
        all
    }

    /// HS256 with every secret that a library could use if the library took the algorithm from the token.
    fn signed_with_the_public_key(&self, good: &str) -> Vec<Forgery> {
        let token = Token::read(good).header("alg", json!("HS256"));
        let x = self.jwk["x"].as_str().expect("a public key");
        let raw = BASE64_URL_SAFE_NO_PAD.decode(x).expect("base64");
        let der = [&SPKI[..], &raw].concat();
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            BASE64_STANDARD.encode(&der)
        );
        [
            ("HS256 under the public key", raw),
            ("HS256 under its base64", x.as_bytes().to_vec()),
            ("HS256 under its DER", der),
            ("HS256 under its PEM", pem.into_bytes()),
            ("HS256 under its JWK", self.jwk.to_string().into_bytes()),
            ("HS256 under nothing", Vec::new()),
        ]
        .map(|(name, secret)| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
            let token = token.signed(|body| hmac::sign(&key, body).as_ref().to_vec());
            forgery(name, token, INVALID)
        })
        .into()
    }

    /// Ed25519, with a key of the forger's own.
    fn signed_with_another_key(&self, good: &str) -> Vec<Forgery> {
        use aws_lc_rs::signature::KeyPair;
        let token = Token::read(good);
        let x = BASE64_URL_SAFE_NO_PAD.encode(self.own.public_key());
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
        let issuer = token.claim("iss", json!("https://issuer.example"));
        [
            ("another key", token.clone(), INVALID),
            (
                "another key in its header",
                token.header("jwk", jwk),
                INVALID,
            ),
            (
                "another key at a URL in its header",
                token.header("jku", json!("http://127.0.0.1:9/jwks.json")),
                INVALID,
            ),
            (
                "another issuer's, with its own key",
                issuer.header("kid", json!("of-another-issuer")),
                BUSY,
            ),
        ]
        .map(|(name, token, errcode)| forgery(name, token.signed_by(&self.own), errcode))
        .into()
    }

    /// Ed25519 with the gateway's key: only the contents are wrong.
    fn signed_by_the_gateway(&self, good: &str) -> Vec<Forgery> {
        let token = Token::read(good);
        let issued = token.claims["iat"].as_i64().expect("iat");
        let nobody = things_of_nobody()["key_id"].clone();
        let mut all = vec![
            (
                "another audience",
                token.claim("aud", json!("https://other.example")),
                INVALID,
            ),
            ("no audience", token.claim("aud", Value::Null), INVALID),
            ("expired", token.claim("exp", json!(issued - 60)), EXPIRED),
            ("no end", token.claim("exp", Value::Null), INVALID),
            (
                "of a key that is not there",
                token.claim("sub", json!(nobody)),
                REVOKED,
            ),
            ("of nobody", token.claim("sub", json!("somebody")), INVALID),
            ("another type", token.header("typ", json!("JWT")), INVALID),
            ("no type", token.header("typ", Value::Null), INVALID),
            ("no key id", token.header("kid", Value::Null), INVALID),
            (
                "an unknown key id",
                token.header("kid", json!("unknown")),
                BUSY,
            ),
            (
                "another algorithm in its header",
                token.header("alg", json!("ES256")),
                INVALID,
            ),
        ];
        // Tokens of the drop-in surface have no issuer, so that the tokens stay short: the audience alone says
        // where a token is valid.
        if !token.claims["iss"].is_null() {
            all.extend([
                (
                    "another issuer",
                    token.claim("iss", json!("https://other.example")),
                    INVALID,
                ),
                ("no issuer", token.claim("iss", Value::Null), INVALID),
                (
                    "not yet good",
                    token.claim("nbf", json!(issued + 3600)),
                    INVALID,
                ),
            ]);
        }
        let signed = all
            .into_iter()
            .map(|(name, token, errcode)| forgery(name, token.signed_by(&self.gateways), errcode));
        signed.collect()
    }
}

/// Without a signature, or with the signature of another token.
fn unsigned(good: &str) -> Vec<Forgery> {
    let token = Token::read(good);
    let (body, signature) = good.rsplit_once('.').expect("a signature");
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    let spoiled = format!("{body}.{first}{}", &signature[1..]);
    let longer = token.claim("exp", json!(4_102_444_800_i64));
    let changed = longer.signed(|_| Vec::new()) + signature;
    let none = |alg: &str| token.header("alg", json!(alg)).signed(|_| Vec::new());
    [
        ("garbage", "no.jwt.atall".to_owned()),
        ("another signature", spoiled),
        ("claims changed after signing", changed),
        ("no signature", format!("{body}.")),
        ("alg none", none("none")),
        ("alg None", none("None")),
    ]
    .map(|(name, token)| forgery(name, token, INVALID))
    .into()
}

pub(super) fn forgery(name: &'static str, token: String, errcode: i64) -> Forgery {
    Forgery {
        name,
        token,
        errcode,
    }
}
