//! The command line: its grammar, and the exit code of a command.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};

use crate::{
    commands::{
        app, config as config_command, dev, doctor, import, key, master_key, migrate, openapi,
        send, serve, signing_key, simulate, tenant,
    },
    failure::{Failure, USAGE},
    logs::{self, Verbosity},
    output::Output,
    private,
    settings::{Flags, Settings},
};

/// Points to the one page that explains the settings, so that the help of each command need not repeat the settings.
const SETTINGS: &str =
    "Every command also accepts settings: `wxgate help config` lists all settings.";

/// Notification gateway for WeChat mini-programs.
#[derive(Debug, Parser)]
#[command(name = "wxgate", version, max_term_width = 110, after_help = SETTINGS)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// The arguments of every command.
#[derive(Args, Debug)]
struct Globals {
    /// Print results and errors as JSON
    #[arg(long, global = true)]
    json: bool,
    /// A TOML file with settings; `wxgate help config` lists all settings
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try the gateway: everything in one process, with a simulated WeChat, a demo app and demo messages
    Dev(dev::Arguments),
    /// Run the gateway
    Serve(serve::Arguments),
    /// Change the database schema, or show its state
    #[command(subcommand)]
    Migrate(migrate::Command),
    /// Manage tenants, directly in the database
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Manage API keys, directly in the database
    #[command(subcommand)]
    Key(key::Command),
    /// Manage the keys that sign access tokens
    #[command(subcommand)]
    SigningKey(signing_key::Command),
    /// Manage the master key, which encrypts every secret in the database
    #[command(subcommand)]
    MasterKey(master_key::Command),
    /// Manage mini-programs and official accounts, directly in the database
    #[command(subcommand)]
    App(app::Command),
    /// Send one message and wait for WeChat's answer
    Send(send::Arguments),
    /// Send a file of messages, each message once however often the command runs
    Import(import::Arguments),
    /// Run the WeChat simulator alone
    Simulate(simulate::Arguments),
    /// Print the OpenAPI document
    Openapi(openapi::Arguments),
    /// Print the settings in effect and the source of each
    Config,
    /// Check everything that the gateway needs, and name the remedy of each fault
    Doctor,
}

impl Command {
    /// The log level of the command where the settings name none. A command that runs until it is stopped logs the
    /// most.
    fn voice(&self, output: Output) -> Verbosity {
        match self {
            Self::Serve(_) | Self::Simulate(_) => Verbosity::Full,
            Self::Dev(_) => Verbosity::Quiet,
            // The findings of the command already contain the warnings.
            Self::Doctor => Verbosity::Mute,
            _ if output.is_for_people() => Verbosity::Quiet,
            _ => Verbosity::Mute,
        }
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let parsed = grammar()
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return wrong_usage(&error),
    };
    let output = Output::new(cli.globals.json);
    match start(cli, output) {
        Ok(code) => code,
        Err(failure) => {
            output.failure(&failure);
            failure.exit_code()
        }
    }
}

fn start(cli: Cli, output: Output) -> Result<ExitCode, Failure> {
    let settings = Settings::read(cli.globals.config.as_deref(), &cli.globals.flags)?;
    let closed = private::keep(settings.core_dumps);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime
        .map_err(|error| Failure::new("internal", format!("the runtime cannot start: {error}")))?;
    let traces = logs::start(&settings, cli.command.voice(output), runtime.handle())?;
    if let Err(error) = closed {
        tracing::warn!(%error, "core dumps are on, so a crash may write secrets from memory into a file: set ulimit -c 0");
    }
    // The default of many systems, 1,024, is smaller than the number of connections to tenants and to WeChat.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "cannot raise the limit of open files: raise the limit with ulimit -n");
    }
    let ended = runtime.block_on(run(cli.command, &settings, output));
    if let Some(traces) = traces {
        traces.flush();
    }
    ended
}

async fn run(command: Command, settings: &Settings, output: Output) -> Result<ExitCode, Failure> {
    match command {
        Command::Dev(arguments) => dev::run(settings, output, &arguments).await?,
        Command::Serve(arguments) => serve::run(settings, output, &arguments).await?,
        Command::Migrate(command) => migrate::run(settings, output, &command).await?,
        Command::Tenant(command) => tenant::run(settings, output, command).await?,
        Command::Key(command) => key::run(settings, output, command).await?,
        Command::SigningKey(command) => signing_key::run(settings, output, &command).await?,
        Command::MasterKey(command) => master_key::run(settings, output, &command).await?,
        Command::App(command) => app::run(settings, output, command).await?,
        Command::Send(arguments) => return send::run(settings, output, arguments).await,
        Command::Import(arguments) => return import::run(settings, output, arguments).await,
        Command::Simulate(arguments) => simulate::run(output, &arguments).await?,
        Command::Openapi(arguments) => openapi::run(output, &arguments)?,
        Command::Config => config_command::run(settings, output)?,
        Command::Doctor => return doctor::run(settings, output).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// Help and version are results. All other parser errors are wrong usage, with exit code 2.
fn wrong_usage(error: &clap::Error) -> ExitCode {
    let asked_for = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    let json = std::env::args_os().any(|argument| argument == "--json");
    if json && !asked_for {
        let text = error.to_string();
        let message = text
            .trim()
            .trim_start_matches("error: ")
            .split("\n\n")
            .next()
            .unwrap_or_default();
        let words = format!("{message}: `wxgate --help` lists the commands and options");
        Output::new(true).failure(&Failure::new(USAGE, words));
    } else {
        // Fails only when standard error is closed.
        let _ = error.print();
    }
    if asked_for {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(2)
    }
}

/// Reads a secret from the next line of standard input, without the line break at its end.
pub(crate) fn secret_from_stdin(what: &str) -> Result<String, Failure> {
    maybe_secret_from_stdin(what)?.ok_or_else(|| {
        Failure::new(
            USAGE,
            format!(
                "standard input has no line for {what}: pipe the line in, such as `printf '%s\\n' \"$SECRET\" | wxgate …`"
            ),
        )
    })
}

/// Like [`secret_from_stdin`]. `None`: the line is empty, or standard input has no line.
pub(crate) fn maybe_secret_from_stdin(what: &str) -> Result<Option<String>, Failure> {
    let line = private::secret_line(&format!("{what}, then Enter (the input is not shown): "));
    let line = line.map_err(|error| {
        Failure::new(
            USAGE,
            format!("cannot read {what} from standard input: {error}"),
        )
    })?;
    let secret = line.trim();
    Ok((!secret.is_empty()).then(|| secret.to_owned()))
}

/// The grammar with the help of the settings, for tests and shell completion.
pub fn grammar() -> clap::Command {
    let grammar = Cli::command();
    let settings = Flags::help(&grammar);
    grammar.mut_subcommand("config", |config| config.after_help(settings))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "ten_01jq2xv1cde8sbw7mv9v6a5kzq";
    const APP: &str = "wx0a1b2c3d4e5f6789";

    fn parse(line: &str) -> Result<Cli, ErrorKind> {
        Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.kind())
    }

    #[test]
    fn the_grammar_is_sound() {
        grammar().debug_assert();
    }

    #[test]
    fn the_help_of_a_command_has_its_own_options_and_one_place_has_the_settings() {
        let mut grammar = grammar();
        grammar.build();
        let help = |name: &str| {
            let command = grammar.find_subcommand(name);
            command.unwrap().clone().render_long_help().to_string()
        };
        for name in ["send", "import", "serve", "dev", "doctor"] {
            let shown = help(name);
            assert!(!shown.contains("--sending-slots"), "{shown}");
            assert!(shown.contains("wxgate help config"), "{shown}");
        }
        let settings = help("config");
        for name in [
            "--sending-slots",
            "WXGATE_SENDING_SLOTS",
            "WXGATE_REDIS_CA_FILE",
            "WXGATE_MASTER_KEY ",
        ] {
            assert!(settings.contains(name), "{name}: {settings}");
        }
    }

    #[test]
    fn the_commands_of_the_contract_are_understood() {
        for line in [
            "wxgate dev",
            "wxgate dev --simulator-port 9000 --listen 127.0.0.1:9001",
            "wxgate serve --no-migrate --config wxgate.toml",
            "wxgate migrate up",
            "wxgate migrate down",
            "wxgate migrate down --yes",
            "wxgate migrate status --json",
            "wxgate tenant create Acme --json",
            "wxgate tenant list",
            &format!("wxgate tenant show {TENANT}"),
            &format!("wxgate tenant suspend {TENANT}"),
            &format!("wxgate tenant resume {TENANT}"),
            &format!(
                "wxgate key create --tenant {TENANT} --scope messages:send --scope messages:read --name shop"
            ),
            &format!("wxgate key create --tenant {TENANT} --scope messages:send,messages:read"),
            &format!("wxgate key create --tenant {TENANT} --scope messages:send messages:read"),
            "wxgate key create --operator --json",
            "wxgate key list --operator",
            "wxgate key revoke key_01jq2xv1cde8sbw7mv9v6a5kzq",
            &format!(
                "wxgate app add --tenant {TENANT} --appid {APP} --secret-stdin --kind official_account --token-mode legacy --no-verify"
            ),
            "wxgate signing-key list",
            "wxgate signing-key rotate --json",
            "wxgate master-key rotate",
            "wxgate app list",
            &format!("wxgate app show {APP}"),
            &format!("wxgate app verify {APP}"),
            &format!("wxgate app set-secret --appid {APP} --secret-stdin"),
            &format!("wxgate app remove {APP}"),
            &format!("wxgate app remove {APP} --yes"),
            "wxgate tenant show Acme",
            "wxgate key list --tenant Acme",
            &format!("wxgate import - --format csv --appid {APP} --template t --check"),
            &format!(
                "wxgate import users.txt --format csv --appid {APP} --template t --rejects rest.csv"
            ),
            &format!(
                "wxgate send --appid {APP} --to oABC --template t --data thing1=a=b date2=x --data thing3=y --ttl 60 --wait 5"
            ),
            &format!(
                "wxgate send --appid {APP} --to oABC --template t --channel template --form-id f --page p"
            ),
            &format!(
                "wxgate import users.csv --appid {APP} --template t --priority normal --ttl 60 --name x --no-wait"
            ),
            &format!("wxgate import messages.ndjson --appid {APP} --template t"),
            "wxgate simulate --port 8090",
            "wxgate openapi",
            "wxgate openapi --openapi-version 3.0",
            "wxgate --json config",
            "wxgate doctor --json",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
    }

    #[test]
    fn wrong_usage_is_refused_before_anything_happens() {
        for line in [
            "wxgate",
            "wxgate fly",
            "wxgate tenant show ten_7",
            "wxgate key create --scope messages:send",
            &format!("wxgate key create --tenant {TENANT}"),
            &format!("wxgate key create --tenant {TENANT} --scope messages:fly"),
            &format!("wxgate key create --tenant {TENANT} --operator --scope messages:send"),
            &format!("wxgate app add --tenant {TENANT} --appid {APP}"),
            &format!("wxgate app set-secret --appid {APP}"),
            &format!("wxgate app add --tenant {TENANT} --appid wx1 --secret-stdin"),
            &format!("wxgate send --appid {APP} --to oABC --template t --data thing1"),
            &format!("wxgate import users.csv --appid {APP}"),
            "wxgate serve --master-key c2VjcmV0",
            "wxgate openapi --openapi-version 2.0",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
