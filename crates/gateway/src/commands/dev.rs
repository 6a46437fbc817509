//! `wxgate dev`.

use std::net::{Ipv4Addr, SocketAddr};

use clap::Args;
use coord::Clock;
use serde_json::{Value, json};
use simulator::{Options, Simulator};

use super::{Signals, configure, simulate};
use crate::{
    config::{self, Config, Mode},
    demo::{self, Demo, DemoClient, Guide, answer},
    embedded::InstanceLock,
    failure::Failure,
    gateway::{self, Gateway},
    master_key,
    output::Output,
    settings::Settings,
};

/// The arguments of `wxgate dev`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The port of the WeChat simulator on this machine; 0 takes a free port
    #[arg(long, default_value_t = 8090, value_name = "PORT")]
    simulator_port: u16,
    /// Faults of the simulated WeChat after the demo; may be given several times
    #[arg(long, value_enum, value_name = "NAME")]
    scenario: Vec<simulate::Scenario>,
}

/// Runs the demo once, and then serves until the process is stopped.
pub(crate) async fn run(
    settings: &Settings,
    output: Output,
    arguments: &Arguments,
) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    if settings.mode != Mode::Embedded {
        return Err(Failure::new(
            "settings",
            "`wxgate dev` runs on SQLite, without Redis: unset WXGATE_DATABASE_URL and WXGATE_REDIS_URL, or use `wxgate serve`",
        ));
    }
    if settings.wechat_base_url != config::WECHAT {
        tracing::warn!(
            "WXGATE_WECHAT_BASE_URL has no effect: `wxgate dev` calls its own simulator"
        );
    }
    // Steps that may fail come before the first write.
    gateway::check_address(settings.listen)?;
    let simulator = simulate::start(
        Options::at((Ipv4Addr::LOCALHOST, arguments.simulator_port).into()),
        "--simulator-port",
    )
    .await?;
    let _alone = InstanceLock::on(settings)?;
    let config = configure(settings, true).await?;
    demo::furnish(&simulator);
    let config = Config {
        wechat_base_url: simulator.base_url(),
        ..config
    };
    let gateway = tokio::select! {
        started = Gateway::start(config, Clock::system()) => started?,
        () = signals.stop() => return Ok(()),
    };
    let shown = tokio::select! {
        shown = show(settings, output, &gateway, &simulator) => shown,
        () = signals.stop() => Ok(()),
    };
    if shown.is_ok() {
        simulate::misbehave(&simulator, &arguments.scenario);
        signals.stop().await;
    }
    signals.finish(stop(gateway, simulator)).await;
    shown
}

async fn stop(gateway: Gateway, simulator: Simulator) {
    gateway.stop().await;
    simulator.stop().await;
}

async fn show(
    settings: &Settings,
    output: Output,
    gateway: &Gateway,
    simulator: &Simulator,
) -> Result<(), Failure> {
    let (url, wechat) = (gateway.local_url(), simulator.base_url());
    output.note(&format!(
        "wxgate listens on {url}, the WeChat simulator on {wechat}\n"
    ))?;
    let demo = Demo::prepare(gateway, &master_key::folder(&settings.database_url)).await?;
    let messages = DemoClient::sign_in(&url, &demo.keys.tenant)
        .await?
        .send_demo(&demo)
        .await?;
    let guide = Guide {
        url: &url,
        simulator: &wechat,
        demo: &demo,
    };
    output.result(
        &machine_readable(&guide, gateway.address(), &messages),
        || {
            messages
                .iter()
                .map(|message| answer(message) + "\n")
                .collect::<String>()
                + &guide.text()
        },
    )
}

fn machine_readable(guide: &Guide<'_>, address: SocketAddr, messages: &[Value]) -> Value {
    let Guide {
        url,
        simulator,
        demo,
    } = guide;
    json!({
        "address": address, "base_url": url, "docs_url": format!("{url}/docs"), "console_url": format!("{url}/console"),
        "simulator_url": simulator, "tenant_id": demo.tenant.to_string(), "appid": demo.appid.as_str(),
        "tenant_key": demo.keys.tenant, "operator_key": demo.keys.operator, "messages": messages, "curl": guide.curl(),
    })
}
