//! Events in every form in which WeChat writes events.

use super::*;
use crate::callback::{
    CallbackCheckError, Choice, EventKind, Receipt, TemplateChoice, WechatEvent, node::Node,
};
use serde_json::json;

const OPENID: &str = "oQ8fX4uT2kLmNpR7sVwYzA1bC3dE";
const TEMPLATE: &str = "kT3pVq9ZrXn7WbYd5LmC2sHf0JgAoUeR8xQ1iKvNtEw";

fn read(body: &str) -> Result<WechatEvent, CallbackCheckError> {
    WechatEvent::read(&Node::read(body.as_bytes())?)
}

/// The body of a fixture, in the received form.
fn body_of(fixture: &Value) -> String {
    match &fixture["example"] {
        Value::String(xml) => xml.clone(),
        json => json.to_string(),
    }
}

fn chose(template_id: &str, choice: Choice) -> TemplateChoice {
    TemplateChoice {
        template_id: template_id.to_owned(),
        choice,
    }
}

#[test]
fn the_documented_events_are_read() {
    let mut seen = Vec::new();
    for fixture in fixtures("callbacks") {
        let event = read(&body_of(&fixture)).unwrap();
        assert_eq!(fixture["event"], event.kind.as_str());
        assert!(event.openid.starts_with('o') && event.created_at > 1_726_569_000);
        seen.push(event.kind);
    }
    let second = "Zr8yNq4KcVb1XwLd6TmP3sHg9JfAoUeR2xQ7iEvCtYk";
    let one = vec![chose(TEMPLATE, Choice::Accept)];
    let two = vec![
        chose(TEMPLATE, Choice::Accept),
        chose(second, Choice::Reject),
    ];
    let receipt = |msgid, template_id: Option<&str>, words: Option<&str>| Receipt {
        msgid,
        template_id: template_id.map(str::to_owned),
        delivered: words.is_none(),
        words: words.map(str::to_owned),
    };
    let sent = |words| {
        EventKind::Sent(vec![receipt(
            4_103_297_716_205_551_617,
            Some(TEMPLATE),
            words,
        )])
    };
    assert_eq!(
        seen,
        [
            EventKind::Popup(two),
            EventKind::Popup(one.clone()),
            EventKind::Popup(one),
            EventKind::Change(vec![chose(TEMPLATE, Choice::Reject)]),
            sent(None),
            sent(Some("1003 failed")),
            EventKind::JobFinished(vec![receipt(3_581_904_417_305_862_146, None, None)]),
        ]
    );
}

#[test]
fn every_documented_status_of_a_finished_job_is_known() {
    let fixture = fixtures("callbacks").pop().unwrap();
    for status in fixture["status_values"].as_array().unwrap() {
        let status = status.as_str().unwrap();
        let body = body_of(&fixture).replace("[success]", &format!("[{status}]"));
        let EventKind::JobFinished(receipts) = read(&body).unwrap().kind else {
            panic!("{body}")
        };
        let words = receipts[0].words.as_deref();
        assert_eq!(
            (receipts[0].delivered, words),
            (status == "success", (status != "success").then_some(status))
        );
    }
}

fn event(name: &str, more: Value) -> Result<EventKind, CallbackCheckError> {
    let mut body = json!({
        "ToUserName": "gh_1", "FromUserName": OPENID, "CreateTime": 1_726_569_100, "MsgType": "event", "Event": name,
    });
    let Value::Object(more) = more else { panic!() };
    body.as_object_mut().unwrap().extend(more);
    read(&body.to_string()).map(|event| event.kind)
}

#[test]
fn lists_stand_under_several_names() {
    let item = json!({"TemplateId": TEMPLATE, "SubscribeStatusString": "reject"});
    let name = "SubscribeMsgChangeEvent";
    for more in [
        json!({"List": item}),
        json!({"List": [item]}),
        json!({name: [item]}),
        json!({name: item}),
        json!({name: {"List": item}}),
        json!({name: {"List": [item]}}),
        json!({name: [{"List": item}]}),
    ] {
        let read = event("subscribe_msg_change_event", more.clone()).unwrap();
        let expected = EventKind::Change(vec![chose(TEMPLATE, Choice::Reject)]);
        assert_eq!(read, expected, "{more}");
    }
    let none = event("subscribe_msg_change_event", json!({"List": []})).unwrap();
    assert_eq!(none, EventKind::Change(Vec::new()));
}

#[test]
fn a_receipt_is_judged_by_its_code_or_else_by_its_status() {
    let of = |more: Value| {
        let mut item = json!({"TemplateId": TEMPLATE, "MsgID": 7});
        item.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        match event("subscribe_msg_sent_event", json!({"List": item})).unwrap() {
            EventKind::Sent(mut receipts) => receipts.remove(0),
            other => panic!("{other:?}"),
        }
    };
    assert!(of(json!({"ErrorCode": 0, "ErrorStatus": "success"})).delivered);
    assert!(of(json!({"ErrorCode": "0"})).delivered);
    assert!(of(json!({"ErrorStatus": "success"})).delivered);
    let failed = of(json!({"ErrorCode": 1003, "ErrorStatus": "system\nerror"}));
    assert_eq!(
        (failed.delivered, failed.words.as_deref()),
        (false, Some("1003 system error"))
    );
    assert!(!of(json!({})).delivered, "silence is no success");
}

#[test]
fn words_of_acceptance_are_told_from_others() {
    for (word, choice) in [
        ("accept", Choice::Accept),
        ("acceptWithAudio", Choice::Accept),
        ("reject", Choice::Reject),
        ("ban", Choice::Other("ban".into())),
    ] {
        let item = json!({"TemplateId": TEMPLATE, "SubscribeStatusString": word});
        let read = event("subscribe_msg_popup_event", json!({"List": item})).unwrap();
        assert_eq!(read, EventKind::Popup(vec![chose(TEMPLATE, choice)]));
    }
}

#[test]
fn what_is_not_known_is_no_error() {
    let unknown = |name: &str| EventKind::Unknown { name: name.into() };
    assert_eq!(
        event("weapp_audit_success", json!({})),
        Ok(unknown("weapp_audit_success"))
    );
    let written =
        "<xml><MsgType><![CDATA[text]]></MsgType><Content>1 &lt; 2 &#x4fdd;</Content></xml>";
    assert_eq!(read(written).unwrap().kind, unknown("text"));
    let long = event(&"好".repeat(200), json!({})).unwrap();
    assert_eq!(long, unknown(&"好".repeat(85)));
    assert_eq!(long.as_str(), "unknown");
}

#[test]
fn what_cannot_be_kept_or_is_not_complete_is_refused() {
    for more in [
        json!({"List": {"TemplateId": "", "SubscribeStatusString": "accept"}}),
        json!({"List": {"TemplateId": "x".repeat(129)}}),
        json!({"List": {"TemplateId": "a\u{0}b"}}),
        json!({"List": {"SubscribeStatusString": "accept"}}),
        json!({"FromUserName": null, "List": {"TemplateId": "t\n"}}),
        json!({"FromUserName": "o\u{0}"}),
        json!({"CreateTime": "now"}),
    ] {
        let read = event("subscribe_msg_popup_event", more.clone());
        assert!(
            matches!(read, Err(CallbackCheckError::Unreadable(_))),
            "{more}: {read:?}"
        );
    }
    for msgid in [json!("x"), json!(-1), json!({}), Value::Null] {
        let read = event(
            "subscribe_msg_sent_event",
            json!({"List": {"MsgID": msgid}}),
        );
        assert!(read.is_err(), "{read:?}");
    }
}

#[test]
fn xml_that_could_do_more_than_say_something_is_refused() {
    let bomb =
        r#"<!DOCTYPE xml [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><xml><Event>&b;</Event></xml>"#;
    let outside = r#"<!DOCTYPE xml SYSTEM "file:///etc/passwd"><xml><Event>e</Event></xml>"#;
    let deep = format!("{}{}", "<a>".repeat(9), "</a>".repeat(9));
    for wrong in [
        bomb,
        outside,
        &deep,
        "<xml><Event>&#0;</Event></xml>",
        "<xml><Event>e</xml>",
        "<xml><Event>e</Event>",
        "<xml/><xml/>",
        "<xml></xml></xml>",
        "<xml></xml>text",
        "<",
        "<!-- -->",
        "",
        "MsgType=event",
        "[1]",
        "{",
    ] {
        assert!(Node::read(wrong.as_bytes()).is_err(), "{wrong}");
    }
    assert!(Node::read(b"{\"a\":\"\xff\"}").is_err());
    assert!(Node::read(b"<xml><Event>&b;</Event></xml>").is_err());
    let fine = "\u{feff}<?xml version=\"1.0\"?>\n<xml a=\"b\"><!-- x --><Event>e&amp;<![CDATA[<f>]]></Event><Empty/></xml>\n";
    let event = WechatEvent::read(&Node::read(fine.as_bytes()).unwrap()).unwrap();
    assert_eq!(
        event.kind,
        EventKind::Unknown {
            name: "e&<f>".into()
        }
    );
}

/// The event of a body with the plain signature.
fn pushed(body: &[u8]) -> EventKind {
    let query = signed(TOKEN, None);
    let event = keys(TOKEN, None).open(&appid(), &query, body);
    event.unwrap().kind
}

#[test]
fn an_authentic_push_is_read_though_it_breaks_the_rules_of_its_format() {
    let popup = EventKind::Popup(vec![chose(TEMPLATE, Choice::Accept)]);
    let json = |more: &str| {
        format!(
            "{{\"ToUserName\":\"gh_1\",\"FromUserName\":\"{OPENID}\",\"CreateTime\":1726569100,\"MsgType\":\"event\",\
             \"Event\":\"subscribe_msg_popup_event\",{more}\"List\":{{\"TemplateId\":\"{TEMPLATE}\",\
             \"SubscribeStatusString\":\"accept\"}}}}"
        )
    };
    for more in [
        "\"Note\":\"a\nb\u{1}\",",
        r#""Note":"\ud83d","#,
        r#""Note":"\ude00 and \ud83d","#,
    ] {
        assert_eq!(pushed(json(more).as_bytes()), popup, "{more}");
    }
    assert_eq!(
        pushed(format!("\u{feff}{}\0\0\n", json("")).as_bytes()),
        popup
    );
    let mut broken = json("\"Note\":\"?\",").into_bytes();
    let at = broken.iter().position(|&byte| byte == b'?').unwrap();
    broken[at] = 0xff;
    assert_eq!(pushed(&broken), popup);

    let xml = |more: &str| {
        format!(
            "<xml><FromUserName><![CDATA[{OPENID}]]></FromUserName><CreateTime>1726569100</CreateTime>\
             <MsgType><![CDATA[event]]></MsgType><Event><![CDATA[subscribe_msg_popup_event]]></Event>{more}\
             <SubscribeMsgPopupEvent><List><TemplateId><![CDATA[{TEMPLATE}]]></TemplateId>\
             <SubscribeStatusString><![CDATA[accept]]></SubscribeStatusString></List></SubscribeMsgPopupEvent></xml>"
        )
    };
    for more in [
        "<Note><![CDATA[a ]]> b]]></Note>",
        "<Note><![CDATA[a <![CDATA[b]]> c]]></Note>",
        "<Note><![CDATA[]]]]></Note>",
        "<Note>salt & pepper</Note>",
        "<Note>&nbsp;</Note>",
    ] {
        assert_eq!(pushed(xml(more).as_bytes()), popup, "{more}");
    }
}

#[test]
fn an_authentic_push_that_cannot_be_read_is_no_stranger() {
    for body in [
        "",
        "hello",
        "{",
        "{}",
        "<xml><Event>e</xml>",
        r#"{"MsgType":"event","Event":"subscribe_msg_sent_event","FromUserName":"o","CreateTime":1,"List":{"MsgID":"x"}}"#,
        r#"{"MsgType":"event","Event":"subscribe_msg_sent_event","FromUserName":"o","List":[]}"#,
    ] {
        let kind = pushed(body.as_bytes());
        assert!(
            matches!(kind, EventKind::Unreadable { .. }),
            "{body}: {kind:?}"
        );
        assert_eq!(kind.as_str(), "unreadable");
    }
}

#[test]
fn the_items_of_a_list_that_can_be_read_count() {
    let items = json!([{"MsgID": "x"}, {"MsgID": "7", "ErrorCode": "0"}]);
    let EventKind::Sent(receipts) =
        event("subscribe_msg_sent_event", json!({"List": items})).unwrap()
    else {
        panic!()
    };
    assert_eq!(receipts.len(), 1);
    assert_eq!(receipts[0].msgid, 7);
}

#[test]
fn a_user_cannot_write_an_event() {
    let written = format!(
        "<xml><FromUserName>{OPENID}</FromUserName><CreateTime>1</CreateTime><MsgType><![CDATA[text]]></MsgType><Content>\
         <![CDATA[x]]></Content><Event><![CDATA[subscribe_msg_popup_event]]></Event><List><TemplateId>{TEMPLATE}</TemplateId>\
         <SubscribeStatusString>accept</SubscribeStatusString></List></xml>"
    );
    assert_eq!(
        pushed(written.as_bytes()),
        EventKind::Unknown {
            name: "text".into()
        }
    );
}

#[test]
fn raw_is_plain_and_blanks_around_the_ciphertext_do_not_count() {
    let body = r#"{"MsgType":"text","FromUserName":"o","CreateTime":1}"#;
    let raw = Query {
        encrypt_type: Some("raw".into()),
        msg_signature: Some(String::new()),
        ..signed(TOKEN, None)
    };
    let text = EventKind::Unknown {
        name: "text".into(),
    };
    let plain = keys(TOKEN, None).open(&appid(), &raw, body.as_bytes());
    assert_eq!(plain.unwrap().kind, text);
    let safe = keys(TOKEN, Some(AES_KEY));
    assert_eq!(
        safe.open(&appid(), &raw, body.as_bytes()),
        Err(CallbackCheckError::Plain)
    );
    let sealed = safe
        .aes_key
        .as_ref()
        .unwrap()
        .seal(&appid(), RANDOM, body.as_bytes());
    let outer = format!("<xml><Encrypt>\n <![CDATA[{sealed}]]> \n</Encrypt></xml>");
    let opened = safe.open(&appid(), &signed(TOKEN, Some(&sealed)), outer.as_bytes());
    assert_eq!(opened.unwrap().kind, text);
}
