//! The crate from the callers' view: against the fixtures, and against servers that misbehave.

mod faults;
mod fixtures;
mod forward;
mod secrecy;

use std::time::Duration;

use domain::{
    app::AppId,
    message::{Content, Lang, MiniprogramState},
    secret::{AccessToken, AppSecret},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{Answer, Client, ClientOptions, Outgoing};

const TOKEN: &str = "76_pZt0Qm3vXkYwR8LhN2cBfSg7UeJd5aVoKxI1tHqGzWnPsCyDrMbEuTlOiF4A9jXQ2";
const SECRET: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

fn token() -> AccessToken {
    AccessToken::new(TOKEN)
}

fn secret() -> AppSecret {
    AppSecret::new(SECRET)
}

fn appid() -> AppId {
    AppId::parse("wx0a1b2c3d4e5f6789").unwrap()
}

fn content() -> Content {
    let data = serde_json::json!({"thing1": {"value": "保温杯"}});
    Content::Subscribe {
        data: data.as_object().unwrap().clone(),
        page: None,
        miniprogram_state: MiniprogramState::Formal,
        lang: Lang::ZhCn,
    }
}

/// A client of the server at `base_url`, with time-outs long enough for a busy machine.
fn client(base_url: String) -> Client {
    Client::new(ClientOptions {
        base_url,
        ..ClientOptions::default()
    })
    .unwrap()
}

/// A client with time-outs short enough for a test.
fn impatient(base_url: String) -> Client {
    let options = ClientOptions {
        base_url,
        connect_timeout: Duration::from_millis(200),
        timeout: Duration::from_millis(300),
        ..ClientOptions::default()
    };
    Client::new(options).unwrap()
}

/// A client with the shortest connect time-out for a test, and an answer time-out long enough for a busy machine.
fn impatient_to_connect(base_url: String) -> Client {
    let options = ClientOptions {
        base_url,
        connect_timeout: Duration::from_millis(200),
        timeout: Duration::from_mins(1),
        ..ClientOptions::default()
    };
    Client::new(options).unwrap()
}

/// The behaviour of a test server.
#[derive(Clone, Copy)]
enum Server<'a> {
    /// Closes without reading.
    Deaf,
    /// Reads and closes.
    Mute,
    /// Reads and keeps the connection open until the client gives up.
    Hung,
    /// Reads, writes these bytes and closes.
    Says(&'a str),
}

impl Server<'_> {
    /// The client for this server.
    fn client(self, base_url: String) -> Client {
        if matches!(self, Self::Hung) {
            impatient(base_url)
        } else {
            client(base_url)
        }
    }

    /// Serves one connection and returns the received request.
    async fn serve(self, listener: TcpListener) -> String {
        self.serve_on(&listener).await
    }

    async fn serve_on(self, listener: &TcpListener) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = String::new();
        match self {
            Self::Deaf => {}
            Self::Mute => asked = read_request(&mut stream).await,
            Self::Hung => {
                asked = read_request(&mut stream).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
            Self::Says(answer) => {
                asked = read_request(&mut stream).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
        drop(stream);
        asked
    }
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            });
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        assert_ne!(
            stream.read_buf(&mut request).await.unwrap(),
            0,
            "the client hung up"
        );
    }
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    (listener, base_url)
}

/// Sends one message to `server`; returns the answer and the request that the server received.
async fn send_to(server: Server<'_>) -> (Answer, String) {
    let (listener, base_url) = listen().await;
    // A second handle of the socket shows afterwards whether another connection came.
    let watch = listener.into_std().unwrap();
    let listener = TcpListener::from_std(watch.try_clone().unwrap()).unwrap();
    let client = server.client(base_url);
    let (token, content) = (token(), content());
    let message = Outgoing {
        touser: "oABC",
        template_id: "tpl",
        content: &content,
    };
    let (answer, asked) = tokio::join!(client.send(&token, message), server.serve(listener));
    let again = watch.accept().map(|_| ()).map_err(|error| error.kind());
    assert_eq!(
        again,
        Err(std::io::ErrorKind::WouldBlock),
        "the request was sent again"
    );
    (answer, asked)
}
