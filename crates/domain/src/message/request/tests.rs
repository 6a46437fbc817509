//! Tests of the rules of a request.

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
    let lacking = request()
        .check_against(now(), known, ValueRules::Strict)
        .unwrap_err();
    assert_eq!(lacking.violations[0].pointer, "/data/time2");
    let alone = request().check(now()).unwrap();
    assert_eq!(lacking.otherwise.as_deref(), Some(&alone));
    let wrong = Request {
        ttl: Some(0),
        ..request()
    };
    let wrong = wrong
        .check_against(now(), known, ValueRules::Strict)
        .unwrap_err();
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
        let unfit =
            with(data).check_against(now(), Knowledge::Template(&template), ValueRules::Strict);
        let found = unfit.unwrap_err().violations;
        let pointers: Vec<_> = found.iter().map(|one| one.pointer.as_str()).collect();
        assert_eq!(pointers, ["/data"]);
    }
    let unfit =
        with(keys(50)).check_against(now(), Knowledge::Template(&template), ValueRules::Strict);
    let found = unfit.unwrap_err().violations;
    let names_the_keys = |one: &&Violation| one.detail.contains("its keys are");
    assert_eq!(found.iter().filter(names_the_keys).count(), 1);
}

fn data(value: Value) -> Map<String, Value> {
    let Value::Object(data) = value else {
        unreachable!()
    };
    data
}

/// The sent content, and the pointers of the warnings.
fn converted(request: Request) -> (Value, Vec<String>) {
    let draft = request.check(now()).unwrap();
    let pointers = draft.warnings.iter().map(|warning| {
        let pointer = warning.split(' ').next().unwrap_or_default();
        pointer.to_owned()
    });
    (
        serde_json::to_value(&draft.content).unwrap(),
        pointers.collect(),
    )
}

#[test]
fn a_value_in_another_form_is_sent_in_wechats_with_a_warning() {
    let (content, warnings) = converted(Request {
        data: Some(data(json!({
            "thing1": {"value": "０～９"},
            "time2": {"value": "2021年10月25日 09:00～09:30"},
        }))),
        ..request()
    });
    assert_eq!(
        content["data"]["time2"]["value"],
        "2021年10月25日 09:00~09:30"
    );
    assert_eq!(content["data"]["thing1"]["value"], "０～９");
    assert_eq!(warnings, ["/data/time2/value"]);
    let (_, warnings) = converted(request());
    assert!(warnings.is_empty());
    // The values of the template channel have no types.
    let (content, warnings) = converted(Request {
        channel: Channel::Template,
        data: Some(data(json!({"keyword1": {"value": "18：30"}}))),
        ..request()
    });
    assert_eq!(content["data"]["keyword1"]["value"], "18：30");
    assert!(warnings.is_empty());
}

#[test]
fn a_page_is_one_of_the_mini_program() {
    let page = |page: &str| Request {
        page: Some(page.into()),
        ..request()
    };
    let link = |pagepath: &str| Request {
        channel: Channel::Official,
        miniprogram: Some(MiniprogramLink {
            appid: "wx0a1b2c3d4e5f6789".into(),
            pagepath: Some(pagepath.into()),
        }),
        ..request()
    };
    for wrong in ["https://a.example", "(page)", "pages/index?id = 1"] {
        assert_eq!(pointers(page(wrong)), ["/page"], "{wrong}");
        assert_eq!(pointers(link(wrong)), ["/miniprogram/pagepath"], "{wrong}");
    }
    let (content, warnings) = converted(page("/pages/index?id=1"));
    assert_eq!(content["page"], "pages/index?id=1");
    assert_eq!(warnings, ["/page"]);
    let (content, warnings) = converted(link("/pages/index?id=1"));
    assert_eq!(content["miniprogram"]["pagepath"], "pages/index?id=1");
    assert_eq!(warnings, ["/miniprogram/pagepath"]);
}

#[test]
fn a_prepay_id_is_sent_without_its_prefix() {
    let with = |form_id: &str| Request {
        channel: Channel::Template,
        form_id: Some(form_id.into()),
        ..request()
    };
    let (content, warnings) = converted(with("prepay_id=wx20170304215222954be2703f0862"));
    assert_eq!(content["form_id"], "wx20170304215222954be2703f0862");
    assert_eq!(warnings, ["/form_id"]);
    assert_eq!(pointers(with("prepay_id=undefined")), ["/form_id"]);
}

#[test]
fn what_wechat_withdrew_may_be_empty_on_the_official_channel() {
    let with = |channel, data: Value| Request {
        channel,
        data: Some(self::data(data)),
        ..request()
    };
    let empty = json!({"first": {"value": ""}, "remark": {}, "thing1": {"value": "x"}});
    let (content, warnings) = converted(with(Channel::Official, empty.clone()));
    assert_eq!(content["data"], json!({"thing1": {"value": "x"}}));
    assert_eq!(warnings, ["/data/first", "/data/remark"]);
    assert_eq!(
        pointers(with(Channel::Subscribe, empty)),
        ["/data/remark", "/data/first/value"]
    );
    let full = json!({"remark": {"value": "x"}, "thing1": {"value": "x"}});
    let (content, _) = converted(with(Channel::Official, full.clone()));
    assert_eq!(content["data"], full);
}

#[test]
fn a_send_at_is_kept_in_one_form_and_not_from_long_ago() {
    let at = |send_at: &str| Request {
        send_at: Some(send_at.parse().unwrap()),
        ..request()
    };
    for long_ago in ["0000-01-01T00:00:00Z", "2022-11-14T22:13:20Z"] {
        assert_eq!(pointers(at(long_ago)), ["/send_at"], "{long_ago}");
    }
    let leap = at("2023-11-14T23:59:60Z").check(now()).unwrap();
    assert_eq!(leap.send_at, Some("2023-11-15T00:00:00Z".parse().unwrap()));
    let fine = at("2023-11-14T23:59:59.123456789Z").check(now()).unwrap();
    assert_eq!(
        fine.send_at,
        Some("2023-11-14T23:59:59.123Z".parse().unwrap())
    );
}

#[test]
fn an_app_with_lenient_rules_is_warned_of_what_breaks_a_type() {
    let with = |data: Value| Request {
        data: Some(self::data(data)),
        ..request()
    };
    let broken = json!({"phrase1": {"value": "shipped"}, "number2": {"value": "12a"}, "thing3": {"value": "x"}});
    let check =
        |data: &Value, rules| with(data.clone()).check_against(now(), Knowledge::Nothing, rules);
    let strict = check(&broken, ValueRules::Strict).unwrap_err().violations;
    let pointers: Vec<_> = strict.iter().map(|one| &*one.pointer).collect();
    assert_eq!(pointers, ["/data/number2/value", "/data/phrase1/value"]);
    let draft = check(&broken, ValueRules::Warn).unwrap();
    assert_eq!(draft.warnings.len(), 2);
    assert!(
        draft.warnings[0]
            .starts_with("/data/number2/value is sent unchanged, but must be at most 32 digits")
    );
    let empty = json!({"thing3": {"value": "\u{200b}"}});
    let refused = check(&empty, ValueRules::Warn).unwrap_err().violations;
    assert_eq!(refused[0].pointer, "/data/thing3/value");
}
