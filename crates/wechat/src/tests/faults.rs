//! The meaning of a broken connection or a strange answer for a send.

use std::time::Duration;

use domain::{
    message::Channel,
    retry::Delay,
    verdict::{FailureCode, Verdict},
};
use tokio::{io::AsyncWriteExt, net::TcpListener};

use super::{
    Server, appid, client, content, impatient_to_connect, listen, ok, read_request, secret,
    send_to, token,
};
use crate::{Answer, FetchedToken, Outgoing, TokenError, WechatQuota};

async fn send_without_server(base_url: String) -> Answer {
    let content = content();
    impatient_to_connect(base_url)
        .send(
            &token(),
            Outgoing {
                touser: "oABC",
                template_id: "tpl",
                content: &content,
            },
        )
        .await
}

async fn verdict_of(answer: &str) -> Verdict {
    send_to(Server::Says(answer)).await.0.verdict
}

#[tokio::test]
async fn what_never_left_is_sent_later() {
    let (listener, closed) = listen().await;
    drop(listener);
    for base_url in [closed, "http://no-such-host.invalid".to_owned()] {
        let answer = send_without_server(base_url).await;
        assert_eq!(answer.verdict, Verdict::Later(Delay::Backoff), "{answer:?}");
        assert!(answer.errmsg.starts_with("cannot connect to WeChat: "));
        assert_eq!((answer.errcode, answer.rid), (None, None));
    }
}

#[tokio::test]
async fn a_failed_or_endless_tls_handshake_is_sent_later() {
    let (listener, base_url) = listen().await;
    let base_url = base_url.replace("http:", "https:");
    // The listener's backlog takes the connection, and no server answers.
    let answer = send_without_server(base_url.clone()).await;
    assert_eq!(answer.verdict, Verdict::Later(Delay::Backoff), "{answer:?}");

    let no_tls = async |listener: TcpListener| {
        let (stream, _) = listener.accept().await.unwrap();
        stream.writable().await.unwrap();
        stream
            .try_write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .unwrap();
        stream
    };
    drop(listener);
    let (listener, base_url) = listen().await;
    let (answer, _) = tokio::join!(
        send_without_server(base_url.replace("http:", "https:")),
        no_tls(listener)
    );
    assert_eq!(answer.verdict, Verdict::Later(Delay::Backoff), "{answer:?}");
}

#[tokio::test]
async fn what_broke_after_the_request_left_is_unknown() {
    let cut_off = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"errcode\":0";
    let no_length = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"err";
    let half_a_head = "HTTP/1.1 200 O";
    let no_http = "SSH-2.0-OpenSSH_9.6\r\n";
    let faults = [Server::Deaf, Server::Mute, Server::Hung];
    for server in faults
        .into_iter()
        .chain([cut_off, no_length, half_a_head, no_http].map(Server::Says))
    {
        let (answer, _) = send_to(server).await;
        assert_eq!(answer.verdict, Verdict::Unknown, "{answer:?}");
        assert!(answer.errcode.is_none() && !answer.errmsg.is_empty());
    }
}

#[tokio::test]
async fn a_200_that_says_neither_yes_nor_no_is_unknown() {
    let huge = format!("{{\"errcode\":0,\"errmsg\":\"{}\"}}", "x".repeat(64 * 1024));
    for body in [
        "",
        "<html>maintenance</html>",
        "{}",
        "[0]",
        "{\"errcode\":\"?\"}",
        "{\"errmsg\":\"ok\"}",
        &huge,
    ] {
        assert_eq!(verdict_of(&ok(body)).await, Verdict::Unknown, "{body:.40}");
    }
}

/// A page of a proxy with this status line and these headers.
fn page(head: &str) -> String {
    format!("HTTP/1.1 {head}Content-Length: 6\r\n\r\n<html>")
}

#[tokio::test]
async fn a_gateway_that_kept_the_request_is_asked_later_at_its_own_time() {
    let later = |seconds| Verdict::Later(Delay::After(Duration::from_secs(seconds)));
    let backoff = Verdict::Later(Delay::Backoff);
    for (head, verdict) in [
        ("503 Busy\r\n", backoff.clone()),
        ("503 Busy\r\nRetry-After: 7\r\n", later(7)),
        ("503 Busy\r\nRetry-After: 3600\r\n", later(3600)),
        ("503 Busy\r\nRetry-After: 3601\r\n", backoff.clone()),
        (
            "503 Busy\r\nRetry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n",
            backoff.clone(),
        ),
        ("429 Too Many\r\nRetry-After: 0\r\n", backoff.clone()),
        ("403 Forbidden\r\n", backoff.clone()),
        ("408 Too Slow\r\n", backoff.clone()),
        ("307 Elsewhere\r\nLocation: /cgi-bin/\r\n", backoff.clone()),
    ] {
        assert_eq!(verdict_of(&page(head)).await, verdict, "{head}");
    }
    // The page is incomplete: the status alone is sufficient.
    assert_eq!(
        verdict_of("HTTP/1.1 503 Busy\r\nContent-Length: 99\r\n\r\n").await,
        backoff
    );
}

#[tokio::test]
async fn a_gateway_that_may_have_passed_the_request_on_leaves_the_outcome_unknown() {
    for status in [500, 501, 502, 504, 505, 507, 520, 522, 524, 599] {
        for more in ["", "Retry-After: 7\r\n"] {
            let head = format!("{status} Oops\r\n{more}");
            assert_eq!(verdict_of(&page(&head)).await, Verdict::Unknown, "{head}");
        }
    }
    // The page is incomplete.
    let broken = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 99\r\n\r\n";
    assert_eq!(verdict_of(broken).await, Verdict::Unknown);
}

#[tokio::test]
async fn wechats_own_word_counts_whatever_the_status() {
    let body = r#"{"errcode":"43101","errmsg":"user refuse to accept the msg rid: 68c1f0a2-2b9d47e1-5f03ab9c"}"#;
    let answer = format!(
        "HTTP/1.1 500 Oops\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (answer, _) = send_to(Server::Says(&answer)).await;
    assert_eq!(answer.verdict, Verdict::Rejected(FailureCode::NoGrant));
    assert_eq!(answer.errcode, Some(43101));
    assert_eq!(answer.errmsg.as_str(), "user refuse to accept the msg");
    assert_eq!(answer.rid.as_deref(), Some("68c1f0a2-2b9d47e1-5f03ab9c"));
    // The client accepts a success only with HTTP 200; with another status the answer contradicts itself.
    for status in [404, 502, 503] {
        for body in ["{\"errcode\":0}", "{\"msgid\":12345}"] {
            let length = body.len();
            let says = format!("HTTP/1.1 {status} Oops\r\nContent-Length: {length}\r\n\r\n{body}");
            assert_eq!(verdict_of(&says).await, Verdict::Unknown, "{says}");
        }
    }
}

#[tokio::test]
async fn a_send_is_posted_as_json_with_the_token_in_the_query() {
    let (answer, asked) = send_to(Server::Says(&ok(
        r#"{"errcode":0,"errmsg":"ok","msgid":4103297716205551617}"#,
    )))
    .await;
    assert_eq!(
        answer.verdict,
        Verdict::Accepted {
            msgid: Some(4_103_297_716_205_551_617)
        }
    );
    assert_eq!(
        (answer.errcode, answer.errmsg, answer.rid),
        (Some(0), "ok".to_owned(), None)
    );
    assert!(answer.duration > Duration::ZERO);
    let line = format!(
        "POST /cgi-bin/message/subscribe/send?access_token={} HTTP/1.1\r\n",
        super::TOKEN
    );
    assert!(asked.starts_with(&line), "{asked}");
    assert!(
        asked.contains("content-type: application/json\r\n"),
        "{asked}"
    );
    assert!(
        asked.ends_with(r#""data":{"thing1":{"value":"保温杯"}}}"#),
        "{asked}"
    );
}

/// Two sends in a row; `serve` is the server and returns the number of accepted connections.
async fn send_twice(
    serve: impl AsyncFnOnce(TcpListener) -> usize,
    pause: impl AsyncFn(),
) -> (Verdict, Verdict, usize) {
    let (listener, base_url) = listen().await;
    let (client, token, content) = (client(base_url), token(), content());
    let message = Outgoing {
        touser: "oABC",
        template_id: "tpl",
        content: &content,
    };
    let sends = async {
        let first = client.send(&token, message).await.verdict;
        pause().await;
        (first, client.send(&token, message).await.verdict)
    };
    let ((first, second), connections) = tokio::join!(sends, serve(listener));
    (first, second, connections)
}

#[tokio::test]
async fn a_connection_serves_send_after_send_even_after_a_gateways_page() {
    let serve = async |listener: TcpListener| {
        let (mut stream, _) = listener.accept().await.unwrap();
        for answer in [page("502 Bad Gateway\r\n"), ok("{\"errcode\":0}")] {
            read_request(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        1
    };
    let (first, second, _) = send_twice(serve, async || {}).await;
    assert_eq!(
        (first, second),
        (Verdict::Unknown, Verdict::Accepted { msgid: None })
    );
}

#[tokio::test]
async fn an_idle_connection_that_was_closed_is_replaced() {
    let serve = async |listener: TcpListener| {
        for _ in 0..2 {
            Server::Says(&ok("{\"errcode\":0}"))
                .serve_on(&listener)
                .await;
        }
        2
    };
    // Gives the client's side of the connection time to notice that the server has closed.
    let pause = async || {
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
    };
    let (first, second, connections) = send_twice(serve, pause).await;
    let accepted = Verdict::Accepted { msgid: None };
    assert_eq!(
        (first, second, connections),
        (accepted.clone(), accepted, 2)
    );
}

async fn fetch(says: &str, legacy: bool) -> (Result<FetchedToken, TokenError>, String) {
    let (listener, base_url) = listen().await;
    let (client, appid, secret) = (client(base_url), appid(), secret());
    let ask = async {
        if legacy {
            client.fetch_legacy_token(&appid, &secret).await
        } else {
            client.fetch_stable_token(&appid, &secret, true).await
        }
    };
    tokio::join!(ask, Server::Says(says).serve(listener))
}

#[tokio::test]
async fn tokens_are_fetched_in_both_ways() {
    let (fetched, asked) = fetch(&ok(r#"{"access_token":"76_new","expires_in":7200}"#), true).await;
    let fetched = fetched.unwrap();
    assert_eq!(
        (fetched.token.expose(), fetched.expires_in),
        ("76_new", Duration::from_hours(2))
    );
    let query = format!(
        "grant_type=client_credential&appid=wx0a1b2c3d4e5f6789&secret={}",
        super::SECRET
    );
    assert!(
        asked.starts_with(&format!("GET /cgi-bin/token?{query} HTTP/1.1\r\n")),
        "{asked}"
    );

    let (fetched, asked) = fetch(
        &ok(r#"{"errcode":0,"access_token":"76_new","expires_in":"99999999999"}"#),
        false,
    )
    .await;
    assert_eq!(fetched.unwrap().expires_in, Duration::from_hours(24));
    assert!(
        asked.starts_with("POST /cgi-bin/stable_token HTTP/1.1\r\n"),
        "{asked}"
    );
    let body = format!(
        r#"{{"grant_type":"client_credential","appid":"wx0a1b2c3d4e5f6789","secret":"{}","force_refresh":true}}"#,
        super::SECRET
    );
    assert!(asked.ends_with(&body), "{asked}");
}

#[tokio::test]
async fn a_fetch_without_a_clear_answer_is_made_later() {
    for says in [
        ok("<html>"),
        ok("{\"errcode\":0}"),
        ok("{\"errcode\":98765}"),
        ok("{\"access_token\":\"76_new\"}"),
        String::new(),
        "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n".to_owned(),
    ] {
        let (fetched, _) = fetch(&says, true).await;
        assert!(
            matches!(
                fetched,
                Err(TokenError::Unclear(_)
                    | TokenError::Later {
                        delay: Delay::Backoff,
                        ..
                    })
            ),
            "{says}: {fetched:?}"
        );
    }
}

#[tokio::test]
async fn the_quota_is_asked_for_a_channels_path() {
    let (listener, base_url) = listen().await;
    let says = ok(
        r#"{"errcode":0,"errmsg":"ok","quota":{"daily_limit":30000000,"used":"48211","remain":29951789}}"#,
    );
    let (client, token) = (client(base_url), token());
    let (quota, asked) = tokio::join!(
        client.quota(&token, Channel::Official),
        Server::Says(&says).serve(listener)
    );
    assert_eq!(
        quota,
        Ok(WechatQuota {
            daily_limit: 30_000_000,
            used: 48_211,
            remain: 29_951_789
        })
    );
    assert!(
        asked.starts_with(&format!(
            "POST /cgi-bin/openapi/quota/get?access_token={} ",
            super::TOKEN
        )),
        "{asked}"
    );
    assert!(
        asked.ends_with(r#"{"cgi_path":"/cgi-bin/message/template/send"}"#),
        "{asked}"
    );
}
