//! Sessions: sign-in with a client secret, the cookie, sign-out.

use std::{error::Error, iter::successors};

use axum::{
    Form,
    extract::{FromRequestParts, State, rejection::FormRejection},
    http::{Extensions, HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Redirect, Response},
};
use domain::{
    id::TenantId,
    scope::{Scope, ScopeSet},
    secret::ClientSecret,
};
use serde::Deserialize;
use store::Origin;
use tenancy::{Caller, OauthError, ProvenMarker, Tenancy, UnprovenLimitReached};

use crate::{
    ConsoleState, pages,
    refusal::{PageRefusal, page, seconds_up},
};

const COOKIE: &str = "wxgate_console";

/// The signed-in visitor.
pub(crate) struct SignedInVisitor(Caller);

impl SignedInVisitor {
    /// The tenant whose data the visitor sees. `None`: the visitor is an operator and sees the data of all tenants.
    pub(crate) fn tenant(&self) -> Option<TenantId> {
        self.0.tenant
    }

    /// Refuses a visitor without `scope`.
    pub(crate) fn require(&self, scope: Scope) -> Result<(), PageRefusal> {
        self.0
            .require(scope)
            .map_err(|missing| PageRefusal::Scope(missing.0.as_str()))
    }
}

impl FromRequestParts<ConsoleState> for SignedInVisitor {
    type Rejection = PageRefusal;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &ConsoleState,
    ) -> Result<Self, PageRefusal> {
        let session = cookie(&parts.headers).ok_or(PageRefusal::SignIn)?;
        let tenancy = asked_from(&state.tenancy, &parts.extensions);
        let caller = tenancy.authenticate_session(session).await?;
        proof(&parts.extensions).give();
        let decision = tenancy.admit(&caller).await;
        if decision.allowed {
            Ok(Self(caller))
        } else {
            Err(PageRefusal::TooMany(decision.retry_after))
        }
    }
}

/// Tenancy on behalf of the request's origin: too many failures from an address are refused for a while, and audit
/// lines contain the request id.
fn asked_from(tenancy: &Tenancy, extensions: &Extensions) -> Tenancy {
    let origin = extensions.get().cloned().unwrap_or(Origin::GATEWAY);
    tenancy.by(origin)
}

/// The proof that the handler reports as soon as the visitor has shown a valid credential.
fn proof(extensions: &Extensions) -> ProvenMarker {
    extensions.get().cloned().unwrap_or_default()
}

/// Whether the form was not read because unproven requests hold too many bytes.
fn has_no_room(rejection: &FormRejection) -> bool {
    let mut causes = successors(Some(rejection as &(dyn Error + 'static)), |error| {
        (**error).source()
    });
    causes.any(<dyn Error>::is::<UnprovenLimitReached>)
}

/// The scopes that the pages need to read, out of all scopes of a key.
fn readable() -> ScopeSet {
    [Scope::Operator, Scope::AppsRead, Scope::MessagesRead]
        .into_iter()
        .collect()
}

/// The sign-in form.
pub(crate) async fn form() -> Response {
    page(&pages::SignInPage { refused: None })
}

/// The fields of the sign-in form.
#[derive(Deserialize)]
pub(crate) struct SignIn {
    client_secret: ClientSecret,
}

/// Checks a client secret and sets the session cookie.
pub(crate) async fn sign_in(
    State(state): State<ConsoleState>,
    extensions: Extensions,
    headers: HeaderMap,
    form: Result<Form<SignIn>, FormRejection>,
) -> Result<Response, PageRefusal> {
    let Form(form) = match form {
        Ok(form) => form,
        Err(rejection) if has_no_room(&rejection) => return Err(PageRefusal::Unavailable),
        Err(rejection) => return Ok(rejection.into_response()),
    };
    check_origin(&state, &headers)?;
    let secret = ClientSecret::new(form.client_secret.expose().trim());
    let tenancy = asked_from(&state.tenancy, &extensions);
    let session = match tenancy.sign_in(&secret, readable()).await {
        Ok(session) => session,
        Err(error) => return Ok(refused(&error)),
    };
    proof(&extensions).give();
    let cookie = set_cookie(&state, session.access_token.expose(), session.expires_in);
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/console")).into_response())
}

/// The sign-in form with the reason of the failure.
fn refused(error: &OauthError) -> Response {
    let (status, wait) = match error {
        OauthError::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, Some(1)),
        OauthError::TooOften(wait) => (StatusCode::TOO_MANY_REQUESTS, Some(seconds_up(*wait))),
        _ => (StatusCode::UNAUTHORIZED, None),
    };
    let form = pages::SignInPage {
        refused: Some(error.to_string()),
    };
    let mut response = (status, page(&form)).into_response();
    if let Some(seconds) = wait {
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Deletes the session cookie.
pub(crate) async fn sign_out(
    State(state): State<ConsoleState>,
    headers: HeaderMap,
) -> Result<Response, PageRefusal> {
    check_origin(&state, &headers)?;
    Ok((
        [(header::SET_COOKIE, set_cookie(&state, "", 0))],
        Redirect::to("/console/sign-in"),
    )
        .into_response())
}

fn set_cookie(state: &ConsoleState, value: &str, seconds: u64) -> String {
    let https = state
        .public_url
        .as_ref()
        .is_some_and(|url| url.starts_with("https://"));
    let secure = if https { "; Secure" } else { "" };
    format!("{COOKIE}={value}; Path=/console; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let pairs = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    let mut ours = pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, value)| *name == COOKIE && !value.is_empty());
    ours.next().map(|(_, value)| value)
}

/// Accepts only forms from these pages: browsers send the origin of a form.
fn check_origin(state: &ConsoleState, headers: &HeaderMap) -> Result<(), PageRefusal> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let origin = text(header::ORIGIN).ok_or(PageRefusal::ForeignOrigin)?;
    let host = |url: &str| {
        url.split_once("://").map(|(_, rest)| {
            rest.split('/')
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase()
        })
    };
    let ours = [
        text(header::HOST).map(str::to_ascii_lowercase),
        state.public_url.as_deref().and_then(host),
    ];
    let theirs = host(origin);
    if theirs.is_some() && ours.contains(&theirs) {
        Ok(())
    } else {
        Err(PageRefusal::ForeignOrigin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_found_among_others() {
        let of = |value: &str| {
            let headers = HeaderMap::from_iter([(header::COOKIE, value.parse().unwrap())]);
            cookie(&headers).map(str::to_owned)
        };
        assert_eq!(
            of("a=b; wxgate_console=x.y.z; c=d").as_deref(),
            Some("x.y.z")
        );
        assert_eq!(of("wxgate_console="), None);
        assert_eq!(of("other=1"), None);
    }

    #[test]
    fn sessions_read_and_do_nothing_else() {
        assert!(
            !readable().contains(Scope::MessagesSend) && !readable().contains(Scope::TokensRead)
        );
    }
}
