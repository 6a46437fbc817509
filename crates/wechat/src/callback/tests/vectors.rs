//! Signatures and envelopes: WeChat's own examples, and requests that must not pass.

use super::*;
use crate::callback::{CallbackCheckError, EventKind, KeyFormat, envelope::AesKey};
use serde_json::json;

fn text<'a>(vector: &'a Value, field: &str) -> &'a str {
    vector[field].as_str().unwrap()
}

fn query(vector: &Value) -> Query {
    let field = |name: &str| vector[name].as_str().map(str::to_owned);
    Query {
        signature: field("signature"),
        timestamp: field("timestamp"),
        nonce: field("nonce"),
        echostr: field("echostr"),
        encrypt_type: vector["msg_signature"].is_string().then(|| "aes".into()),
        msg_signature: field("msg_signature"),
    }
}

fn vectors(kinds: &[&str]) -> Vec<Value> {
    let mut found = fixtures("crypto_vectors");
    found.retain(|vector| kinds.contains(&text(vector, "kind")));
    assert_eq!(found.len(), kinds.len());
    found
}

/// The event of an authentic callback whose body is no event.
const NO_EVENT: EventKind = EventKind::Unreadable {
    why: "the callback has neither `Event` nor `MsgType`",
};

#[test]
fn the_url_check_and_the_plain_signature_are_wechats() {
    let url = &vectors(&["url_verify"])[0];
    assert_eq!(
        keys(text(url, "token"), None).check_url(&query(url)),
        Ok(text(url, "echostr"))
    );
    let plain = &vectors(&["plain_post"])[0];
    let body = br#"{"MsgType":"event","Event":"debug_demo"}"#;
    let event = keys(text(plain, "token"), None)
        .open(&appid(), &query(plain), body)
        .unwrap();
    assert!(matches!(event.kind, EventKind::Unknown { name } if name == "debug_demo"));
}

#[test]
fn envelopes_open_to_wechats_messages_and_are_made_alike() {
    let kinds = [
        "safe_post",
        "safe_reply",
        "safe_xml_popup",
        "key_with_nonzero_trailing_bits",
    ];
    for vector in vectors(&kinds) {
        let key = CallbackAesKey::new(text(&vector, "encoding_aes_key"));
        let key = AesKey::parse(&key).unwrap();
        let appid = AppId::parse(text(&vector, "appid")).unwrap();
        let message = text(&vector, "msg").as_bytes();
        let encrypt = text(&vector, "encrypt");
        assert_eq!(key.open(&appid, encrypt).unwrap(), message, "{vector}");
        let random = text(&vector, "random").as_bytes().try_into().unwrap();
        assert_eq!(key.seal(&appid, random, message), encrypt, "{vector}");
    }
}

#[test]
fn encrypted_pushes_are_checked_by_the_signature_of_their_ciphertext() {
    for vector in vectors(&[
        "safe_post",
        "safe_xml_popup",
        "key_with_nonzero_trailing_bits",
    ]) {
        let keys = keys(
            text(&vector, "token"),
            Some(text(&vector, "encoding_aes_key")),
        );
        let appid = AppId::parse(text(&vector, "appid")).unwrap();
        let encrypt = text(&vector, "encrypt");
        let safe = json!({"ToUserName": "gh_1", "Encrypt": encrypt}).to_string();
        // Plain fields beside the ciphertext have no authentic origin.
        let compatible =
            json!({"Event": "subscribe_msg_sent_event", "MsgType": "event", "Encrypt": encrypt});
        let xml = format!(
            "<xml>\n<ToUserName><![CDATA[gh_1]]></ToUserName>\n<Encrypt><![CDATA[{encrypt}]]></Encrypt>\n</xml>"
        );
        let mut read = Vec::new();
        for body in [safe, compatible.to_string(), xml] {
            read.push(keys.open(&appid, &query(&vector), body.as_bytes()).unwrap());
        }
        assert!(read.windows(2).all(|two| two[0] == two[1]), "{read:?}");
        let is_popup = matches!(read[0].kind, EventKind::Popup(_));
        assert_eq!(is_popup, vector["kind"] == "safe_xml_popup");
    }
}

#[test]
fn a_reply_is_signed_over_its_own_values() {
    let vector = &vectors(&["safe_reply"])[0];
    let keys = keys(
        text(vector, "token"),
        Some(text(vector, "encoding_aes_key")),
    );
    let appid = AppId::parse(text(vector, "appid")).unwrap();
    let message = text(vector, "msg").as_bytes();
    let random = text(vector, "random").as_bytes().try_into().unwrap();
    let time_stamp = text(vector, "timestamp").parse().unwrap();
    let reply = keys
        .reply(&appid, message, time_stamp, text(vector, "nonce"), random)
        .unwrap();
    assert_eq!(
        serde_json::to_value(&reply).unwrap(),
        json!({
            "Encrypt": vector["encrypt"], "MsgSignature": vector["msg_signature"],
            "TimeStamp": time_stamp, "Nonce": vector["nonce"],
        })
    );
    // The created reply is readable: WeChat checks a reply as the gateway checks a callback.
    let pushed = Query {
        timestamp: Some(time_stamp.to_string()),
        nonce: Some(reply.nonce.clone()),
        msg_signature: Some(reply.msg_signature.clone()),
        ..Query::default()
    };
    let read = keys.open(&appid, &pushed, reply.to_xml().as_bytes());
    assert_eq!(read.unwrap().kind, NO_EVENT, "opened, and no event");
    let keyless = super::keys("AAAAA", None);
    assert_eq!(keyless.reply(&appid, b"", 0, "", RANDOM), Err(KeyFormat));
}

#[test]
fn what_is_forged_stale_or_for_somebody_else_is_refused() {
    let keys = keys(TOKEN, Some(AES_KEY));
    let sealed = keys.aes_key.as_ref().unwrap().seal(&appid(), RANDOM, b"{}");
    let body = json!({"Encrypt": sealed}).to_string();
    let good = signed(TOKEN, Some(&sealed));
    let open = |query: &Query, body: &str| keys.open(&appid(), query, body.as_bytes()).unwrap_err();
    let passed = keys.open(&appid(), &good, body.as_bytes()).unwrap();
    assert_eq!(passed.kind, NO_EVENT, "it passed all checks");

    let with = |change: fn(&mut Query)| {
        let mut query = good.clone();
        change(&mut query);
        open(&query, &body)
    };
    assert_eq!(
        with(|q| q.msg_signature = None),
        CallbackCheckError::Missing("msg_signature")
    );
    assert_eq!(
        with(|q| q.nonce = None),
        CallbackCheckError::Missing("nonce")
    );
    assert_eq!(
        with(|q| q.nonce = Some("884213608".into())),
        CallbackCheckError::Signature
    );
    assert_eq!(
        with(|q| q.timestamp = Some("1726569014".into())),
        CallbackCheckError::Signature
    );
    assert_eq!(
        with(|q| q.msg_signature = q.signature.clone()),
        CallbackCheckError::Signature
    );
    assert_eq!(
        with(|q| q.msg_signature = Some(String::new())),
        CallbackCheckError::Signature
    );
    let plain = signed(TOKEN, None);
    assert_eq!(open(&plain, &body), CallbackCheckError::Plain);
    assert_eq!(
        open(&signed("another", Some(&sealed)), &body),
        CallbackCheckError::Signature
    );
    assert_eq!(
        open(&good, "{}"),
        CallbackCheckError::Unreadable(
            "the query says that the body is encrypted, but the body has no `Encrypt`"
        )
    );

    let keyless = super::keys(TOKEN, None);
    assert_eq!(
        keyless.open(&appid(), &good, body.as_bytes()),
        Err(CallbackCheckError::NoKey)
    );
    let other = AppId::parse("wx0a1b2c3d4e5f678a").unwrap();
    assert_eq!(
        keys.open(&other, &good, body.as_bytes()),
        Err(CallbackCheckError::OtherApp)
    );
}

#[test]
fn ciphertexts_that_no_key_made_are_refused() {
    let key = AesKey::parse(&CallbackAesKey::new(AES_KEY)).unwrap();
    let another = "A".repeat(43);
    let another = AesKey::parse(&CallbackAesKey::new(another)).unwrap();
    let foreign = another.seal(&appid(), RANDOM, b"hello");
    let cut = &key.seal(&appid(), RANDOM, &[b'x'; 40])[..64];
    for text in ["", "=", "????", "AAAA", &foreign, cut] {
        let refused = key.open(&appid(), text);
        assert!(
            matches!(refused, Err(CallbackCheckError::Cipher(_))),
            "{text}: {refused:?}"
        );
    }
}

#[test]
fn a_key_is_43_characters_and_is_never_shown() {
    for wrong in [
        "",
        "abc",
        &"A".repeat(42),
        &"A".repeat(44),
        &"ä".repeat(22),
        &"-".repeat(43),
    ] {
        let key = CallbackAesKey::new(wrong);
        assert!(AesKey::parse(&key).is_err(), "{wrong}");
    }
    let shown = format!("{:?}", keys(TOKEN, Some(AES_KEY)));
    assert!(
        !shown.contains(TOKEN) && !shown.contains(AES_KEY),
        "{shown}"
    );
}
