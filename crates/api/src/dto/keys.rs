//! API keys in requests and answers.

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

/// How many scopes a request may name: more than exist.
const MOST_SCOPES: usize = 100;

/// An API key to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyRequest {
    /// The key's name, for people.
    #[schema(min_length = 1, max_length = 100, example = "shop backend")]
    name: String,
    /// The scopes of the key: never more than the key that makes the request has.
    #[schema(value_type = Vec<Scopes>, min_items = 1)]
    scopes: Vec<String>,
    /// The time from which the gateway refuses the key: no later than the expiry of the key that makes the request.
    /// Default: that expiry, or never.
    expires_at: Option<DateTime<Utc>>,
}

impl KeyRequest {
    /// The requested key. The error for an unknown scope has its place in the list.
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

/// An API key. Only the answer to its creation shows the secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct Key {
    /// The key's id; also the OAuth `client_id`.
    #[schema(example = "key_01jq2xv1cde8sbw7mv9v6a5kzq")]
    client_id: String,
    /// The tenant that owns the key; null: an operator's key.
    #[schema(required = true, example = "ten_01jq2xv1cde8sbw7mv9v6a5kzq")]
    tenant_id: Option<String>,
    #[schema(example = "shop backend")]
    name: String,
    #[schema(value_type = Vec<Scopes>)]
    scopes: Vec<&'static str>,
    created_at: Timestamp,
    /// The time from which the gateway refuses the key; null: never.
    #[schema(required = true)]
    expires_at: Option<Timestamp>,
    /// When the key was last used, to the minute.
    #[schema(required = true)]
    last_used_at: Option<Timestamp>,
    /// When the key was revoked; from then on the gateway refuses the key.
    #[schema(required = true)]
    revoked_at: Option<Timestamp>,
    /// The creator of the key: the id of a key (revoking that key revokes this key too); or `operator`, `cli` (the
    /// command line on the gateway's machine), `gateway` (the gateway itself); null: the key is older than this record.
    #[schema(required = true, example = "key_01jq2xv1cde8sbw7mv9v6a5kzq")]
    created_by: Option<String>,
}

/// The creator of a key, as the key's owner may see the creator: a tenant does not learn which operator made the key.
fn maker(key: &store::Key) -> Option<String> {
    Some(match key.created_by? {
        Actor::Operator(_) if key.tenant.is_some() => "operator".to_owned(),
        Actor::Operator(operator) => operator.to_string(),
        other => other.to_string(),
    })
}

/// Whether to revoke the keys that were made with a revoked key.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Revocation {
    /// True: the keys that were made with the revoked key stay in force. Use this to replace a key that was not stolen
    /// by one of its own keys. The creator of the revoked key then counts as the creator of these keys.
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

/// A new key, with its secret: no other answer shows the secret.
#[derive(Serialize, ToSchema)]
pub struct CreatedKey {
    #[serde(flatten)]
    key: Key,
    /// The secret. The secret alone identifies the key.
    #[schema(example = "wxg_…")]
    client_secret: String,
}

impl CreatedKey {
    /// The answer to the request that created the key.
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
