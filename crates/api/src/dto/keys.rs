//! API keys on the wire.

use chrono::{DateTime, Utc};
use domain::{
    scope::{Scope, ScopeSet},
    violation::Violation,
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use store::Actor;
use tenancy::Descendants;
use utoipa::{IntoParams, ToSchema};

use super::{open_lists::Scopes, time::Timestamp};
use crate::{once::Worded, problem::Problem};

/// How many scopes may be named: more than there are.
const MOST_SCOPES: usize = 100;

/// A key to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = KeyRequest)]
pub(crate) struct NewKey {
    /// What its owner calls it.
    #[schema(min_length = 1, max_length = 100, example = "shop backend")]
    name: String,
    /// What it may do: never more than the key that makes it.
    #[schema(value_type = Vec<Scopes>, min_items = 1)]
    scopes: Vec<String>,
    /// From when on it is refused: no later than the key that makes it. Default: when that one expires, or never.
    expires_at: Option<DateTime<Utc>>,
}

impl NewKey {
    /// The key that is asked for. A word that is no scope is told with its place.
    pub(crate) fn parse(self) -> Result<tenancy::NewKey, Problem> {
        if self.scopes.len() > MOST_SCOPES {
            let rule = format!("must name at most {MOST_SCOPES} scopes, each once");
            return Err(Problem::field("/scopes", rule));
        }
        let mut found = Vec::new();
        let mut scopes = Vec::new();
        for (index, word) in self.scopes.iter().enumerate() {
            match word.parse::<Scope>() {
                Ok(scope) => scopes.push(scope),
                Err(unknown) => found.push(Violation::new(
                    format!("/scopes/{index}"),
                    unknown.to_string(),
                )),
            }
        }
        if found.is_empty() {
            Ok(tenancy::NewKey {
                name: self.name,
                scopes: ScopeSet::from_iter(scopes),
                expires_at: self.expires_at,
            })
        } else {
            Err(Problem::validation_failed(found))
        }
    }
}

/// An API key. Its secret is shown once, when it is made.
#[derive(Debug, Serialize, ToSchema)]
pub struct Key {
    /// Its id; also the OAuth `client_id`.
    #[schema(example = "key_01jq2xv1cde8sbw7mv9v6a5kzq")]
    client_id: String,
    /// Whose it is; null: an operator's.
    #[schema(required = true, example = "ten_01jq2xv1cde8sbw7mv9v6a5kzq")]
    tenant_id: Option<String>,
    #[schema(example = "shop backend")]
    name: String,
    #[schema(value_type = Vec<Scopes>)]
    scopes: Vec<&'static str>,
    created_at: Timestamp,
    /// From when on it is refused; null: never.
    #[schema(required = true)]
    expires_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    #[schema(required = true)]
    last_used_at: Option<Timestamp>,
    /// When it was revoked; from then on it is refused.
    #[schema(required = true)]
    revoked_at: Option<Timestamp>,
    /// Who made it: a key by its id, which takes it along when it is revoked; or `operator`, `cli` (the command line on
    /// the gateway's machine), `gateway` (by itself); null: it was made before the gateway kept that.
    #[schema(required = true, example = "key_01jq2xv1cde8sbw7mv9v6a5kzq")]
    created_by: Option<String>,
}

/// Who made a key, as its owner may see it: a tenant is not told which operator it was.
fn maker(key: &store::Key) -> Option<String> {
    Some(match key.created_by? {
        Actor::Operator(_) if key.tenant.is_some() => "operator".to_owned(),
        Actor::Operator(operator) => operator.to_string(),
        other => other.to_string(),
    })
}

/// What becomes of the keys that were made with a revoked one.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Revocation {
    /// Whether the keys that were made with it stay in force: to exchange a key that was not stolen for one that it has
    /// made. They count as made by whoever made the revoked key.
    #[serde(default)]
    #[param(default = false)]
    keep_descendants: bool,
}

impl Revocation {
    pub(crate) fn descendants(&self) -> Descendants {
        if self.keep_descendants {
            Descendants::Keep
        } else {
            Descendants::Revoke
        }
    }
}

impl From<store::Key> for Key {
    fn from(key: store::Key) -> Self {
        Self {
            created_by: maker(&key),
            client_id: key.id.to_string(),
            tenant_id: key.tenant.map(|tenant| tenant.to_string()),
            name: key.name,
            scopes: key.scopes.iter().map(Scope::as_str).collect(),
            created_at: key.created_at.into(),
            expires_at: key.expires_at.map(Into::into),
            last_used_at: key.last_used_at.map(Into::into),
            revoked_at: key.revoked_at.map(Into::into),
        }
    }
}

/// A key just made, with its secret: this is the only time it is shown.
#[derive(Serialize, ToSchema)]
pub struct CreatedKey {
    #[serde(flatten)]
    key: Key,
    /// The secret. It alone identifies the key.
    #[schema(example = "wxg_…")]
    client_secret: String,
}

impl CreatedKey {
    /// The answer to whoever made it.
    pub(crate) fn shown(created: &tenancy::CreatedKey) -> Worded {
        Worded::new(StatusCode::CREATED, &Self::from(created))
    }
}

impl From<&tenancy::CreatedKey> for CreatedKey {
    fn from(created: &tenancy::CreatedKey) -> Self {
        Self {
            key: created.key.clone().into(),
            client_secret: created.secret.expose().to_owned(),
        }
    }
}
