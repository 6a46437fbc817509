//! The scenario of a generated client (see python/scenario.py) with a client by OpenAPI Generator.

use std::{collections::HashMap, env, error::Error, fs};

use wxgate_client::{
    apis::{
        self, apps_api::register_app, configuration::Configuration, messages_api::*, oauth_api::issue_token,
    },
    models::{
        AppRegistration, DataItem, DataItemValue, MessageRequest, Status, SubscribeMessage, subscribe_message::Channel,
    },
};

const MESSAGES: usize = 5;
const PAGE: i64 = 2;
const TEMPLATE: &str = "8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k";

fn message(user: &str, value: &str) -> MessageRequest {
    let value = DataItem::new(DataItemValue::String(value.to_owned()));
    let data = HashMap::from([("thing1".to_owned(), value)]);
    let message = SubscribeMessage::new(Channel::Subscribe, data, TEMPLATE.to_owned(), user.to_owned());
    MessageRequest::SubscribeMessage(Box::new(message))
}

/// Arguments: --gateway URL --keys FILE.
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().collect();
    let keys: serde_json::Value = serde_json::from_str(&fs::read_to_string(&arguments[4])?)?;
    let key = |name: &str| keys["tenant"][name].as_str();
    let mut gateway = Configuration {
        base_path: arguments[2].clone(),
        ..Configuration::new()
    };
    let (id, secret) = (key("client_id"), key("client_secret"));
    let token = issue_token(&gateway, "client_credentials", id, secret, None).await?;
    gateway.oauth_access_token = Some(token.access_token);

    let appid = format!("wx{:016x}", std::process::id());
    let app = AppRegistration::new(appid.clone(), "0f1e2d3c4b5a69788796a5b4c3d2e1f0".to_owned());
    assert_eq!(register_app(&gateway, app, None).await?.appid, appid);
    println!("registered: {appid}");

    let mut sent = Vec::new();
    for number in 0..MESSAGES {
        let body = message(&format!("o{number}"), "保温杯");
        let one = send_message(&gateway, &appid, body, Some("wait=20"), None).await?;
        assert_eq!(one.status, Status::Sent);
        sent.push(one.id);
    }
    println!("sent: {}", sent.len());
    let read = get_message(&gateway, &sent[0]).await?;
    assert_eq!((read.touser.as_str(), read.attempts[0].errcode), ("o0", Some(0)));

    let (mut listed, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let limit = Some(PAGE);
        let page =
            list_messages(&gateway, &appid, None, None, None, None, None, None, limit, cursor.as_deref()).await?;
        listed.extend(page.data.into_iter().map(|one| one.id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    sent.reverse();
    assert_eq!(listed, sent);
    println!("listed: {}", listed.len());

    let body = message("o0", "more than twenty characters");
    match send_message(&gateway, &appid, body, None, None).await {
        Err(apis::Error::ResponseError(refusal)) => {
            assert_eq!(refusal.status.as_u16(), 422);
            // The variants do not depend on the status: all variants hold a problem.
            let problem: wxgate_client::models::Problem = serde_json::from_str(&refusal.content)?;
            assert_eq!(problem.code, "validation_failed");
            let errors = problem.errors.unwrap_or_default();
            assert_eq!(errors[0].pointer, "/data/thing1/value");
            println!("refused: validation_failed {}", errors[0].detail);
        }
        other => panic!("a value that is too long was taken: {other:?}"),
    }
    Ok(())
}
