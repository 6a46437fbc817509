//! Properties: no input causes a panic, and every sealed envelope opens.

use super::*;
use crate::callback::{WechatEvent, envelope::AesKey, node::Node};
use proptest::prelude::*;

/// Pieces for generated bodies.
const PIECES: [&str; 20] = [
    "<xml>",
    "</xml>",
    "<List>",
    "</List>",
    "<Event>",
    "</Event>",
    "<![CDATA[",
    "]]>",
    "&amp;",
    "&#x41;",
    "<a/>",
    "subscribe_msg_sent_event",
    "{",
    "}",
    "\"List\":",
    "[",
    "]",
    "\"Event\":",
    "\"MsgID\":1,",
    "\"subscribe_msg_popup_event\",",
];

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        body in proptest::collection::vec(any::<u8>(), 0..256),
        fields in proptest::array::uniform6(proptest::option::of(".{0,40}")),
    ) {
        let [signature, timestamp, nonce, echostr, encrypt_type, msg_signature] = fields;
        let query = Query { signature, timestamp, nonce, echostr, encrypt_type, msg_signature };
        let keys = keys(TOKEN, Some(AES_KEY));
        prop_assert!(keys.open(&appid(), &query, &body).is_err());
        prop_assert!(keys.check_url(&query).is_err());
        let _ = query.stamp().map(|stamp| stamp.other_times().count());
    }

    #[test]
    fn no_body_makes_it_panic(pieces in proptest::collection::vec(0..PIECES.len(), 0..24)) {
        let body: String = pieces.into_iter().map(|index| PIECES[index]).collect();
        if let Ok(node) = Node::read(body.as_bytes()) {
            let _ = WechatEvent::read(&node);
        }
    }

    /// Any envelope content, including content that WeChat never makes.
    #[test]
    fn no_ciphertext_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
        use base64::{Engine, prelude::BASE64_STANDARD};
        let key = AesKey::parse(&CallbackAesKey::new(AES_KEY)).unwrap();
        prop_assert!(key.open(&appid(), &BASE64_STANDARD.encode(&bytes)).is_err());
        prop_assert!(key.open(&appid(), &String::from_utf8_lossy(&bytes)).is_err());
    }

    #[test]
    fn what_is_sealed_opens(
        key in "[a-zA-Z0-9]{43}",
        message in proptest::collection::vec(any::<u8>(), 0..200),
        random in any::<[u8; 16]>(),
    ) {
        let key = AesKey::parse(&CallbackAesKey::new(key)).unwrap();
        let sealed = key.seal(&appid(), random, &message);
        prop_assert_eq!(key.open(&appid(), &sealed).unwrap(), message);
    }

    #[test]
    fn any_changed_character_is_noticed(at in 0usize..512, other in "[a-zA-Z0-9+/]") {
        let keys = keys(TOKEN, Some(AES_KEY));
        let message = br#"{"MsgType":"event","Event":"e"}"#;
        let sealed = keys.aes_key.as_ref().unwrap().seal(&appid(), RANDOM, message);
        let at = at % (sealed.len() - 1);
        let mut changed = sealed.clone();
        changed.replace_range(at..=at, &other);
        prop_assume!(changed != sealed);
        let query = signed(TOKEN, Some(&sealed));
        let body = format!("{{\"Encrypt\":\"{changed}\"}}");
        prop_assert!(keys.open(&appid(), &query, body.as_bytes()).is_err());
    }
}
