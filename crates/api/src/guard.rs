//! The guard of `/v1`: credential → rate permit → scope.
//!
//! A request that lacks the scope takes a rate permit like any other request: a client that repeats a forbidden request
//! in a loop runs into the rate limit.
//!
//! The guard reads the scope of each operation from the OpenAPI document, so that the documented scope is the enforced
//! scope. The guard refuses an operation that is missing in the document.

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use domain::{id::TenantId, scope::Scope};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts};
use store::{Actor, Origin};
use tenancy::{AuthError, Caller, Decision, Tenancy};
use utoipa::openapi::OpenApi;

use crate::{
    openapi::SCHEME,
    problem::{Problem, ProblemKind, seconds_up},
    request_origin,
};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The state of the guard. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Guard {
    tenancy: Tenancy,
    policy: Arc<Policy>,
}

impl Guard {
    /// The guard that enforces the scopes in `document`.
    pub(crate) fn new(tenancy: Tenancy, document: &OpenApi) -> Self {
        Self {
            tenancy,
            policy: Arc::new(Policy::of(document)),
        }
    }
}

/// The scope of each operation.
#[derive(Debug)]
pub(crate) struct Policy(HashMap<(String, String), Scope>);

impl Policy {
    /// The policy in `document`: the one scope in each operation's `security`.
    pub(crate) fn of(document: &OpenApi) -> Self {
        let json = serde_json::to_value(document).unwrap_or_default();
        let paths = json["paths"].as_object().into_iter().flatten();
        let operations = paths.flat_map(|(path, item)| {
            let methods = item.as_object().into_iter().flatten();
            methods.filter_map(move |(method, operation)| {
                let scope = operation["security"][0][SCHEME][0].as_str()?.parse().ok()?;
                Some(((method.to_ascii_uppercase(), path.clone()), scope))
            })
        });
        Self(operations.collect())
    }

    /// The scope that `method` on `path` needs.
    pub(crate) fn scope(&self, method: &Method, path: &str) -> Option<Scope> {
        let method = if method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        self.0
            .get(&(method.as_str().to_owned(), path.to_owned()))
            .copied()
    }

    /// Refuses a caller without the scope that `method` on `path` needs.
    fn permit(&self, caller: &Caller, method: &Method, path: &str) -> Result<(), Problem> {
        let scope = self.scope(method, path).ok_or_else(|| {
            Problem::internal(format_args!("no scope is documented for {method} {path}"))
        })?;
        if caller.scopes.contains(scope) {
            Ok(())
        } else {
            Err(insufficient_scope(scope))
        }
    }
}

/// The layer: authenticates and authorises a request, then calls the handler or answers with a problem.
pub(crate) async fn check(
    State(guard): State<Guard>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.extensions().get::<MatchedPath>().cloned();
    let path = path.as_ref().map_or("", MatchedPath::as_str);
    let origin = request_origin::origin(request.extensions());
    let tenancy = guard.tenancy.by(origin.clone());
    let caller = match tenancy.authenticate(bearer(request.headers())).await {
        Ok(caller) => caller,
        Err(error) => return Problem::from(error).into_response(),
    };
    request_origin::proof(request.extensions()).give();
    request.extensions_mut().insert(Origin {
        actor: match caller.tenant {
            Some(_) => Actor::Key(caller.key),
            None => Actor::Operator(caller.key),
        },
        ..origin
    });
    let rate = caller.limits.requests_per_second;
    let decision = guard.tenancy.admit(&caller).await;
    let mut response = if !decision.allowed {
        Problem::new(ProblemKind::RateLimited, ProblemKind::RateLimited.example())
            .retry_after(decision.retry_after)
            .into_response()
    } else if let Err(problem) = guard.policy.permit(&caller, request.method(), path) {
        problem.into_response()
    } else {
        request.extensions_mut().insert(caller);
        next.run(request).await
    };
    add_rate_headers(&decision, rate, response.headers_mut());
    response
}

/// The token in `Authorization: Bearer …` (RFC 6750 §2.1); empty if the request has none.
fn bearer(headers: &HeaderMap) -> &str {
    let credential = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let token = credential.and_then(|credential| credential.split_once(' '));
    match token {
        Some((scheme, token))
            if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() =>
        {
            token.trim()
        }
        _ => "",
    }
}

/// The refusal of a token that does not authenticate its caller (RFC 6750 §3.1).
impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let challenge = match error {
            AuthError::Missing => "Bearer realm=\"wxgate\"".to_owned(),
            AuthError::Malformed
            | AuthError::Expired
            | AuthError::Revoked
            | AuthError::Suspended => {
                format!(
                    "Bearer realm=\"wxgate\", error=\"invalid_token\", error_description=\"{error}\""
                )
            }
            AuthError::TooOften(wait) => {
                return Self::new(ProblemKind::RateLimited, error.to_string()).retry_after(wait);
            }
            AuthError::Unavailable => return Self::new(ProblemKind::Overloaded, error.to_string()),
        };
        Self::new(ProblemKind::Unauthorized, error.to_string())
            .with_header(header::WWW_AUTHENTICATE, &challenge)
    }
}

/// The refusal of a valid token that lacks `scope` (RFC 6750 §3.1).
pub(crate) fn insufficient_scope(scope: Scope) -> Problem {
    let challenge =
        format!("Bearer realm=\"wxgate\", error=\"insufficient_scope\", scope=\"{scope}\"");
    Problem::new(
        ProblemKind::InsufficientScope,
        format!("this request needs the scope `{scope}`: use a key that has this scope"),
    )
    .with_header(header::WWW_AUTHENTICATE, &challenge)
}

/// Adds the headers of draft-ietf-httpapi-ratelimit-headers-10: one policy, `default`. The window is the number of
/// seconds in which `rate` requests a second add up to the largest burst.
fn add_rate_headers(decision: &Decision, rate: u32, headers: &mut HeaderMap) {
    let window = decision.limit.div_ceil(rate.max(1));
    let policy = format!("\"default\";q={};w={window}", decision.limit);
    let state = format!(
        "\"default\";r={};t={}",
        decision.remaining,
        seconds_up(decision.reset_after)
    );
    for (name, text) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, state)] {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(name, value);
        }
    }
}

/// The caller of the request. Only handlers behind the guard have a caller.
#[derive(Clone, Debug)]
pub(crate) struct Authorized(pub(crate) Caller);

impl Authorized {
    /// The caller's tenant; `None` for an operator.
    pub(crate) fn tenant(&self) -> Option<TenantId> {
        self.0.tenant
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Authorized {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller
            .map(Self)
            .ok_or_else(|| Problem::internal("a handler outside of the guard asks for its caller"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_is_told_from_other_credentials() {
        let of = |value: &str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            bearer(&headers).to_owned()
        };
        assert_eq!(of("Bearer abc"), "abc");
        assert_eq!(of("bearer  abc "), "abc");
        for other in ["Basic abc", "Bearer", "Bearer ", "abc"] {
            assert_eq!(of(other), "", "{other:?}");
        }
        assert_eq!(bearer(&HeaderMap::new()), "");
        let refusal = Problem::from(AuthError::Missing);
        let challenge = refusal.into_response().headers()[header::WWW_AUTHENTICATE].clone();
        assert_eq!(challenge, "Bearer realm=\"wxgate\"");
    }

    #[test]
    fn what_the_document_says_is_what_is_asked_for() {
        let policy = Policy::of(&crate::openapi());
        assert_eq!(
            policy.scope(&Method::POST, "/v1/apps/{appid}/messages"),
            Some(Scope::MessagesSend)
        );
        assert_eq!(
            policy.scope(&Method::HEAD, "/v1/apps/{appid}"),
            Some(Scope::AppsRead)
        );
        assert_eq!(
            policy.scope(&Method::PATCH, "/v1/tenants/{tenant_id}"),
            Some(Scope::Operator)
        );
        assert_eq!(policy.scope(&Method::GET, "/v1/unheard"), None);
    }

    #[test]
    fn a_challenge_names_the_missing_scope() {
        let response = insufficient_scope(Scope::MessagesSend).into_response();
        let challenge = response.headers()[header::WWW_AUTHENTICATE]
            .to_str()
            .unwrap();
        assert!(
            challenge.contains("error=\"insufficient_scope\"")
                && challenge.contains("scope=\"messages:send\"")
        );
    }
}
