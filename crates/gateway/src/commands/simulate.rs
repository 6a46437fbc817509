//! `wxgate simulate`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use clap::{Args, ValueEnum};
use serde_json::json;
use simulator::{Effect, Fault, Options, Simulator};

use super::Signals;
use crate::{failure::Failure, output::Output};

/// The arguments of `wxgate simulate`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The port of the simulator; 0 takes a free port
    #[arg(long, default_value_t = 8090)]
    port: u16,
    /// The address of the simulator
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// For benchmarks: keep no messages and count no users
    #[arg(long)]
    lean: bool,
    /// Faults of the simulated WeChat from the start; may be given several times
    #[arg(long, value_enum, value_name = "NAME")]
    scenario: Vec<Scenario>,
}

/// A fault of the simulated WeChat.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Scenario {
    /// Every answer takes two seconds
    Slow,
    /// A fifth of the sends is answered with -1 (WeChat is busy)
    Busy,
    /// WeChat accepts a tenth of the sends, but the connection breaks before the answer
    LostAnswers,
    /// A tenth of the sends is answered with 40001, although the token is valid
    StrayRefusals,
    /// All sends are answered with 45009: the daily quota is spent
    QuotaSpent,
    /// Token fetches are refused with 40164: the gateway's address is not on the IP whitelist
    AddressRefused,
    /// A proxy answers every call with 502
    Down,
}

/// The paths of the send interfaces.
const SENDS: [&str; 3] = [
    "/cgi-bin/message/subscribe/send",
    "/cgi-bin/message/wxopen/template/send",
    "/cgi-bin/message/template/send",
];
/// The paths of the token endpoints.
const TOKENS: [&str; 2] = ["/cgi-bin/token", "/cgi-bin/stable_token"];

impl Scenario {
    fn faults(self) -> Vec<Fault> {
        let code = |errcode, errmsg: Option<&str>| Effect::Errcode {
            errcode,
            errmsg: errmsg.map(str::to_owned),
        };
        let unlisted = "invalid ip 203.0.113.7, not in whitelist";
        let (fault, paths) = match self {
            Self::Slow => (Fault::always(Effect::Latency { ms: 2000 }), &[][..]),
            Self::Down => (
                Fault::always(Effect::Status {
                    status: 502,
                    body: None,
                }),
                &[][..],
            ),
            Self::Busy => (Fault::sometimes(0.2, code(-1, None)), &SENDS[..]),
            Self::LostAnswers => (Fault::sometimes(0.1, Effect::BreakAfter), &SENDS[..]),
            Self::StrayRefusals => (Fault::sometimes(0.1, code(40001, None)), &SENDS[..]),
            Self::QuotaSpent => (Fault::always(code(45009, None)), &SENDS[..]),
            Self::AddressRefused => (Fault::always(code(40164, Some(unlisted))), &TOKENS[..]),
        };
        if paths.is_empty() {
            return vec![fault];
        }
        paths
            .iter()
            .map(|path| fault.clone().for_path(*path))
            .collect()
    }
}

/// Adds the faults of the scenarios to the simulator.
pub(crate) fn misbehave(simulator: &Simulator, scenarios: &[Scenario]) {
    let control = simulator.control();
    for fault in scenarios.iter().flat_map(|scenario| scenario.faults()) {
        control.add_fault(fault);
    }
}

/// Runs the simulator until the process is stopped.
pub(crate) async fn run(output: Output, arguments: &Arguments) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let options = Options::at(SocketAddr::from((arguments.host, arguments.port)));
    let options = if arguments.lean {
        options.lean()
    } else {
        options
    };
    let simulator = start(options, "--port").await?;
    misbehave(&simulator, &arguments.scenario);
    let url = simulator.base_url();
    output.result(&json!({"address": simulator.address(), "base_url": url}), || {
        format!("WeChat simulator on {url}\nSet WXGATE_WECHAT_BASE_URL={url} to use the simulator. The simulator accepts any appid in WeChat's format and any secret.\n{url}/_sim/ explains how to simulate faults.\nCtrl-C stops it.")
    })?;
    signals.stop().await;
    signals.finish(simulator.stop()).await;
    Ok(())
}

/// Starts a simulator. The error names the flag that sets the port.
pub(crate) async fn start(options: Options, flag: &str) -> Result<Simulator, Failure> {
    let started = Simulator::start(options).await;
    started.map_err(|error| {
        Failure::new(
            "listen",
            format!("the WeChat simulator cannot start ({error}): choose another port with {flag}"),
        )
    })
}
