//! Authentication and rate limits: tenants, API keys, access tokens and admission.
//!
//! The gateway shows a client secret once, when the key is created. [`Tenancy::issue_token`] exchanges the secret for
//! an access token (a JWT, RFC 9068), which every other request carries. [`Tenancy::authenticate`] turns the token into
//! a [`Caller`], [`Caller::require`] checks a scope, and [`Tenancy::admit`] enforces the tenant's rate limit.
//! [`Tenancy::sign_in`] exchanges the same secret for a console session, which [`Tenancy::authenticate_session`]
//! accepts and no other function does.
//!
//! **Every replica refuses a revoked key or a suspended tenant within 5 seconds:** a replica may cache a verified
//! token, but caches the standing of the key for 3 seconds only. While the database is down, the last known standing
//! counts for up to a minute; after that callers are asked to try again later.
//!
//! [`Tenancy::by`] names the origin of a request: the audit log records every change, in the transaction of the change.
//!
//! To add a scope: one line in `domain::scope`. To add a claim: `token::Claims`, where tokens are signed and where
//! tokens are verified. To add a rule for keys or tenants: the module of that noun, and a test in `tests/`.
//!
//! ```no_run
//! # async fn example(tenancy: wxgate_tenancy::Tenancy, bearer: &str) -> Result<(), Box<dyn std::error::Error>> {
//! use domain::scope::Scope;
//!
//! let caller = tenancy.authenticate(bearer).await?;
//! caller.require(Scope::MessagesSend)?;
//! assert!(tenancy.admit(&caller).await.allowed);
//! # Ok(())
//! # }
//! ```

mod addresses;
mod admission;
mod bearer;
mod caller;
mod client_secret;
mod drop_in;
mod drop_in_tokens;
mod error;
mod failures;
mod idempotency;
mod key_status;
mod keys;
mod oauth;
mod options;
mod pepper;
mod proof;
mod reseal;
mod running;
mod signing;
mod tenancy;
mod tenants;
mod token;

pub use addresses::{ClientAddress, Network};
pub use caller::{Caller, MissingScope};
pub use coord::Decision;
pub use error::{AuthError, OauthError, TenancyError};
pub use idempotency::IdempotencyState;
pub use keys::{CreatedKey, KeyOwner, NewKey};
pub use oauth::IssuedToken;
pub use options::TenancyOptions;
pub use proof::{ProvenMarker, UnprovenLimitReached};
pub use reseal::Resealed;
pub use running::IdempotencyGuard;
pub use store::{Descendants, Keep, Key, Listing, Page, SigningKey, Tenant, TenantPatch};
pub use tenancy::Tenancy;
