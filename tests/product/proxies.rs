//! Proxies between the gateway and WeChat.

use simulator::{Effect, Fault};

use crate::world::{Mode, World, message};

const APP: &str = "wx00000000000000a1";
const SUBSCRIBE: &str = "/cgi-bin/message/subscribe/send";

both_modes!(a_gateway_timeout_does_not_repeat_the_message);

/// 504 says that the request was passed on and no answer came in time (RFC 9110 §15.6.5): WeChat may have the message.
async fn a_gateway_timeout_does_not_repeat_the_message(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let timeout = Effect::StatusAfter { status: 504 };
    world
        .wechat()
        .add_fault(Fault::next(1, timeout).for_path(SUBSCRIBE));

    let message = tenant.send_and_wait(APP, &message("o1")).await;

    assert_eq!(world.wechat().sent(APP).len(), 1, "{message}");
    assert_eq!(message["status"], "uncertain", "{message}");
}
