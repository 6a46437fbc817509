//! Tests that no printable value contains a token or a secret.

use std::{error::Error, fmt::Write as _};

use domain::message::Channel;

use super::{SECRET, Server, TOKEN, appid, client, content, listen, ok, secret, token};
use crate::{Client, Outgoing};

/// Everything that an error can print: the text, the `Debug` output, and those of the sources.
fn print(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        write!(text, "{error} {error:?} {error:#?} ").unwrap();
        next = error.source();
    }
    text
}

fn check(text: &str) {
    assert!(!text.contains(TOKEN) && !text.contains(SECRET), "{text}");
    assert!(
        !text.contains(&TOKEN[..20]) && !text.contains(&SECRET[..16]),
        "{text}"
    );
}

/// All calls with `client`; `server` serves each call.
async fn try_all(client: &Client, mut server: impl AsyncFnMut()) {
    let (token, secret, appid, content) = (token(), secret(), appid(), content());
    let message = Outgoing {
        touser: "oABC",
        template_id: "tpl",
        content: &content,
    };
    let (legacy, ()) = tokio::join!(client.fetch_legacy_token(&appid, &secret), server());
    check(&print(&legacy.unwrap_err()));
    let (stable, ()) = tokio::join!(client.fetch_stable_token(&appid, &secret, false), server());
    check(&print(&stable.unwrap_err()));
    let (quota, ()) = tokio::join!(client.quota(&token, Channel::Subscribe), server());
    check(&print(&quota.unwrap_err()));
    let (answer, ()) = tokio::join!(client.send(&token, message), server());
    assert!(!answer.errmsg.is_empty());
    check(&format!("{answer:?} {answer:#?} {client:?}"));
}

#[tokio::test]
async fn when_nobody_can_be_reached() {
    let (listener, base_url) = listen().await;
    drop(listener);
    try_all(&client(base_url.clone()), async || {}).await;
    try_all(&client(base_url.replace("http:", "https:")), async || {}).await;
    try_all(
        &client("http://no-such-host.invalid".to_owned()),
        async || {},
    )
    .await;
}

#[tokio::test]
async fn when_the_connection_or_the_answer_breaks() {
    let echo = format!(
        "HTTP/1.1 302 Found\r\nLocation: /login?secret={SECRET}&access_token={TOKEN}\r\nContent-Length: 0\r\n\r\n"
    );
    let page = ok(&format!(
        "<html>no such page: /cgi-bin/token?secret={SECRET}&access_token={TOKEN}"
    ));
    let cut_off = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"errcode\":0";
    let servers = [Server::Deaf, Server::Mute, Server::Hung];
    for server in servers
        .into_iter()
        .chain([cut_off, &echo, &page].map(Server::Says))
    {
        let (listener, base_url) = listen().await;
        let client = server.client(base_url);
        try_all(&client, async || {
            server.serve_on(&listener).await;
        })
        .await;
    }
}

#[tokio::test]
async fn when_wechat_echoes_what_it_was_called_with() {
    let (token, secret, appid, content) = (token(), secret(), appid(), content());
    let message = Outgoing {
        touser: "oABC",
        template_id: "tpl",
        content: &content,
    };
    let echo = |carried: &str| {
        ok(&format!(
            "{{\"errcode\":40001,\"errmsg\":\"{carried} is wrong hint: [{carried}] rid: {carried}\"}}"
        ))
    };

    let (listener, base_url) = listen().await;
    let client = client(base_url);
    let (says_secret, says_token) = (echo(SECRET), echo(TOKEN));
    let serve = async |says: &str| Server::Says(says).serve_on(&listener).await;

    let (error, _) = tokio::join!(
        client.fetch_legacy_token(&appid, &secret),
        serve(&says_secret)
    );
    let error = error.unwrap_err();
    check(&print(&error));
    assert!(error.cause().errmsg.starts_with("… is wrong"), "{error}");
    let (error, _) = tokio::join!(
        client.fetch_stable_token(&appid, &secret, true),
        serve(&says_secret)
    );
    check(&print(&error.unwrap_err()));
    let (error, _) = tokio::join!(client.quota(&token, Channel::Subscribe), serve(&says_token));
    check(&print(&error.unwrap_err()));
    let (answer, _) = tokio::join!(client.send(&token, message), serve(&says_token));
    check(&format!("{answer:?}"));
}
