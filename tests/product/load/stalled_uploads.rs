//! Uploads that stall affect only their tenant.

use reqwest::Method;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    api::hostile_requests::connect,
    drop_in::{call, post, wechat_token},
    world::{Mode, World},
};

const TEMPLATES: &str = "/wxaapi/newtmpl/gettemplate";

both_modes!(stalled_uploads_of_four_tenants_delay_no_other_tenant);

/// An upload that the gateway has begun to read, and that sends no more bytes.
async fn stalled(world: &World, token: &str) -> TcpStream {
    let mut stream = connect(world).await;
    let head = format!(
        "POST /cgi-bin/media/upload?access_token={token} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\
         Content-Length: 1000000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("a head");
    // The gateway answers 100 Continue when the gateway begins to read the body.
    let mut said = [0; 12];
    stream
        .read_exact(&mut said)
        .await
        .expect("an interim answer");
    assert_eq!(&said, b"HTTP/1.1 100");
    stream.write_all(&[b'x'; 1000]).await.expect("a part");
    stream
}

async fn stalled_uploads_of_four_tenants_delay_no_other_tenant(mode: Mode) {
    let world = World::start(mode).await;
    let mut held = Vec::new();
    for number in 0..4 {
        let appid = format!("wx00000000000000a{number}");
        let tenant = world.tenant(&format!("t{number}")).await;
        tenant.app(&appid).await;
        let token = wechat_token(&tenant.client, &appid).await;
        for _ in 0..8 {
            held.push(stalled(&world, &token).await);
        }
        // Other calls of the same tenant succeed too.
        let own = call(&tenant.client, Method::GET, TEMPLATES, &token, &Value::Null).await;
        assert_eq!(own.expect(200)["errcode"], 0);
    }
    let appid = "wx00000000000000b1";
    let tenant = world.tenant("other").await;
    tenant.app(appid).await;
    let token = wechat_token(&tenant.client, appid).await;
    for _ in 0..20 {
        let read = call(&tenant.client, Method::GET, TEMPLATES, &token, &Value::Null).await;
        assert_eq!(read.expect(200)["errcode"], 0);
        let path = "/cgi-bin/openapi/quota/get";
        let asked = serde_json::json!({"cgi_path": "/cgi-bin/message/subscribe/send"});
        let quota = post(&tenant.client, path, &token, &asked).await;
        assert_eq!(quota["errcode"], 0, "{quota}");
    }
    drop(held);
}
