//! One tenant puts the gateway under load; other tenants must not notice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use serde_json::json;
use simulator::{PushEvent, PushFormat, PushMode, PushReceipt, PushSettings};
use tokio::{io::AsyncReadExt, net::TcpListener, task::JoinSet};

use crate::{
    callbacks::{assert_success, letter_of, post_to},
    webhooks::{Receiver, hook},
    world::{Answer, Mode, World, message, until},
};

const BUSY: &str = "wx00000000000000a1";
const QUIET: &str = "wx00000000000000b2";
/// As many endpoints as a tenant may have.
const ENDPOINTS: usize = 20;
/// The most simultaneous posts to endpoints of one tenant: a quarter of a replica's posts.
const QUARTER: usize = 32;

both_modes!(
    endpoints_that_hang_delay_no_event_of_another_tenant,
    the_receipts_of_a_callback_are_limited,
    verified_callbacks_count_against_their_tenant,
    batches_leave_room_for_messages_of_another_tenant,
);

/// A server that takes every connection and answers nothing.
#[derive(Clone, Default)]
struct Deaf {
    held: Arc<AtomicUsize>,
    given_up: Arc<AtomicUsize>,
}

impl Deaf {
    /// Starts the server and returns its URL.
    async fn start(&self, server: &mut JoinSet<()>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let deaf = self.clone();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                deaf.held.fetch_add(1, Ordering::Relaxed);
                let given_up = deaf.given_up.clone();
                connections.spawn(async move {
                    let mut bytes = vec![0; 16 * 1024];
                    while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
                    given_up.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        format!("http://{address}")
    }
}

/// All hanging posts still hang when the other tenant's endpoint has received its event.
async fn endpoints_that_hang_delay_no_event_of_another_tenant(mode: Mode) {
    let world = World::start(mode).await;
    let (busy, quiet) = (world.tenant("busy").await, world.tenant("quiet").await);
    busy.app(BUSY).await;
    quiet.app(QUIET).await;
    let receiver = Receiver::start().await;
    hook(&quiet, &receiver).await;
    let (deaf, mut server) = (Deaf::default(), JoinSet::new());
    let url = deaf.start(&mut server).await;
    for number in 0..ENDPOINTS {
        let new = json!({"url": format!("{url}/{number}"), "events": ["*"]});
        busy.client.post("/v1/webhooks", &new).await.expect(201);
    }
    let sends = (0..10).map(|number| {
        let busy = busy.clone();
        async move {
            busy.send_and_wait(BUSY, &message(&format!("o{number}")))
                .await
        }
    });
    join_all(sends).await;
    until("the endpoints hold all posts that they get", || {
        deaf.held.load(Ordering::Relaxed) >= QUARTER
    })
    .await;

    quiet.send_and_wait(QUIET, &message("o1")).await;
    receiver.wait(&world, 1).await;
    let given_up = deaf.given_up.load(Ordering::Relaxed);
    assert_eq!(given_up, 0, "the event has waited for posts that hang");
    assert_eq!(deaf.held.load(Ordering::Relaxed), QUARTER);
    server.abort_all();
}

const TOKEN: &str = "gatewayTestToken01";

/// Gives WeChat the callback Token of the app.
fn pushes(world: &World, appid: &str) {
    let push = PushSettings {
        url: format!("{}/callbacks/{appid}", world.url(0)),
        token: TOKEN.into(),
        aes_key: None,
        mode: PushMode::Plain,
        format: PushFormat::Json,
        receipts: false,
    };
    world
        .wechat()
        .change_app(appid, |app| app.push = Some(push));
}

/// Posts a callback with receipts for messages that no tenant has sent.
async fn invented(world: &World, appid: &str, from: u64, count: u64) -> Answer {
    let receipts = (from..from + count).map(|number| PushReceipt {
        template_id: "t".into(),
        msgid: 1 << 60 | number,
        error_code: 0,
        error_status: "success".into(),
    });
    let event = PushEvent::Sent {
        openid: format!("o{from}"),
        receipts: receipts.collect(),
    };
    post_to(world, appid, &letter_of(world, appid, &event)).await
}

async fn the_receipts_of_a_callback_are_limited(mode: Mode) {
    let world = World::start(mode).await;
    let busy = world.tenant("busy").await;
    let token = json!({"callback_token": TOKEN});
    busy.app_with(BUSY, token).await;
    pushes(&world, BUSY);
    assert_success(&invented(&world, BUSY, 0, 100).await);
    let refused = invented(&world, BUSY, 1_000, 101).await;
    refused.problem(403, "bad_signature");
}

/// The clock stands still, so that no counted callback leaves the rate limit.
async fn verified_callbacks_count_against_their_tenant(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let (busy, quiet) = (world.tenant("busy").await, world.tenant("quiet").await);
    let token = json!({"callback_token": TOKEN});
    busy.app_with(BUSY, token.clone()).await;
    quiet.app_with(QUIET, token).await;
    pushes(&world, BUSY);
    pushes(&world, QUIET);
    for number in 0..20 {
        assert_success(&invented(&world, BUSY, number * 100, 100).await);
    }
    let refused = invented(&world, BUSY, 9_000, 1).await;
    assert_eq!(refused.header("retry-after"), Some("1"));
    refused.problem(429, "rate_limited");
    assert_success(&invented(&world, QUIET, 0, 1).await);
    // The limit allows callbacks again after a second.
    world.pass(Duration::from_secs(1));
    assert_success(&invented(&world, BUSY, 9_000, 1).await);
}

/// One tenant posts more batches at once than may wait.
async fn batches_leave_room_for_messages_of_another_tenant(mode: Mode) {
    let world = World::start(mode).await;
    let (busy, quiet) = (world.tenant("busy").await, world.tenant("quiet").await);
    busy.app(BUSY).await;
    quiet.app(QUIET).await;
    quiet.client.token().await;
    let send_at = (world.now() + Duration::from_hours(1)).to_rfc3339();
    let messages: Vec<_> = (0..1_000)
        .map(|number| json!({"touser": format!("o{number}"), "template_id": "t", "send_at": send_at, "data": {"thing1": {"value": "x"}}}))
        .collect();
    let batch = json!({ "messages": messages });
    let path = format!("/v1/apps/{BUSY}/messages/batch");
    let batches = (0..8).map(|_| async {
        let answer = busy.client.post(&path, &batch).await;
        assert!(answer.status == 200 || answer.status == 503, "{answer:?}");
        answer.status == 200
    });
    let singles = async {
        for number in 0..50 {
            quiet.send(QUIET, &message(&format!("o{number}"))).await;
        }
    };
    let (taken, ()) = futures::future::join(join_all(batches), singles).await;
    assert!(taken.into_iter().filter(|taken| *taken).count() >= 4);
}
