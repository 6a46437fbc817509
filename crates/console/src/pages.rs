//! The pages as askama templates, which escape all values.

use askama::Template;

/// The sign-in form.
#[derive(Template)]
#[template(path = "sign_in.html")]
pub(crate) struct SignInPage {
    /// The reason why the last sign-in failed.
    pub(crate) refused: Option<String>,
}

/// The page that explains a refusal.
#[derive(Template)]
#[template(path = "problem.html")]
pub(crate) struct ProblemPage {
    /// What went wrong, and the remedy.
    pub(crate) words: String,
}

/// The tenants, for operators, and the apps.
#[derive(Template)]
#[template(path = "overview.html")]
pub(crate) struct Overview {
    /// The title of the page.
    pub(crate) title: String,
    /// `None`: the page has no list of tenants.
    pub(crate) tenants: Option<Vec<TenantRow>>,
    /// The URL of the next page of tenants.
    pub(crate) more_tenants: Option<String>,
    pub(crate) apps: Vec<AppRow>,
    /// The URL of the next page of apps.
    pub(crate) more_apps: Option<String>,
}

/// A tenant in a list.
pub(crate) struct TenantRow {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Whether the tenant may use the gateway.
    pub(crate) active: bool,
    /// The time of creation.
    pub(crate) created: String,
}

/// An app in a list.
pub(crate) struct AppRow {
    pub(crate) appid: String,
    pub(crate) name: String,
    /// The id of the tenant that owns the app.
    pub(crate) tenant: String,
    /// The pause, if the app is paused.
    pub(crate) pause: Option<PausePart>,
    /// The messages a minute that the app keeps to after WeChat has answered 45011.
    pub(crate) pace: Option<u64>,
    /// The number of sends counted today.
    pub(crate) used: u64,
    /// The number of sends that are possible today.
    pub(crate) limit: u64,
}

/// The pause of an app.
pub(crate) struct PausePart {
    /// The code of the reason.
    pub(crate) reason: String,
    /// The remedy.
    pub(crate) detail: String,
    /// The end of the pause.
    pub(crate) until: String,
}

/// An app and its latest messages.
#[derive(Template)]
#[template(path = "app.html")]
pub(crate) struct AppPage {
    pub(crate) app: AppRow,
    /// The time at which WeChat last accepted the AppSecret.
    pub(crate) verified: String,
    /// The messages of the app. `None`: the key may not read messages.
    pub(crate) messages: Option<Vec<MessageRow>>,
}

/// A message in a list.
pub(crate) struct MessageRow {
    pub(crate) id: String,
    /// The time of acceptance.
    pub(crate) created: String,
    /// The status of the message.
    pub(crate) status: &'static str,
    /// The openid of the recipient.
    pub(crate) touser: String,
    /// The id of the template.
    pub(crate) template: String,
    /// The number of attempts.
    pub(crate) attempts: usize,
    /// The failure of the message, or else WeChat's last answer.
    pub(crate) said: String,
}
