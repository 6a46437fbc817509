//! The rules of a request.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::template::{Template, TemplateKind};

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).unwrap()
}

fn request() -> Request {
    let Value::Object(data) = json!({"thing1": {"value": "保温杯"}}) else {
        unreachable!()
    };
    Request {
        touser: "oABC".into(),
        template_id: "tpl".into(),
        data: Some(data),
        ..Request::default()
    }
}

fn pointers(request: Request) -> Vec<String> {
    request
        .check(now())
        .unwrap_err()
        .into_iter()
        .map(|violation| violation.pointer)
        .collect()
}

#[test]
fn defaults_are_those_of_the_contract() {
    let draft = request().check(now()).unwrap();
    assert_eq!(draft.expires_at(now()), now() + chrono::Duration::days(1));
    assert!(matches!(
        draft.content,
        Content::Subscribe {
            miniprogram_state: MiniprogramState::Formal,
            lang: Lang::ZhCn,
            ..
        }
    ));
}

#[test]
fn ttl_counts_from_send_at() {
    let send_at = now() + chrono::Duration::hours(1);
    let draft = Request {
        send_at: Some(send_at),
        ttl: Some(120),
        ..request()
    }
    .check(now())
    .unwrap();
    assert_eq!(
        draft.expires_at(now()),
        send_at + chrono::Duration::seconds(120)
    );
}

#[test]
fn a_send_at_in_the_past_means_now() {
    let draft = Request {
        send_at: Some(now() - chrono::Duration::hours(1)),
        ..request()
    }
    .check(now())
    .unwrap();
    assert_eq!(draft.due_at(now()), now());
}

#[test]
fn every_offending_field_is_told_at_once() {
    let Value::Object(data) =
        json!({"thing1": {"value": "一二三四五六七八九十一二三四五六七八九十零"}, "a/b": "bare"})
    else {
        unreachable!()
    };
    let wrong = Request {
        touser: " ".into(),
        data: Some(data),
        ttl: Some(0),
        form_id: Some("f".into()),
        send_at: Some(now() + chrono::Duration::days(31)),
        ..request()
    };
    assert_eq!(
        pointers(wrong),
        [
            "/touser",
            "/form_id",
            "/data/a~1b",
            "/data/thing1/value",
            "/ttl",
            "/send_at"
        ]
    );
}

#[test]
fn the_template_is_judged_together_with_everything_else() {
    let template = Template {
        id: "tpl".into(),
        kind: TemplateKind::OneTime,
        title: String::new(),
        content: "{{thing1.DATA}}{{time2.DATA}}".into(),
        example: String::new(),
        values: BTreeMap::new(),
    };
    let known = Knowledge::Template(&template);
    let lacking = request().check_against(now(), known).unwrap_err();
    assert_eq!(lacking.violations[0].pointer, "/data/time2");
    let alone = request().check(now()).unwrap();
    assert_eq!(lacking.otherwise.as_deref(), Some(&alone));
    let wrong = Request {
        ttl: Some(0),
        ..request()
    };
    let wrong = wrong.check_against(now(), known).unwrap_err();
    let pointers: Vec<&str> = wrong
        .violations
        .iter()
        .map(|violation| violation.pointer.as_str())
        .collect();
    assert_eq!(pointers, ["/ttl", "/data/time2"]);
    assert_eq!(wrong.otherwise, None);
}

#[test]
fn a_long_thing_is_cut_where_that_is_asked_for() {
    let Value::Object(data) =
        json!({"thing1": {"value": "x".repeat(30)}, "phrase2": {"value": "已发货"}})
    else {
        unreachable!()
    };
    let long = Request {
        data: Some(data),
        ..request()
    };
    assert_eq!(pointers(long.clone()), ["/data/thing1/value"]);
    let cut = Request {
        on_too_long: OnTooLong::Truncate,
        ..long
    };
    let Content::Subscribe { data, .. } = cut.check(now()).unwrap().content else {
        unreachable!()
    };
    assert_eq!(data["thing1"]["value"], format!("{}…", "x".repeat(19)));
    assert_eq!(data["phrase2"]["value"], "已发货");
}

#[test]
fn what_a_database_cannot_keep_is_refused() {
    let wrong = Request {
        reference: Some("order\0".into()),
        ..request()
    };
    assert_eq!(pointers(wrong), ["/reference"]);
    let Value::Object(large) = json!({"keyword1": {"value": "x".repeat(9000)}}) else {
        unreachable!()
    };
    let wrong = Request {
        channel: Channel::Template,
        form_id: Some("f1".into()),
        data: Some(large),
        ..request()
    };
    assert_eq!(pointers(wrong), ["/data"]);
}

#[test]
fn the_origins_template_message_may_be_empty_and_takes_a_form_id_from_the_pool() {
    let template = Request {
        channel: Channel::Template,
        data: None,
        ..request()
    };
    assert!(template.clone().check(now()).is_ok());
    let with = |form_id: &str| Request {
        form_id: Some(form_id.into()),
        ..template.clone()
    };
    assert!(with("f1").check(now()).is_ok());
    assert_eq!(pointers(with("the formId is a mock one")), ["/form_id"]);
}

#[test]
fn of_too_much_data_nothing_more_is_said() {
    let keys = |count: usize| {
        let item = |number| (format!("thing{number}"), json!(0));
        (0..count).map(item).collect::<Map<String, Value>>()
    };
    let template = Template {
        id: "tpl".into(),
        kind: TemplateKind::OneTime,
        title: String::new(),
        content: "{{thing1.DATA}}{{time2.DATA}}".into(),
        example: String::new(),
        values: BTreeMap::new(),
    };
    let with = |data| Request {
        data: Some(data),
        ..request()
    };
    let long = Map::from_iter([("k".repeat(9_000), json!(0))]);
    for data in [keys(51), keys(100_000), long] {
        let unfit = with(data).check_against(now(), Knowledge::Template(&template));
        let found = unfit.unwrap_err().violations;
        let pointers: Vec<_> = found.iter().map(|one| one.pointer.as_str()).collect();
        assert_eq!(pointers, ["/data"]);
    }
    let unfit = with(keys(50)).check_against(now(), Knowledge::Template(&template));
    let found = unfit.unwrap_err().violations;
    let names_the_keys = |one: &&Violation| one.detail.contains("its keys are");
    assert_eq!(found.iter().filter(names_the_keys).count(), 1);
}
