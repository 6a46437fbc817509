//! `wxgate key`.

use api::views::{self, Page, Timestamp};
use clap::{ArgGroup, Args, Subcommand};
use domain::{
    id::KeyId,
    scope::{Scope, ScopeSet},
};
use serde_json::json;
use store::Key;
use tenancy::{CreatedKey, Descendants, KeyOwner, NewKey};

use super::{CommandContext, TenantWord, all, key_id, tenant_word};
use crate::{
    failure::Failure,
    output::{Output, card, table},
    settings::Settings,
};

/// The subcommands of `wxgate key`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a key; the secret is shown once
    Create(Create),
    /// List the keys of an owner, including revoked keys
    List(Owner),
    /// Revoke a key, and all keys that were made with it
    Revoke {
        /// The key's id: key_…
        #[arg(value_parser = key_id)]
        id: KeyId,
        /// Keep the keys that were made with this key: for a key that is replaced and was not stolen
        #[arg(long)]
        keep_descendants: bool,
    },
}

/// The owner of a key.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("owner").required(true).args(["tenant", "operator"])))]
pub(crate) struct Owner {
    /// A key of this tenant: its id (ten_…) or name
    #[arg(long, value_name = "TENANT", value_parser = tenant_word)]
    tenant: Option<TenantWord>,
    /// A key of the operators
    #[arg(long)]
    operator: bool,
}

/// The properties of the new key.
#[derive(Args, Debug)]
pub(crate) struct Create {
    #[command(flatten)]
    owner: Owner,
    /// The scopes of the key, such as messages:send messages:read. An operator's key has all scopes by default
    #[arg(
        long = "scope",
        value_name = "SCOPE",
        num_args = 1..,
        value_delimiter = ',',
        required_unless_present = "operator"
    )]
    scopes: Vec<Scope>,
    /// A name for the key
    #[arg(long, default_value = "command line")]
    name: String,
}

impl Owner {
    async fn key_owner(&self, context: &CommandContext) -> Result<KeyOwner, Failure> {
        Ok(match &self.tenant {
            Some(tenant) => KeyOwner::Tenant(context.tenant(tenant).await?),
            None => KeyOwner::Operator,
        })
    }
}

impl Create {
    fn scopes(&self) -> ScopeSet {
        let asked = self.scopes.iter().copied();
        match &self.owner.tenant {
            None if self.scopes.is_empty() => ScopeSet::all(),
            None => asked.chain([Scope::Operator]).collect(),
            Some(_) => asked.collect(),
        }
    }
}

/// Runs the subcommand.
pub(crate) async fn run(
    settings: &Settings,
    output: Output,
    command: Command,
) -> Result<(), Failure> {
    let context = CommandContext::open(settings).await?;
    match command {
        Command::Create(create) => {
            let new = NewKey {
                scopes: create.scopes(),
                name: create.name.clone(),
                expires_at: None,
            };
            let owner = create.owner.key_owner(&context).await?;
            let created = context.tenancy.create_key(owner, new, None).await?;
            context.close().await;
            tell_created(output, &created)
        }
        Command::List(owner) => {
            let owner = owner.key_owner(&context).await?;
            let keys = all(async |page| context.tenancy.keys(owner, &page).await).await?;
            context.close().await;
            list(output, keys)
        }
        Command::Revoke {
            id,
            keep_descendants,
        } => {
            let owner = context.store.platform().credential(id).await?.key.tenant;
            let owner = owner.map_or(KeyOwner::Operator, KeyOwner::Tenant);
            let descendants = if keep_descendants {
                Descendants::Keep
            } else {
                Descendants::Revoke
            };
            let revoked = context.tenancy.revoke_key(owner, id, descendants).await?;
            context.close().await;
            tell_revoked(output, id, &revoked)
        }
    }
}

fn tell_revoked(output: Output, id: KeyId, revoked: &[KeyId]) -> Result<(), Failure> {
    let others: Vec<String> = revoked
        .iter()
        .filter(|other| **other != id)
        .map(ToString::to_string)
        .collect();
    let answer = json!({"client_id": id.to_string(), "revoked": true, "descendants": others});
    output.result(&answer, || {
        let with = match others.as_slice() {
            [] => String::new(),
            others => format!(", and the keys made with this key: {}", others.join(", ")),
        };
        format!(
            "revoked {id}{with}: all replicas refuse requests with a revoked key within 5 seconds"
        )
    })
}

fn tell_created(output: Output, created: &CreatedKey) -> Result<(), Failure> {
    let key = &created.key;
    let lines = [
        ("client_id", key.id.to_string()),
        ("client_secret", created.secret.expose().to_owned()),
        ("scopes", key.scopes.to_string()),
        ("name", key.name.clone()),
    ];
    let text = format!(
        "{}The secret is shown only now and cannot be read again: store the secret in a safe place.\n",
        card(&lines)
    );
    output.result(&views::CreatedKey::from(created), || text)
}

fn list(output: Output, keys: Vec<Key>) -> Result<(), Failure> {
    let row = |key: &Key| {
        let state = if key.revoked_at.is_some() {
            "revoked"
        } else {
            "active"
        };
        let used = key
            .last_used_at
            .map_or("never".to_owned(), |used| Timestamp(used).to_string());
        vec![
            key.id.to_string(),
            state.to_owned(),
            used,
            key.name.clone(),
            key.scopes.to_string(),
        ]
    };
    let rows: Vec<_> = keys.iter().map(row).collect();
    output.result(
        &Page::all(keys.into_iter().map(views::Key::from).collect()),
        || {
            table(
                &["client_id", "state", "last used", "name", "scopes"],
                &rows,
            )
        },
    )
}
