//! `wxgate simulate`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use clap::Args;
use serde_json::json;
use simulator::{Options, Simulator};

use super::Signals;
use crate::{failure::Failure, output::Output};

/// How to simulate.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Where to listen; 0 takes a free port
    #[arg(long, default_value_t = 8090)]
    port: u16,
    /// On which address
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// For benchmarks: keep no messages and count no users
    #[arg(long)]
    lean: bool,
}

/// Runs the simulator until it is stopped.
pub(crate) async fn run(output: Output, arguments: &Arguments) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let options = Options::at(SocketAddr::from((arguments.host, arguments.port)));
    let options = if arguments.lean {
        options.lean()
    } else {
        options
    };
    let simulator = start(options, "--port").await?;
    let url = simulator.base_url();
    output.result(&json!({"address": simulator.address(), "base_url": url}), || {
        format!("WeChat simulator on {url}\nUse it with WXGATE_WECHAT_BASE_URL={url}; any appid of WeChat's shape and any secret will do.\nCtrl-C stops it.")
    })?;
    signals.stop().await;
    signals.finish(simulator.stop()).await;
    Ok(())
}

/// Starts a simulator; a refusal names the flag that helps.
pub(crate) async fn start(options: Options, flag: &str) -> Result<Simulator, Failure> {
    let started = Simulator::start(options).await;
    started.map_err(|error| {
        Failure::new(
            "listen",
            format!("the WeChat simulator cannot start: {error}; its port is set with {flag}"),
        )
    })
}
