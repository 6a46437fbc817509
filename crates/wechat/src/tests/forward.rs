//! What leaves with a forwarded call, and which parts of the answer come back.

use bytes::Bytes;

use super::{Server, TOKEN, client, listen, ok, token};
use crate::{ForwardError, ForwardedAnswer, ForwardedCall};

fn call(method: &str, query: &str, body: &'static [u8]) -> ForwardedCall {
    ForwardedCall {
        method: method.to_owned(),
        path: "/cgi-bin/menu/create".to_owned(),
        query: query.to_owned(),
        content_type: None,
        body: Bytes::from_static(body),
    }
}

/// The request to a WeChat that answers `says`, and the result of the call.
async fn forward(
    call: &ForwardedCall,
    says: &str,
) -> (String, Result<ForwardedAnswer, ForwardError>) {
    let (listener, base_url) = listen().await;
    let server = Server::Says(says);
    let client = Server::Mute.client(base_url);
    let token = token();
    tokio::join!(server.serve(listener), client.forward(&token, call))
}

#[tokio::test]
async fn a_query_leaves_byte_for_byte_behind_the_token() {
    let gbk = call("GET", "q=%B2%E2&empty=&a=1&a=2", b"");
    let (asked, answer) = forward(&gbk, &ok("{}")).await;
    let line = asked.lines().next().unwrap();
    assert!(line.starts_with("GET /cgi-bin/menu/create?access_token="));
    assert!(
        line.ends_with("&q=%B2%E2&empty=&a=1&a=2 HTTP/1.1"),
        "{line}"
    );
    assert_eq!(&answer.unwrap().body[..], b"{}");
}

#[tokio::test]
async fn a_post_says_how_long_its_body_is() {
    for (body, length) in [(&b""[..], 0), (b"{}", 2)] {
        let (asked, _) = forward(&call("POST", "", body), &ok("{}")).await;
        let length = format!("content-length: {length}\r\n");
        assert!(asked.to_ascii_lowercase().contains(&length), "{asked}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_not_passed_back() {
    let encoded = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x08";
    let (_, answer) = forward(&call("GET", "", b""), encoded).await;
    assert!(
        matches!(answer, Err(ForwardError::Unclear(_))),
        "{answer:?}"
    );
    for (status, is_clear) in [
        ("302 Found", true),
        ("503 Service Unavailable", true),
        ("500 Internal Server Error", false),
        ("502 Bad Gateway", false),
        ("504 Gateway Timeout", false),
    ] {
        let page = format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n<html");
        let (_, answer) = forward(&call("POST", "", b""), &page).await;
        let is_what_was_meant = match &answer {
            Err(ForwardError::NotDone(_)) => is_clear,
            Err(ForwardError::Unclear(_)) => !is_clear,
            _ => false,
        };
        assert!(is_what_was_meant, "{status}: {answer:?}");
    }
    // A success contradicts such a status.
    let torn = "HTTP/1.1 503 Busy\r\nContent-Length: 13\r\n\r\n{\"errcode\":0}";
    let (_, answer) = forward(&call("POST", "", b""), torn).await;
    assert!(
        matches!(answer, Err(ForwardError::Unclear(_))),
        "{answer:?}"
    );
    let refused = "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 13\r\n\r\n{\"errcode\":1}";
    let (_, answer) = forward(&call("POST", "", b""), refused).await;
    assert_eq!(&answer.unwrap().body[..], br#"{"errcode":1}"#);
}

/// An answer with these headers.
fn with_headers(headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn a_token_that_wechat_echoes_comes_back_nowhere() {
    let escaped: Vec<_> = TOKEN.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let escaped = escaped.concat();
    let part = &TOKEN[10..40];
    for echoed in [TOKEN, &escaped, part, &TOKEN.to_lowercase()] {
        let says = with_headers(
            &format!(
                "Content-Type: image/{echoed}; charset={echoed}\r\n\
                 Content-Disposition: attachment; filename=\"{echoed}.jpg\"\r\n\
                 Set-Cookie: token={echoed}\r\nLocation: /?access_token={echoed}\r\n"
            ),
            &format!("{TOKEN} {escaped}"),
        );
        let (_, answer) = forward(&call("GET", "", b""), &says).await;
        let answer = answer.unwrap();
        let type_and_name = (
            answer.content_type.as_deref(),
            answer.content_disposition.as_deref(),
        );
        let made = (Some("application/octet-stream"), Some("attachment"));
        assert_eq!(type_and_name, made, "{echoed}");
        assert_eq!(&answer.body[..], b"*** ***");
    }
    let plain =
        "Content-Type: image/jpeg\r\nContent-disposition: attachment; filename=\"M1.jpg\"\r\n";
    let (_, answer) = forward(&call("GET", "", b""), &with_headers(plain, "x")).await;
    let answer = answer.unwrap();
    let name = answer.content_disposition.as_deref();
    assert_eq!(answer.content_type.as_deref(), Some("image/jpeg"));
    assert_eq!(name, Some("attachment; filename=\"M1.jpg\""));
}

#[tokio::test]
async fn a_refusal_of_the_token_is_read_from_json_alone() {
    let refusal = r#"{"errcode":40001,"errmsg":"invalid credential"}"#;
    let json = "Content-Type: application/json; encoding=utf-8\r\n";
    let file = format!("{json}Content-Disposition: attachment; filename=\"a.json\"\r\n");
    for (headers, body, is_stale) in [
        (json, refusal, true),
        ("", refusal, true),
        ("Content-Type: text/plain\r\n", refusal, true),
        ("Content-Type: text/html\r\n", refusal, false),
        (&file, refusal, false),
        (json, "<html>errcode 40001</html>", false),
        (json, r#"["errcode",40001]"#, false),
        (json, r#"{"errcode":0,"errmsg":"40001"}"#, false),
        (json, r#"{"a":{"errcode":40001}}"#, false),
        ("Content-Type: text/plain\r\n", "errcode: 40001", false),
    ] {
        let says = with_headers(headers, body);
        let (_, answer) = forward(&call("GET", "", b""), &says).await;
        assert_eq!(answer.unwrap().is_stale, is_stale, "{headers} {body}");
    }
}

#[tokio::test]
async fn what_carries_a_secret_does_not_leave() {
    let (_listener, base_url) = listen().await;
    let client = client(base_url);
    for (query, body) in [
        ("Secret=x", &b""[..]),
        ("a=1&component_appsecret=x", b""),
        ("", br#"{"appid":"a","AppSecret":"x"}"#),
        ("", b"appid=a&app_secret=x"),
    ] {
        let refused = client.forward(&token(), &call("POST", query, body)).await;
        assert_eq!(refused.unwrap_err(), ForwardError::Secret, "{query}");
    }
}
