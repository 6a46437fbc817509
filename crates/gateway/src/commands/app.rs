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

use super::{Desk, TenantWord, all, consent::Consent, tenant_word};
use crate::{
    cli::{maybe_secret_from_stdin, secret_from_stdin},
    failure::Failure,
    output::{Output, card, table},
    settings::Settings,
};

/// What to do with apps.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Register one: its AppSecret is proven at WeChat and stored encrypted
    Add(Add),
    /// List all, or a tenant's
    List {
        /// Only those of this tenant: its id or its name
        #[arg(long, value_name = "TENANT", value_parser = tenant_word)]
        tenant: Option<TenantWord>,
    },
    /// Show one
    Show {
        /// WeChat's id of it: wx…
        appid: AppId,
    },
    /// Prove its AppSecret at WeChat, and let it send again if it was paused
    Verify {
        /// WeChat's id of it: wx…
        appid: AppId,
    },
    /// Replace its AppSecret, as WeChat's console shows it after a reset: the new one is proven first, nothing that waits
    /// is lost, and the app sends again if it was paused
    SetSecret {
        /// WeChat's id of it: wx…
        #[arg(long)]
        appid: AppId,
        /// Read the AppSecret from standard input: as an argument, every user of the machine could see it
        #[arg(long, required = true)]
        secret_stdin: bool,
    },
    /// Remove it; what it has not sent is canceled, or uncertain where WeChat may have it
    Remove {
        /// WeChat's id of it: wx…
        appid: AppId,
        #[command(flatten)]
        consent: Consent,
    },
}

/// What the new app is.
#[derive(Args, Debug)]
pub(crate) struct Add {
    /// Whose it is: the id (ten_…) or the name of a tenant
    #[arg(long, value_name = "TENANT", value_parser = tenant_word)]
    tenant: TenantWord,
    /// WeChat's id of it: wx…
    #[arg(long)]
    appid: AppId,
    /// Read the AppSecret from standard input: as an argument, every user of the machine could see it
    #[arg(long, required = true)]
    secret_stdin: bool,
    /// Read the message push settings after the AppSecret, each on a line of its own: the Token, then the
    /// EncodingAESKey if there is one
    #[arg(long)]
    callback_stdin: bool,
    /// What to call it; its appid by default
    #[arg(long, default_value = "")]
    name: String,
    /// What the appid stands for
    #[arg(long, default_value = "mini_program", value_parser = kind())]
    kind: AppKind,
    /// How its access token is fetched
    #[arg(long, default_value = "stable", value_parser = token_mode())]
    token_mode: TokenMode,
    /// What becomes of messages with values that break the rules of their types: `warn` sends them
    #[arg(long, default_value = "strict", value_parser = value_rules())]
    value_rules: ValueRules,
    /// Keep the AppSecret without trying it
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

/// Does it.
pub(crate) async fn run(
    settings: &Settings,
    output: Output,
    command: Command,
) -> Result<(), Failure> {
    match command {
        Command::Add(add) => {
            let (tenant, registration) = add.registration()?;
            let desk = Desk::open(settings).await?;
            let tenant = desk.tenant(&tenant).await?;
            change(desk, output, async |apps| {
                apps.register(tenant, registration).await
            })
            .await
        }
        Command::Verify { appid } => {
            let desk = Desk::open(settings).await?;
            let tenant = desk.store.platform().app(&appid).await?.tenant;
            change(desk, output, async |apps| apps.verify(tenant, &appid).await).await
        }
        Command::SetSecret { appid, .. } => {
            let secret = AppSecret::new(secret_from_stdin("the AppSecret")?);
            let desk = Desk::open(settings).await?;
            let tenant = desk.store.platform().app(&appid).await?.tenant;
            change(desk, output, async |apps| {
                apps.set_secret(tenant, &appid, secret).await
            })
            .await
        }
        Command::List { tenant } => {
            let desk = Desk::open(settings).await?;
            let now = desk.clock.now();
            let apps = match tenant {
                Some(tenant) => {
                    let tenant = desk.tenant(&tenant).await?;
                    all(async |page| desk.store.tenant(tenant).apps(&page).await).await?
                }
                None => all(async |page| desk.store.platform().apps(&page).await).await?,
            };
            desk.close().await;
            list(output, now, apps)
        }
        Command::Show { appid } => {
            let desk = Desk::open(settings).await?;
            let (now, app) = (desk.clock.now(), desk.store.platform().app(&appid).await?);
            desk.close().await;
            show(output, now, app)
        }
        Command::Remove { appid, consent } => {
            let desk = Desk::open(settings).await?;
            let app = desk.store.platform().app(&appid).await?;
            consent.to(&format!(
                "`wxgate app remove` cancels what {appid} (`{}`, of {}) has not sent, and its AppSecret is lost",
                app.name, app.tenant
            ))?;
            let onboarding = desk.onboarding()?;
            let removed = onboarding
                .apps
                .by(Origin::CLI)
                .remove(app.tenant, &appid)
                .await;
            onboarding.close().await;
            desk.close().await;
            removed?;
            output.result(&json!({"appid": appid.as_str(), "removed": true}), || {
                format!("removed {appid}; what it had not sent is canceled, or uncertain where WeChat may have it")
            })
        }
    }
}

/// Lets the onboarding desk work and shows the app that comes of it.
async fn change(
    desk: Desk,
    output: Output,
    verb: impl AsyncFnOnce(&delivery::Apps) -> Result<App, AppError>,
) -> Result<(), Failure> {
    let onboarding = desk.onboarding()?;
    let changed = verb(&onboarding.apps.by(Origin::CLI)).await;
    onboarding.close().await;
    let now = desk.clock.now();
    desk.close().await;
    show(output, now, changed?)
}

fn state(now: DateTime<Utc>, app: &App) -> String {
    match app.pause.as_ref().filter(|pause| pause.until > now) {
        Some(pause) => format!("paused: {}", pause.reason),
        None if app.verified_at.is_none() => {
            format!(
                "sends, AppSecret not proven: `wxgate app verify {}`",
                app.appid
            )
        }
        None => "sends".to_owned(),
    }
}

/// Whether WeChat is heard.
fn callbacks(app: &App) -> &'static str {
    match (app.has_callback_token, app.has_callback_aes_key) {
        (false, _) => "not heard: the Token of its message push settings is not set",
        (true, false) => "heard, not encrypted",
        (true, true) => "heard, encrypted",
    }
}

fn show(output: Output, now: DateTime<Utc>, app: App) -> Result<(), Failure> {
    let verified = app
        .verified_at
        .map_or("no: never tried, or refused".to_owned(), |at| {
            Timestamp(at).to_string()
        });
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
