//! The token endpoint (RFC 6749), its metadata (RFC 8414) and its public keys (RFC 7517).

use std::time::Duration;

use axum::{
    Form, Json,
    extract::{FromRequest, Request, State, rejection::FormRejection},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use domain::secret::ClientSecret;
use http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenancy::OauthError;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    body_limits::unproven_body,
    extract::{Unread, announces_too_much},
    openapi::Always,
    problem::seconds_up,
    request_origin::{encoding, origin, proof},
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .merge(
            OpenApiRouter::default()
                .routes(routes!(issue_token))
                .layer(unproven_body()),
        )
        .routes(routes!(get_jwks))
        .routes(routes!(get_authorization_server))
}

/// A request for an access token. An empty parameter counts as absent; the gateway ignores unknown parameters.
#[derive(Deserialize, ToSchema)]
struct TokenRequest {
    /// `client_credentials`
    #[serde(default)]
    #[schema(required = true, example = "client_credentials")]
    grant_type: String,
    /// The API key's id, unless HTTP Basic carries the id.
    #[serde(default)]
    #[schema(example = "key_01jq2xv1cde8sbw7mv9v6a5kzq")]
    client_id: String,
    /// The API key's secret, unless HTTP Basic carries the secret.
    #[serde(default)]
    #[schema(write_only)]
    client_secret: String,
    /// Scopes separated by blanks. Default: all scopes of the key.
    #[serde(default)]
    #[schema(example = "messages:send messages:read")]
    scope: String,
}

/// The form, read completely.
struct TokenForm(TokenRequest);

impl<S: Send + Sync> FromRequest<S> for TokenForm {
    type Rejection = OauthRefusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, OauthRefusal> {
        if announces_too_much(&request) {
            return Err(OauthRefusal::too_large());
        }
        if encoding(&request).is_some() {
            let words = "an encoded form cannot be read: send the form without Content-Encoding";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(OauthRefusal::new(status, "invalid_request", words));
        }
        let form = Form::from_request(request, state).await;
        form.map(|Form(form)| Self(form))
            .map_err(|rejection| OauthRefusal::unreadable(&rejection))
    }
}

/// An access token.
#[derive(Serialize, ToSchema)]
struct TokenAnswer {
    /// The access token. Send this text as `Authorization: Bearer …`.
    #[schema(example = "eyJhbGciOiJFZERTQSIs…")]
    access_token: String,
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds until the token expires.
    #[schema(example = 900)]
    expires_in: u64,
    /// The scopes of the token, separated by blanks.
    #[schema(example = "messages:send messages:read")]
    scope: String,
}

/// Why the request gets no token (RFC 6749 §5.2).
#[derive(Debug, Serialize, ToSchema)]
struct TokenRefusal {
    #[schema(example = "invalid_client")]
    error: &'static str,
    /// What happened and what to do next.
    #[schema(example = "the client id or secret is wrong")]
    error_description: String,
}

/// Fetch an access token
///
/// OAuth 2.0 client credentials (RFC 6749 §4.4): send the client id and secret of an API key by HTTP Basic or in the form.
#[utoipa::path(
    post, path = "/oauth/token", tag = "oauth",
    request_body(content = TokenRequest, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The token.", body = TokenAnswer),
        (status = 400, description = "The request is wrong: `invalid_request`, `unsupported_grant_type`, `invalid_scope`.", body = TokenRefusal,
            example = json!({"error": "invalid_request", "error_description": "send grant_type=client_credentials"})),
        (status = 401, description = "The credentials are wrong: `invalid_client`.", body = TokenRefusal,
            headers(("WWW-Authenticate" = String, description = "`Basic`"))),
        (status = 408, description = "The form did not arrive in time: `invalid_request`.", body = TokenRefusal,
            example = json!({"error": "invalid_request", "error_description": "the form did not arrive in time: send the request again"})),
        (status = 413, description = "The form is over 16 KiB: `invalid_request`.", body = TokenRefusal,
            example = json!({"error": "invalid_request", "error_description": "the form is over 16 KiB: send only grant_type, client_id, client_secret and scope"})),
        (status = 415, description = "The form is encoded (`Content-Encoding`): `invalid_request`.", body = TokenRefusal,
            example = json!({"error": "invalid_request", "error_description": "a form with `Content-Encoding: gzip` cannot be read: send the form without an encoding and without this header"})),
        (status = 429, description = "Too many requests from the client's address, or too many that failed: `rate_limited`.", body = TokenRefusal,
            headers(("Retry-After" = String, description = "Seconds to wait.")),
            example = json!({"error": "rate_limited", "error_description": "too many requests: wait as long as Retry-After says"})),
        (status = 503, description = "The gateway cannot check the credentials at the moment: `temporarily_unavailable`.", body = TokenRefusal,
            headers(("Retry-After" = String, description = "Seconds to wait.")),
            example = json!({"error": "temporarily_unavailable", "error_description": "the gateway cannot check the credentials at the moment: send the request again after Retry-After"})),
        Always,
    ),
)]
async fn issue_token(
    State(state): State<ApiState>,
    extensions: Extensions,
    headers: HeaderMap,
    TokenForm(request): TokenForm,
) -> Result<Response, OauthRefusal> {
    match request.grant_type.as_str() {
        "client_credentials" => {}
        "" => {
            return Err(OauthRefusal::bad_request(
                "invalid_request",
                "send grant_type=client_credentials",
            ));
        }
        _ => {
            return Err(OauthRefusal::bad_request(
                "unsupported_grant_type",
                "the only supported grant_type is client_credentials",
            ));
        }
    }
    let scope = present(request.scope);
    let (id, secret) = credentials(&headers, request.client_id, request.client_secret)?;
    let issued = state
        .tenancy
        .by(origin(&extensions))
        .issue_token(id.as_deref(), &secret, scope.as_deref())
        .await?;
    proof(&extensions).give();
    let answer = TokenAnswer {
        access_token: issued.access_token.expose().to_owned(),
        token_type: "Bearer",
        expires_in: issued.expires_in,
        scope: issued.scope.to_string(),
    };
    Ok((
        [
            (header::CACHE_CONTROL, "no-store"),
            (header::PRAGMA, "no-cache"),
        ],
        Json(answer),
    )
        .into_response())
}

/// Read the keys that verify access tokens
///
/// A JWK set (RFC 7517).
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "oauth",
    responses((status = 200, description = "The keys.", body = Object,
        example = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "…", "x": "…"}]})), Always),
)]
async fn get_jwks(State(state): State<ApiState>) -> Response {
    cacheable(state.tenancy.jwks().await)
}

/// Read the metadata of the token endpoint
///
/// Authorization server metadata (RFC 8414).
#[utoipa::path(
    get, path = "/.well-known/oauth-authorization-server", tag = "oauth",
    responses((status = 200, description = "The metadata.", body = Object,
        example = json!({"issuer": "https://wxgate.example.com", "token_endpoint": "https://wxgate.example.com/oauth/token"})), Always),
)]
async fn get_authorization_server(State(state): State<ApiState>) -> Response {
    cacheable(state.tenancy.metadata())
}

fn cacheable(body: Value) -> Response {
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(body)).into_response()
}

/// A parameter without a value counts as absent (RFC 6749 §3.2).
fn present(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// The client's id and secret, from HTTP Basic or from the form but not from both (RFC 6749 §2.3).
fn credentials(
    headers: &HeaderMap,
    id: String,
    secret: String,
) -> Result<(Option<String>, ClientSecret), OauthRefusal> {
    let Some(authorization) = headers.get(header::AUTHORIZATION) else {
        return if secret.is_empty() {
            Err(OauthRefusal::no_credentials())
        } else {
            Ok((present(id), ClientSecret::new(secret)))
        };
    };
    let (basic_id, basic_secret) = basic(authorization).ok_or_else(OauthRefusal::not_basic)?;
    if !secret.is_empty() || (!id.is_empty() && id != basic_id) {
        return Err(OauthRefusal::bad_request(
            "invalid_request",
            "send the credentials by HTTP Basic or in the form, not in both",
        ));
    }
    Ok((present(basic_id), ClientSecret::new(basic_secret)))
}

/// User and password of HTTP Basic, each form-encoded by the client before joining (RFC 6749 §2.3.1).
fn basic(authorization: &HeaderValue) -> Option<(String, String)> {
    let (scheme, encoded) = authorization.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    Some((form_decode(id)?, form_decode(secret)?))
}

fn form_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                u8::try_from(digit(rest.next())? * 16 + digit(rest.next())?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// A refusal of the token endpoint, in the form of RFC 6749.
#[derive(Debug)]
struct OauthRefusal {
    status: StatusCode,
    error: &'static str,
    description: String,
    retry_after: Option<Duration>,
}

impl OauthRefusal {
    fn new(status: StatusCode, error: &'static str, description: impl Into<String>) -> Self {
        Self {
            status,
            error,
            description: description.into(),
            retry_after: None,
        }
    }

    fn bad_request(error: &'static str, description: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, description)
    }

    fn unreadable(rejection: &FormRejection) -> Self {
        let (status, words) = match Unread::of(rejection.status(), rejection) {
            Unread::TooSlow => (
                StatusCode::REQUEST_TIMEOUT,
                "the form did not arrive in time: send the request again",
            ),
            Unread::TooLarge => return Self::too_large(),
            Unread::UnprovenLimitReached => return OauthError::Unavailable.into(),
            Unread::BrokenOff => (
                StatusCode::BAD_REQUEST,
                "send a form (application/x-www-form-urlencoded) with each parameter at most once",
            ),
        };
        Self::new(status, "invalid_request", words)
    }

    fn too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request",
            "the form is over 16 KiB: send only grant_type, client_id, client_secret and scope",
        )
    }

    fn no_credentials() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "invalid_client",
            "send client_id and client_secret, by HTTP Basic or in the form",
        )
    }

    fn not_basic() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "invalid_client",
            "the Authorization header is not HTTP Basic with a client id and secret",
        )
    }
}

impl From<OauthError> for OauthRefusal {
    fn from(error: OauthError) -> Self {
        let retry_after = match error {
            OauthError::TooOften(wait) => Some(wait),
            OauthError::Unavailable => Some(Duration::from_secs(2)),
            _ => None,
        };
        let status = match error {
            OauthError::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
            OauthError::InvalidClient(_) => StatusCode::UNAUTHORIZED,
            OauthError::InvalidScope(_) | OauthError::InvalidRequest(_) => StatusCode::BAD_REQUEST,
            OauthError::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self {
            retry_after,
            ..Self::new(status, error.code(), error.description())
        }
    }
}

impl IntoResponse for OauthRefusal {
    fn into_response(self) -> Response {
        let body = Json(TokenRefusal {
            error: self.error,
            error_description: self.description,
        });
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"wxgate\", charset=\"UTF-8\""),
            );
        }
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds_up(wait).into());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use axum::{
        Router,
        body::{Body, to_bytes},
        routing::post,
    };
    use http::Request;
    use tower::ServiceExt;

    use super::*;
    use crate::{body_limits::MAX_UNPROVEN_BODY, layers, metrics::HttpMetrics};

    #[tokio::test]
    async fn a_form_that_is_too_large_is_refused() {
        let read = async |TokenForm(_): TokenForm| {};
        let routes = Router::new().route("/", post(read));
        let routes = routes.layer(unproven_body());
        let routes = layers::around(routes, Router::new(), HttpMetrics::default(), &[]);
        let request =
            Request::post("/").header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let body = Body::from(format!("grant_type={}", "x".repeat(MAX_UNPROVEN_BODY)));
        let answer = routes.oneshot(request.body(body).unwrap());
        let (parts, body) = answer.await.unwrap().into_parts();
        assert_eq!(parts.status, 413);
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"], "invalid_request", "{body}");
    }

    fn headers(authorization: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, authorization.parse().unwrap())])
    }

    #[test]
    fn basic_credentials_are_form_decoded() {
        let encoded = BASE64_STANDARD.encode("key%5F1:a%2Bb+c%3A");
        let (id, secret) = credentials(
            &headers(&format!("basic {encoded}")),
            String::new(),
            String::new(),
        )
        .unwrap();
        assert_eq!((id.as_deref(), secret.expose()), (Some("key_1"), "a+b c:"));
        for wrong in [
            "Bearer x",
            "Basic !",
            "Basic",
            &format!("Basic {}", BASE64_STANDARD.encode("nocolon")),
            "Basic eDolWg==",
        ] {
            let refusal = credentials(&headers(wrong), String::new(), String::new()).unwrap_err();
            assert_eq!(
                (refusal.status.as_u16(), refusal.error),
                (401, "invalid_client"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn credentials_come_in_one_way_only() {
        let basic = headers(&format!("Basic {}", BASE64_STANDARD.encode("a:b")));
        assert_eq!(
            credentials(&basic, String::new(), "b".into())
                .unwrap_err()
                .error,
            "invalid_request"
        );
        assert_eq!(
            credentials(&basic, "other".into(), String::new())
                .unwrap_err()
                .error,
            "invalid_request"
        );
        assert!(credentials(&basic, "a".into(), String::new()).is_ok());
        let none = credentials(&HeaderMap::new(), "a".into(), String::new());
        assert_eq!(none.unwrap_err().error, "invalid_client");
        let (id, secret) = credentials(&HeaderMap::new(), "a".into(), "b".into()).unwrap();
        assert_eq!((id.as_deref(), secret.expose()), (Some("a"), "b"));
    }
}
