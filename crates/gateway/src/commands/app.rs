//! `wxgate app`.

use api::views::{self, Page, Timestamp};
use chrono::{DateTime, Utc};
use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use delivery::{AppError, CallbackSettings, Registration};
use domain::{
    app::{AppId, AppKind, TokenMode, ValueRules},
    secret::{AppSecret, CallbackAesKey, CallbackToken},
};
use serde_json::json;
use store::{App, Origin};

use super::{CommandContext, TenantWord, all, consent::Consent, tenant_word};
use crate::{
    cli::{maybe_secret_from_stdin, secret_from_stdin},
    failure::Failure,
    output::{Output, card, table},
    settings::Settings,
};

/// The subcommands of `wxgate app`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Register an app: the AppSecret is checked with WeChat and stored encrypted
    Add(Add),
    /// List all apps, or the apps of one tenant
    List {
        /// List the apps of this tenant only: its id (ten_…) or name
        #[arg(long, value_name = "TENANT", value_parser = tenant_word)]
        tenant: Option<TenantWord>,
    },
    /// Show one app
    Show {
        /// The appid, WeChat's id of the app: wx…
        appid: AppId,
    },
    /// Check the stored AppSecret with WeChat, and resume sending if the app was paused
    Verify {
        /// The appid, WeChat's id of the app: wx…
        appid: AppId,
    },
    /// Replace the AppSecret after a reset in WeChat's console. The new AppSecret is checked with WeChat first, no
    /// waiting message is lost, and a paused app sends again
    SetSecret {
        /// The appid, WeChat's id of the app: wx…
        #[arg(long)]
        appid: AppId,
        /// Read the AppSecret from standard input: every user of the machine could see an argument
        #[arg(long, required = true)]
        secret_stdin: bool,
    },
    /// Remove an app. Its unsent messages become canceled, or uncertain where WeChat may have the message
    Remove {
        /// The appid, WeChat's id of the app: wx…
        appid: AppId,
        #[command(flatten)]
        consent: Consent,
    },
}

/// The properties of the new app.
#[derive(Args, Debug)]
pub(crate) struct Add {
    /// The tenant that owns the app: its id (ten_…) or name
    #[arg(long, value_name = "TENANT", value_parser = tenant_word)]
    tenant: TenantWord,
    /// The appid, WeChat's id of the app: wx…
    #[arg(long)]
    appid: AppId,
    /// Read the AppSecret from standard input: every user of the machine could see an argument
    #[arg(long, required = true)]
    secret_stdin: bool,
    /// After the AppSecret, also read the message push settings, each on a line of its own: the Token, then the
    /// EncodingAESKey if there is one
    #[arg(long)]
    callback_stdin: bool,
    /// A name for the app (default: the appid)
    #[arg(long, default_value = "")]
    name: String,
    /// The kind of the app
    #[arg(long, default_value = "mini_program", value_parser = kind())]
    kind: AppKind,
    /// How the gateway fetches the app's access token
    #[arg(long, default_value = "stable", value_parser = token_mode())]
    token_mode: TokenMode,
    /// Treatment of messages with values that break the rules of their types: `strict` refuses them, `warn` sends them
    #[arg(long, default_value = "strict", value_parser = value_rules())]
    value_rules: ValueRules,
    /// Store the AppSecret without checking it with WeChat
    #[arg(long)]
    no_verify: bool,
}

fn kind() -> impl TypedValueParser<Value = AppKind> {
    PossibleValuesParser::new(["mini_program", "official_account"]).map(|word| {
        match word.as_str() {
            "official_account" => AppKind::OfficialAccount,
            _ => AppKind::MiniProgram,
        }
    })
}

fn token_mode() -> impl TypedValueParser<Value = TokenMode> {
    PossibleValuesParser::new(["stable", "legacy"]).map(|word| match word.as_str() {
        "legacy" => TokenMode::Legacy,
        _ => TokenMode::Stable,
    })
}

fn value_rules() -> impl TypedValueParser<Value = ValueRules> {
    PossibleValuesParser::new(["strict", "warn"])
        .map(|word| ValueRules::parse(&word).unwrap_or_default())
}

impl Add {
    fn registration(self) -> Result<(TenantWord, Registration), Failure> {
        let secret = AppSecret::new(secret_from_stdin("the AppSecret")?);
        let callback = if self.callback_stdin {
            let token = secret_from_stdin("the Token of the message push settings")?;
            let aes_key = maybe_secret_from_stdin("the EncodingAESKey, or nothing")?;
            CallbackSettings {
                token: Some(CallbackToken::new(token)),
                aes_key: aes_key.map(CallbackAesKey::new),
            }
        } else {
            CallbackSettings::default()
        };
        let registration = Registration {
            appid: self.appid,
            secret,
            name: self.name.trim().to_owned(),
            kind: self.kind,
            token_mode: self.token_mode,
            daily_quota: None,
            grant_policy: domain::grant::GrantPolicy::default(),
            value_rules: self.value_rules,
            verify: !self.no_verify,
            callback,
        };
        Ok((self.tenant, registration))
    }
}

/// Runs the subcommand.
pub(crate) async fn run(
    settings: &Settings,
    output: Output,
    command: Command,
) -> Result<(), Failure> {
    match command {
        Command::Add(add) => {
            let (tenant, registration) = add.registration()?;
            let context = CommandContext::open(settings).await?;
            let tenant = context.tenant(&tenant).await?;
            change(context, output, async |apps| {
                apps.register(tenant, registration).await
            })
            .await
        }
        Command::Verify { appid } => {
            let context = CommandContext::open(settings).await?;
            let tenant = context.store.platform().app(&appid).await?.tenant;
            change(context, output, async |apps| {
                apps.verify(tenant, &appid).await
            })
            .await
        }
        Command::SetSecret { appid, .. } => {
            let secret = AppSecret::new(secret_from_stdin("the AppSecret")?);
            let context = CommandContext::open(settings).await?;
            let tenant = context.store.platform().app(&appid).await?.tenant;
            change(context, output, async |apps| {
                apps.set_secret(tenant, &appid, secret).await
            })
            .await
        }
        Command::List { tenant } => {
            let context = CommandContext::open(settings).await?;
            let now = context.clock.now();
            let apps = match tenant {
                Some(tenant) => {
                    let tenant = context.tenant(&tenant).await?;
                    all(async |page| context.store.tenant(tenant).apps(&page).await).await?
                }
                None => all(async |page| context.store.platform().apps(&page).await).await?,
            };
            context.close().await;
            list(output, now, apps)
        }
        Command::Show { appid } => {
            let context = CommandContext::open(settings).await?;
            let (now, app) = (
                context.clock.now(),
                context.store.platform().app(&appid).await?,
            );
            context.close().await;
            show(output, now, app)
        }
        Command::Remove { appid, consent } => {
            let context = CommandContext::open(settings).await?;
            let app = context.store.platform().app(&appid).await?;
            consent.to(&format!(
                "`wxgate app remove` cancels all unsent messages of {appid} (`{}`, of {}) and deletes its AppSecret",
                app.name, app.tenant
            ))?;
            let onboarding = context.onboarding()?;
            let removed = onboarding
                .apps
                .by(Origin::CLI)
                .remove(app.tenant, &appid)
                .await;
            onboarding.close().await;
            context.close().await;
            removed?;
            output.result(&json!({"appid": appid.as_str(), "removed": true}), || {
                format!("removed {appid}; its unsent messages are canceled, or uncertain where WeChat may have the message")
            })
        }
    }
}

/// Runs `verb`, and shows the resulting app.
async fn change(
    context: CommandContext,
    output: Output,
    verb: impl AsyncFnOnce(&delivery::Apps) -> Result<App, AppError>,
) -> Result<(), Failure> {
    let onboarding = context.onboarding()?;
    let changed = verb(&onboarding.apps.by(Origin::CLI)).await;
    onboarding.close().await;
    let now = context.clock.now();
    context.close().await;
    show(output, now, changed?)
}

fn state(now: DateTime<Utc>, app: &App) -> String {
    match app.pause.as_ref().filter(|pause| pause.until > now) {
        Some(pause) => format!("paused: {}", pause.reason),
        None if app.verified_at.is_none() => {
            format!(
                "sends, but the AppSecret is not verified: run `wxgate app verify {}`",
                app.appid
            )
        }
        None => "sends".to_owned(),
    }
}

/// The state of callbacks from WeChat.
fn callbacks(app: &App) -> &'static str {
    match (app.has_callback_token, app.has_callback_aes_key) {
        (false, _) => "not received: set the Token of the message push settings",
        (true, false) => "received, not encrypted",
        (true, true) => "received, encrypted",
    }
}

fn show(output: Output, now: DateTime<Utc>, app: App) -> Result<(), Failure> {
    let verified = app.verified_at.map_or(
        "no: never checked, or WeChat refused the AppSecret".to_owned(),
        |at| Timestamp(at).to_string(),
    );
    let detail = app
        .pause
        .as_ref()
        .filter(|pause| pause.until > now)
        .and_then(|pause| pause.detail.clone());
    let mut lines = vec![
        ("appid", app.appid.to_string()),
        ("name", app.name.clone()),
        ("tenant", app.tenant.to_string()),
        ("state", state(now, &app)),
        ("daily quota", app.daily_quota.to_string()),
        ("secret verified", verified),
        ("callbacks", callbacks(&app).to_owned()),
        ("created", Timestamp(app.created_at).to_string()),
    ];
    lines.extend(detail.map(|detail| ("why", detail)));
    output.result(&views::App::at(now, app), || card(&lines))
}

fn list(output: Output, now: DateTime<Utc>, apps: Vec<App>) -> Result<(), Failure> {
    let row = |app: &App| {
        vec![
            app.appid.to_string(),
            app.tenant.to_string(),
            state(now, app),
            app.name.clone(),
        ]
    };
    let rows: Vec<_> = apps.iter().map(row).collect();
    let apps: Vec<_> = apps
        .into_iter()
        .map(|app| views::App::at(now, app))
        .collect();
    output.result(&Page::all(apps), || {
        table(&["appid", "tenant", "state", "name"], &rows)
    })
}
