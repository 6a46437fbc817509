use super::*;

/// WeChat calls that return tokens, tickets or credentials, clear quotas, or are implemented by the gateway.
const DENIED: &[&str] = &[
    "/cgi-bin/token",
    "/cgi-bin/stable_token",
    "/cgi-bin/ticket",
    "/cgi-bin/ticket/getticket/v2",
    "/cgi-bin/component/ticket/getticket",
    "/cgi-bin/clear_quota",
    "/cgi-bin/clear_quota/v2",
    "/cgi-bin/openapi/quota/clear",
    "/cgi-bin/component/clear_quota",
    "/cgi-bin/component/clear_quota/v2",
    "/cgi-bin/component/api_component_token",
    "/cgi-bin/component/api_start_push_ticket",
    "/cgi-bin/component/api_create_preauthcode",
    "/cgi-bin/component/api_query_auth",
    "/cgi-bin/component/api_authorizer_token",
    "/cgi-bin/component/api_get_authorizer_info",
    "/cgi-bin/component/api_get_authorizer_list",
    "/cgi-bin/component/api_get_authorizer_option",
    "/cgi-bin/component/api_set_authorizer_option",
    "/cgi-bin/component/fastregisterweapp",
    "/cgi-bin/account/fastregister",
    "/wxa/component/fastregisterbetaweapp",
    "/cgi-bin/service/get_provider_token",
    "/cgi-bin/service/get_suite_token",
    "/cgi-bin/service/get_corp_token",
    "/cgi-bin/message/subscribe/send",
    "/cgi-bin/message/template/send",
    "/cgi-bin/message/wxopen/template/send",
];

/// Other published calls: all calls on the pages at hand, and the most common of the rest.
const PASSED_ON: &[&str] = &[
    "/cgi-bin/callback/check",
    "/cgi-bin/component/getprivacysetting",
    "/cgi-bin/customservice/getkflist",
    "/cgi-bin/freepublish/submit",
    "/cgi-bin/get_api_domain_ip",
    "/cgi-bin/getcallbackip",
    "/cgi-bin/material/batchget_material",
    "/cgi-bin/media/get",
    "/cgi-bin/media/upload",
    "/cgi-bin/media/uploadimg",
    "/cgi-bin/menu/create",
    "/cgi-bin/message/custom/send",
    "/cgi-bin/message/custom/typing",
    "/cgi-bin/message/device/subscribe/send",
    "/cgi-bin/message/subscribe/bizsend",
    "/cgi-bin/message/template/subscribe",
    "/cgi-bin/message/wxopen/activityid/create",
    "/cgi-bin/message/wxopen/employeerelationmsg/send",
    "/cgi-bin/message/wxopen/template/uniform_send",
    "/cgi-bin/message/wxopen/updatablemsg/send",
    "/cgi-bin/open/bind",
    "/cgi-bin/open/create",
    "/cgi-bin/open/get",
    "/cgi-bin/openapi/quota/get",
    "/cgi-bin/openapi/rid/get",
    "/cgi-bin/qrcode/create",
    "/cgi-bin/tags/get",
    "/cgi-bin/template/api_add_template",
    "/cgi-bin/template/api_set_industry",
    "/cgi-bin/template/get_all_private_template",
    "/cgi-bin/ticket/getticket",
    "/cgi-bin/user/get",
    "/cgi-bin/user/info",
    "/cgi-bin/wxaapp/createwxaqrcode",
    "/cgi-bin/wxopen/template/list",
    "/wxa/business/getuserphonenumber",
    "/wxa/business/unbinduserb2cauthinfo",
    "/wxa/checksession",
    "/wxa/generate_urllink",
    "/wxa/generatescheme",
    "/wxa/get_user_notify",
    "/wxa/getsnticket",
    "/wxa/getwxacode",
    "/wxa/getwxacodeunlimit",
    "/wxa/msg_sec_check",
    "/wxa/sec/queryblocktmplmsg",
    "/wxa/set_user_notify",
    "/wxa/set_user_notifyext",
    "/wxaapi/newtmpl/addtemplate",
    "/wxaapi/newtmpl/deltemplate",
    "/wxaapi/newtmpl/getcategory",
    "/wxaapi/newtmpl/getpubtemplatekeywords",
    "/wxaapi/newtmpl/getpubtemplatetitles",
    "/wxaapi/newtmpl/gettemplate",
];

#[test]
fn wechats_published_calls_are_passed_on_or_not() {
    for path in PASSED_ON {
        assert!(is_forwardable(path), "{path}");
    }
    for path in DENIED {
        assert!(!is_forwardable(path), "{path}");
    }
}

/// Other spellings that a server might accept for the same path.
fn spellings(path: &str) -> Vec<String> {
    let in_escapes = |escape: fn(u8) -> String| {
        let letters = path.bytes().map(|byte| match byte {
            b'/' => "/".to_owned(),
            other => escape(other),
        });
        letters.collect::<String>()
    };
    vec![
        path.to_uppercase(),
        path.replace('_', "-"),
        path.replace('_', ""),
        path.replace('/', "//"),
        path.replace('/', "/./"),
        path.replace('/', "/x/../"),
        path.replace('/', "\\"),
        path.replacen('/', "/%2e%2e/", 1),
        format!("{path}/"),
        format!("{path}."),
        format!("{path};v=1"),
        format!("{path}%2Fv3"),
        format!("{path}%00"),
        in_escapes(|byte| format!("%{byte:02x}")),
        in_escapes(|byte| format!("%25{byte:02X}")),
        path.to_uppercase().replace('_', "%5F"),
    ]
}

#[test]
fn no_spelling_gets_past_the_rule() {
    for path in DENIED {
        for spelling in spellings(path) {
            // Only the sends are matched by the whole path.
            if !path.ends_with("/send") || segments(&spelling) == segments(path) {
                assert!(is_denied(&spelling), "{spelling}");
            }
            assert!(!is_forwardable(&spelling), "{spelling}");
        }
    }
}

#[test]
fn only_plain_paths_are_passed_on() {
    for path in [
        "/cgi-bin/../sns/jscode2session",
        "/cgi-bin/menu?x",
        "/cgi-bin/menu/%63reate",
        "/cgi-bin",
        "/cgi-bin/",
        "/sns/jscode2session",
        "cgi-bin/menu",
        "",
    ] {
        assert!(!is_forwardable(path), "{path}");
    }
}

#[test]
fn a_name_of_a_secret_is_one_in_every_spelling() {
    for name in [
        "secret",
        "Secret",
        "APPSECRET",
        "appSecret",
        "app_secret",
        "app-secret",
        "component_appsecret",
        "client_secret",
        "secret[]",
        "%73ecret",
        "%2573ecret",
        "s%65cret",
        "+secret",
    ] {
        assert!(query_carries_secret(&format!("a=1&{name}=x")), "{name}");
        assert!(query_carries_secret(&format!("a=1;{name}")), "{name}");
        let form = format!("a=1&{name}=x");
        assert!(body_carries_secret(None, form.as_bytes()), "{name}");
        let urlencoded = Some("application/x-www-form-urlencoded; charset=utf-8");
        assert!(body_carries_secret(urlencoded, form.as_bytes()), "{name}");
    }
    for query in [
        "Access_Token=x",
        "access%5Ftoken=x",
        "a=1&ACCESSTOKEN=x",
        "access_token[]=x",
    ] {
        assert!(query_carries_secret(query), "{query}");
    }
    for query in [
        "",
        "type=image",
        "component_access_token=x",
        "q=secret",
        "a=%zz&b=%",
    ] {
        assert!(!query_carries_secret(query), "{query}");
    }
}

#[test]
fn a_member_of_json_is_found_at_any_depth_and_in_any_spelling() {
    for body in [
        r#"{"secret":"x"}"#,
        r#"{"AppSecret" : "x"}"#,
        r#"{"a":[{"b":{"component_appsecret":"x"}}]}"#,
        r#"{"\u0073\u0065cret":"x"}"#,
        r#"{"a":"\"","App\u005fSecret":"x"}"#,
        "\u{feff} {\"a\": 1,\n\"client_secret\"\t:\"x\"}",
        // JSON that only a lenient parser accepts.
        "{\"a\":\"raw\ncontrol\",\"secret\":\"x\",}",
        r#"[{"secret":"x"}] trailing"#,
    ] {
        for content_type in [
            None,
            Some("application/json"),
            Some("text/plain"),
            Some("multipart/form-data"),
        ] {
            assert!(body_carries_secret(content_type, body.as_bytes()), "{body}");
        }
    }
    let deep = format!("{}{{\"secret\":1}}", "[".repeat(100_000));
    assert!(body_carries_secret(None, deep.as_bytes()));
    for body in [
        r#"{"touser":"o1","text":{"content":"the secret: x"}}"#,
        r#"{"content":"secret","a":"\\"}"#,
        r#"{"component_access_token":"x"}"#,
        r#"{"a":"\"secret\":"}"#,
        r#"{"a":"unfinished"#,
        r#"{"a\"#,
        "",
    ] {
        assert!(!body_carries_secret(None, body.as_bytes()), "{body}");
    }
}

#[test]
fn a_part_of_a_form_is_told_by_its_name() {
    let part =
        |head: &str| format!("--b\r\n{head}\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--\r\n");
    let form = Some("multipart/form-data; boundary=b");
    for head in [
        r#"Content-Disposition: form-data; name="appsecret""#,
        "content-disposition:form-data;NAME=Secret",
        r#"Content-Disposition: form-data; filename="a"; name="App_Secret""#,
    ] {
        assert!(body_carries_secret(form, part(head).as_bytes()), "{head}");
    }
    let file = r#"Content-Disposition: form-data; name="media"; filename="secret.png""#;
    assert!(!body_carries_secret(form, part(file).as_bytes()));
    assert!(!body_carries_secret(Some("image/png"), b"\x89PNG secret=1"));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..256), text in ".{0,64}") {
        for content_type in [None, Some("multipart/form-data"), Some("application/json")] {
            let _ = body_carries_secret(content_type, &body);
            let _ = body_carries_secret(content_type, format!("{{\"{text}").as_bytes());
        }
        let _ = (query_carries_secret(&text), is_forwardable(&text), is_denied(&text));
    }
}
