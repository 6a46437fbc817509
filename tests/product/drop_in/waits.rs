//! The waiting of drop-in calls for the message: not for a paused app, and not after the client has hung up.

use std::time::Duration;

use reqwest::Method;
use simulator::{Effect, Fault};

use crate::{
    drop_in::wechat_token,
    world::{Mode, Tenant, World, finish, message, until},
};

const APP: &str = "wx00000000000000a1";
const SUBSCRIBE: &str = "/cgi-bin/message/subscribe/send";

both_modes!(
    a_paused_app_is_refused_at_once,
    a_client_that_hangs_up_cancels_the_message,
    slow_calls_of_one_tenant_leave_room_for_others,
);

/// A tenant with a mini-program, and a gateway token for the app.
async fn ready(world: &World) -> (Tenant, String) {
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let token = wechat_token(&tenant.client, APP).await;
    (tenant, token)
}

async fn a_paused_app_is_refused_at_once(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let (tenant, token) = ready(&world).await;
    let blocked = Effect::Errcode {
        errcode: 50002,
        errmsg: None,
    };
    let wechat = world.wechat();
    wechat.add_fault(Fault::next(1, blocked).for_path(SUBSCRIBE));
    let first = tenant.send(APP, &message("o1")).await;
    tenant.wait_attempt(&first, "app_blocked").await;
    let asked = wechat.app_stats(APP).total(SUBSCRIBE);
    // The clock stands still: an answer that waited for the message's end would never come.
    let body = message("o2").to_string();
    let path = format!("{SUBSCRIBE}?access_token={token}");
    let request = tenant.client.bare(Method::POST, &path).body(body);
    let told = finish(request).await.expect(200);
    assert_eq!(told["errcode"], -1, "{told}");
    let words = told["errmsg"].as_str().expect("errmsg");
    assert!(words.contains("suspended"), "{words}");
    assert_eq!(wechat.app_stats(APP).total(SUBSCRIBE), asked);
    assert_eq!(tenant.all(APP).await.len(), 1, "nothing was taken");
}

async fn a_client_that_hangs_up_cancels_the_message(mode: Mode) {
    let world = World::plan(mode).by_hand().start().await;
    let (tenant, token) = ready(&world).await;
    let busy = Effect::Errcode {
        errcode: -1,
        errmsg: None,
    };
    // The first attempt leads to a retry, and the clock stands still, so the message waits.
    world
        .wechat()
        .add_fault(Fault::always(busy).for_path(SUBSCRIBE));
    let body = message("o1").to_string();
    let path = format!("{SUBSCRIBE}?access_token={token}");
    let asking = finish(tenant.client.bare(Method::POST, &path).body(body));
    let tried = async {
        until("WeChat was asked", || {
            world.wechat().app_stats(APP).total(SUBSCRIBE) > 0
        })
        .await;
        tenant.wait_count(APP, "queued", 1).await;
    };
    // Dropping the unanswered request closes the connection.
    tokio::select! {
        answer = asking => panic!("{answer:?}"),
        () = tried => {}
    }
    world.wechat().clear_faults();
    tenant.wait_count(APP, "canceled", 1).await;
    world.pass(Duration::from_secs(15));
    assert_eq!(world.wechat().sent(APP).len(), 0);
}

async fn slow_calls_of_one_tenant_leave_room_for_others(mode: Mode) {
    const OTHER: &str = "wx00000000000000b2";
    const TEMPLATES: &str = "/wxaapi/newtmpl/gettemplate";
    let world = World::start(mode).await;
    let (tenant, token) = ready(&world).await;
    let neighbour = world.tenant("b").await;
    neighbour.app(OTHER).await;
    let theirs = wechat_token(&neighbour.client, OTHER).await;
    let ask = async |tenant: &Tenant, token: &str| {
        let path = format!("{TEMPLATES}?access_token={token}");
        finish(tenant.client.bare(Method::GET, &path))
            .await
            .expect(200)
    };

    let hung = Fault::always(Effect::Hang { acted: false });
    world
        .wechat()
        .add_fault(hung.for_path(TEMPLATES).for_app(APP));
    let many = futures::future::select_all((0..40).map(|_| Box::pin(ask(&tenant, &token))));
    // The first answer is a refusal: no place was left for this call.
    let (refused, _, rest) = many.await;
    assert_eq!(refused["errcode"], -1, "{refused}");
    let words = refused["errmsg"].as_str().expect("errmsg");
    assert!(words.contains("in progress"), "{words}");
    assert_eq!(ask(&neighbour, &theirs).await["errcode"], 0);
    drop(rest);
}
