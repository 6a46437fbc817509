//! The pages as values; askama escapes whatever is put into them.

use askama::Template;

/// The sign-in form.
#[derive(Template)]
#[template(path = "sign_in.html")]
pub(crate) struct SignIn {
    /// Why the last try did not work.
    pub(crate) refused: Option<String>,
}

/// Something other than the page that was asked for.
#[derive(Template)]
#[template(path = "problem.html")]
pub(crate) struct Problem {
    /// What and why.
    pub(crate) words: String,
}

/// Tenants, for operators, and apps.
#[derive(Template)]
#[template(path = "overview.html")]
pub(crate) struct Overview {
    /// What the page is about.
    pub(crate) title: String,
    /// None: the page has no such list.
    pub(crate) tenants: Option<Vec<TenantRow>>,
    /// Where more tenants are.
    pub(crate) more_tenants: Option<String>,
    /// The apps.
    pub(crate) apps: Vec<AppRow>,
    /// Where more apps are.
    pub(crate) more_apps: Option<String>,
}

/// A tenant in a list.
pub(crate) struct TenantRow {
    /// Its id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// Whether it may use the gateway.
    pub(crate) active: bool,
    /// When it was made.
    pub(crate) created: String,
}

/// An app in a list.
pub(crate) struct AppRow {
    /// WeChat's id of it.
    pub(crate) appid: String,
    /// Its name.
    pub(crate) name: String,
    /// Whose it is.
    pub(crate) tenant: String,
    /// Why it does not send, if it does not.
    pub(crate) pause: Option<Pause>,
    /// Messages a minute that it keeps to since WeChat refused more.
    pub(crate) pace: Option<u64>,
    /// Sends counted today.
    pub(crate) used: u64,
    /// Sends that are possible today.
    pub(crate) limit: u64,
}

/// Why an app does not send.
pub(crate) struct Pause {
    /// A word.
    pub(crate) reason: String,
    /// What to do about it.
    pub(crate) detail: String,
    /// Until when.
    pub(crate) until: String,
}

/// An app and its last messages.
#[derive(Template)]
#[template(path = "app.html")]
pub(crate) struct AppPage {
    /// The app.
    pub(crate) app: AppRow,
    /// When WeChat last accepted its AppSecret.
    pub(crate) verified: String,
    /// Its messages; none: the key may not read them.
    pub(crate) messages: Option<Vec<MessageRow>>,
}

/// A message in a list.
pub(crate) struct MessageRow {
    /// Its id.
    pub(crate) id: String,
    /// When it was accepted.
    pub(crate) created: String,
    /// Where it is in its life.
    pub(crate) status: &'static str,
    /// The receiver.
    pub(crate) touser: String,
    /// The template.
    pub(crate) template: String,
    /// How many tries there were.
    pub(crate) attempts: usize,
    /// What WeChat last said, or why it did not arrive.
    pub(crate) said: String,
}
